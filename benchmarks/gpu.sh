#!/usr/bin/env bash
# The questions for a GPU, in order; short tables on the screen, everything in $OUT.
#
#     [OUT=folder] [PYTHON=python3] benchmarks/gpu.sh
#
# Needs torch with CUDA, triton, pytest and what pyproject.toml lists, already installed; nothing is downloaded. The
# package need not be installed. A folder `wheels` with wheels for what is missing is used if it is there.
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-build/gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT" build/gpu-path/wse
OUT=$(cd "$OUT" && pwd)
for part in cli engine kernels; do ln -sfn "../../../$part" "build/gpu-path/wse/$part"; done
export PYTHONPATH="$PWD/build/gpu-path:$PWD/benchmarks:$PWD/build/gpu-wheels${PYTHONPATH:+:$PYTHONPATH}"
export WSE_CACHE=${WSE_CACHE:-$PWD/build/gpu-cache} TRITON_DEFAULT_FP_FUSION=1
unset TRITON_INTERPRET
if [ -d wheels ]; then
    "$PYTHON" -m pip install --quiet --no-index --find-links wheels --target build/gpu-wheels wheels/*.whl
fi

"$PYTHON" - <<'PROBE' | tee "$OUT/machine.txt" || exit 1
import datetime, importlib.util, platform, sys
wanted = "torch triton numpy scipy msgspec pyarrow safetensors pytest hypothesis sklearn pooch platformdirs numba".split()
missing = [name for name in wanted if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("not installed: " + ", ".join(missing) + "; put wheels for them into a folder `wheels`")
import torch, triton
if not torch.cuda.is_available():
    sys.exit("PyTorch sees no NVIDIA GPU")
print(datetime.datetime.now().isoformat(timespec="seconds"), torch.cuda.get_device_name(),
      f"python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}, triton {triton.__version__}")
PROBE
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1

ask() { # ask SECONDS NAME COMMAND...: a question with a time limit, its whole output in a file
    local limit=$1 name=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" >"$OUT/$name.txt" 2>&1
    local code=$?
    tail -n "${LINES_SHOWN:-40}" "$OUT/$name.txt"
    [ $code -eq 0 ] || echo "   ended with code $code (124: after $limit s)"
}

# 1. Are the results right, and do all forms fit into this GPU?
LINES_SHOWN=15 ask 420 1-numerics "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests/kernels tests/engine/train
# 2. and 3. Whole steps, the kernels' shares, and PyTorch on the same work.
ask 180 2-steps-nws-fixed "$PYTHON" benchmarks/gpu_step.py --seconds 3 --rivals --out "$OUT/steps.jsonl"
ask 60 2-steps-nws-fixed-augmented "$PYTHON" benchmarks/gpu_step.py --seconds 3 --members 1024 --augment --out "$OUT/steps.jsonl"
ask 100 2-steps-small-cnn "$PYTHON" benchmarks/gpu_step.py --preset small-cnn --seconds 3 --rivals --out "$OUT/steps.jsonl"
# 4. What three products of TF32 cost.
ask 90 4-steps-fp32 "$PYTHON" benchmarks/gpu_step.py --precision fp32 --members 256 1024 --seconds 3 --out "$OUT/steps.jsonl"
# 5. A population from nothing to a zoo, beside the processor's.
rm -rf "$OUT/zoos"
ask 330 5-population "$PYTHON" benchmarks/gpu_population.py --folder "$OUT/zoos"
