#!/bin/sh
# Everything that only a GPU can tell, on a machine without network: tests first, then the figures.
#   benchmarks/gpu.sh [FOLDER WITH 60 GB]   writes gpu.json beside the printed Markdown
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
folder=${1:-${TMPDIR:-/tmp}}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$python" -m pytest -q -m gpu tests
"$python" -m benchmarks.gpu_epoch --folder "$folder" --set compile=true --out "${OUT:-.}/gpu.json"
"$python" benchmarks/fit.py --gpu
