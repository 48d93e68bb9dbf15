#!/bin/sh
# Everything that only a GPU can tell, in ten minutes, on a machine without network.
#   benchmarks/gpu.sh [--out FOLDER] [--budget SECONDS] [--only STEP ...]
# Writes figures.jsonl, figures.md and log.txt, figure by figure, to FOLDER (default: $OUT, or
# ./gpu-figures). Needs torch >= 2.10, the project's dependencies, pytest and pytest-timeout, and
# 5 GB of disk under $TMPDIR.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=python3
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m benchmarks.gpu "$@"
