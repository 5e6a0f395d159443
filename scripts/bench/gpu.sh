#!/bin/sh
# The trainer on one CUDA machine: tests, then a training step of each method, full and LoRA, float32 and bfloat16.
# One command, under ten minutes, nothing downloaded: tiny and random models with real vocabulary sizes.
#
#   scripts/bench/gpu.sh [FOLDER FOR THE TABLES]        PYTHON=/path/to/python, TRL_PYTHON=/path/to/python with trl
set -eu
cd "$(dirname "$0")/../.."
out=${1:-.}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
"$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.__version__, torch.cuda.get_device_name())'
"$python" -m pytest -q -p no:cacheprovider tests/gpu tests/contract/test_losses.py tests/unit/train/test_objective.py
for dtype in float32 bfloat16; do
    "$python" scripts/bench/train.py --device cuda --dtype "$dtype" --vocab 151936 --hidden 1024 --layers 8 --rows 8 \
        --length 1024 --steps 5 --json "$out/gpu-$dtype.json" ${TRL_PYTHON:+--trl-python "$TRL_PYTHON"}
done
