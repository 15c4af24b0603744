#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU: the GPU tests, then benchmarks of the operator, the selector networks, a training
# step, token extraction, and a whole map from images to the encoder file, and the compiler's figures of the kernels.
# Tables go to bench/results, or to the folder given as the argument, named by the device. First install brainkit from
# this folder: pip install -e '.[train,dev]', or without dependencies, pip install --no-build-isolation --no-deps -e .
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
mkdir -p -- "${1:-bench/results}"
results=$(cd -- "${1:-bench/results}" && pwd)

device=$("$python" - <<'END'
import re, sys
try:
    import torch, brainkit.kernels
except ModuleNotFoundError as error:
    sys.exit(f"bench/gpu.sh: expected brainkit and PyTorch, found no {error.name}; pip install -e '.[train,dev]'")
if not torch.cuda.is_available():
    sys.exit("bench/gpu.sh: expected an NVIDIA GPU and a PyTorch built for CUDA, found none")
print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-"))
END
)

failed=()
# Only files with GPU tests: others may need packages that are not installed here.
mapfile -t tests < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
"$python" -m pytest -m gpu -q -p no:cacheprovider "${tests[@]}" || failed+=(tests)
for bench in operator selectors step extraction one_minute; do
  "$python" -m "bench.$bench" --device cuda --name "$results/$bench-$device" || failed+=("$bench")
done
"$python" -m bench.kernels --name "$results/kernels-$device" || failed+=(kernels)
[ ${#failed[@]} -eq 0 ] || { echo "bench/gpu.sh: failed: ${failed[*]}" >&2; exit 1; }
