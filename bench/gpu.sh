#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one go: the GPU tests, then the operator, the selectors' networks, a whole
# training step, tokens of images, a whole map from pictures to the encoder file, and what the compiler makes of the
# kernels. Tables go to bench/results, or to the folder given, named
# by the device. Before it, install brainkit so that the sources are used: pip install -e '.[train,dev]', or with what is
# there, pip install --no-build-isolation --no-deps -e .
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
mkdir -p -- "${1:-bench/results}"
into=$(cd -- "${1:-bench/results}" && pwd)

device=$("$python" - <<'ASK'
import re, sys
try:
    import torch, brainkit.kernels
except ModuleNotFoundError as error:
    sys.exit(f"bench/gpu.sh needs brainkit and PyTorch installed, found no {error.name}: pip install -e '.[train,dev]'")
if not torch.cuda.is_available():
    sys.exit("bench/gpu.sh needs an NVIDIA GPU and a PyTorch built for CUDA, found none")
print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-"))
ASK
)

failed=()
"$python" -m pytest -m gpu -q -p no:cacheprovider tests/test_triton.py tests/test_triton_selectors.py \
  tests/test_residency.py tests/test_features.py tests/test_final_report.py || failed+=(tests)
for bench in operator selectors step; do
  "$python" -m "bench.$bench" --device cuda --name "$into/$bench-$device" || failed+=("$bench")
done
"$python" -m bench.extraction --device cuda --name "$into/extraction-$device" || failed+=(extraction)
"$python" -m bench.one_minute --device cuda --name "$into/one_minute-$device" || failed+=(one_minute)
"$python" -m bench.kernels --name "$into/kernels-$device" || failed+=(kernels)
[ ${#failed[@]} -eq 0 ] || { echo "bench/gpu.sh: failed: ${failed[*]}" >&2; exit 1; }
