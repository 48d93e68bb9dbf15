#!/usr/bin/env bash
# Tests at an end of the ranges in pyproject.toml, in an environment of their own:
#   .ci/version_ends.sh oldest|newest [PYTHON]
# oldest: every direct requirement at the lowest version that its range allows. newest: the last ones, not the lock.
# The environment (7 GB with torch's CUDA libraries) is removed afterwards.
set -euo pipefail
end=$1 python=${2:-python3}
cd "$(dirname "$0")/.."
folder=$PWD/build/version-ends/$end
rm -rf "$folder" && mkdir -p "$folder"
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
bin=$folder/venv/bin
"$bin/pip" install --quiet uv
export UV_SYSTEM_CERTS=1 UV_CACHE_DIR=$folder/cache
resolution=$([ "$end" = oldest ] && echo lowest-direct || echo highest)
"$bin/uv" pip compile --quiet --python "$bin/python" --resolution "$resolution" --no-annotate --no-header \
    --extra captioning --extra demo --extra reports --extra vqa pyproject.toml > "$folder/versions.txt"
"$bin/uv" pip install --quiet --python "$bin/python" --requirement "$folder/versions.txt" \
    pytest pytest-asyncio pytest-timeout pytest-xdist hypothesis pyte
"$bin/uv" pip install --quiet --python "$bin/python" --no-deps --editable .  # tests start its command
"$bin/python" --version
grep -E '^(torch|torchvision|transformers|peft|bitsandbytes|numpy|pandas|pyarrow|scipy|textual|typer|pydantic)==' "$folder/versions.txt"
# A warning of an older or newer library is no error here.
"$bin/python" -m pytest -q -n 2 --dist loadfile -o filterwarnings=default \
    tests/contract/test_imports.py tests/contract/test_cli.py tests/results/records tests/datasets_mm/adapters/test_m2kr_layouts.py \
    tests/workbench/cli tests/workbench/tui/test_app.py tests/workbench/tui/screens/test_results_screen.py \
    tests/engines/test_catalogs.py tests/engines/retrieval/test_tasks.py tests/engines/captioning/test_tasks.py \
    tests/engines/vqa/test_tasks.py tests/engines/retrieval/models tests/engines/torchkit/checkpointing
