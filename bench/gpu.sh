#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: the GPU tests, then the operator, a training step and the kernels'
# figures. Tables go to bench/results, or to the folder given, named by the device. Install brainkit[train] first.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
into=${1:-bench/results}
mkdir -p -- "$into"
into=$(cd -- "$into" && pwd)

device=$("$python" - <<'ASK'
import re, sys
import torch
if not torch.cuda.is_available():
    sys.exit("bench/gpu.sh needs an NVIDIA GPU and a PyTorch built for CUDA; found none")
print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-"))
ASK
)

failed=0
"$python" -m pytest -m gpu -q -p no:cacheprovider tests || failed=1
for bench in operator step selectors; do
  "$python" -m "bench.$bench" --device cuda --name "$into/$bench-$device" || failed=1
done
"$python" -m bench.kernels --name "$into/kernels-$device" || failed=1
exit "$failed"
