#!/usr/bin/env bash
# The questions for a GPU, in the order of their value; short tables on the screen, everything in one archive in $OUT,
# which is written anew after every question.
#
#     [OUT=folder] [PYTHON=python3] [MINUTES=19] benchmarks/gpu.sh [--dry] [PART ...]
#
# Parts, in this order if none is named (how many minutes each may take at most):
#
#     numerics   (3.5)  do all kernels compute what their references do on the hardware, packs of 1 to 1,024
#     steps      (6)    whole steps of nws-fixed and small-cnn, kernels' shares, beside PyTorch
#     population (2.5)  a small population from nothing to a zoo, beside the processor's
#     questions  (3.5)  tile sizes, TMA, bandwidth of slices, products in fp32
#     mixed        (6)  nws-main: a population from nothing to a zoo, by how many packs share the GPU at a time;
#                       members that differ in everything, eight architectures, beside PyTorch
#
# MINUTES is for all of them together: what is left when they are over is not asked. Where a call has ten
# minutes at most: MINUTES=9 with numerics and steps, then the others.
#
# --dry tries all of it without a GPU: kernels in Triton's interpreter, tiny sizes, nothing is timed.
#
# Needs torch with CUDA, triton, pytest and what pyproject.toml lists, already installed; nothing is downloaded. The
# package need not be installed. A folder `wheels` with wheels for what is missing is used if it is there.
set -u
cd "$(dirname "$0")/.." || exit 1
DRY=
if [ "${1:-}" = --dry ]; then DRY=1 && shift; fi
PARTS=${*:-numerics steps population questions mixed}
OUT=${OUT:-build/gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT" build/gpu-path/wse build/gpu-results
ARCHIVE=$(cd "$OUT" && pwd)/gpu-results.tar.gz
OUT=$PWD/build/gpu-results
rm -rf "${OUT:?}"/*

# The package as it is in the tree, with the name and version that results record.
for part in cli engine kernels; do ln -sfn "../../../$part" "build/gpu-path/wse/$part"; done
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
mkdir -p "build/gpu-path/wse-$VERSION.dist-info"
printf 'Metadata-Version: 2.1\nName: wse\nVersion: %s\n' "$VERSION" >"build/gpu-path/wse-$VERSION.dist-info/METADATA"
export PYTHONPATH="$PWD/build/gpu-path:$PWD/benchmarks:$PWD/build/gpu-wheels${PYTHONPATH:+:$PYTHONPATH}"
export WSE_CACHE=${WSE_CACHE:-$PWD/build/gpu-cache} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$PWD/build/gpu-cache/triton}
export PYTHONUNBUFFERED=1 # what is cut off has said how far it was
unset TRITON_INTERPRET
if [ -d wheels ]; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --target build/gpu-wheels --upgrade wheels/*.whl || exit 1
fi

"$PYTHON" - "$DRY" <<'PROBE' | tee "$OUT/machine.txt"
import datetime, importlib.util, os, platform, sys
wanted = "torch triton numpy scipy msgspec pyarrow safetensors pytest hypothesis sklearn pooch platformdirs numba typer rich tqdm threadpoolctl"
missing = [name for name in wanted.split() if importlib.util.find_spec(name) is None]
if missing:
    sys.exit("not installed: " + ", ".join(missing) + "; put wheels for them into a folder `wheels`")
import numba, torch, triton  # numba says at once if NumPy is too new for it
if not torch.cuda.is_available() and not sys.argv[1]:
    sys.exit("PyTorch sees no NVIDIA GPU; --dry tries everything without one")
gpu = "no GPU, tried in the interpreter" if sys.argv[1] else torch.cuda.get_device_name()
print(f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {gpu}, {os.cpu_count()} cores, python {platform.python_version()}, "
      f"torch {torch.__version__}, CUDA {torch.version.cuda}, triton {triton.__version__}")
PROBE
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1

FAILED=0 STOPPED='' RUNNING=''
DEADLINE=$((SECONDS + 60 * ${MINUTES:-19}))
# What has a time limit is out of the terminal's reach, so Ctrl-C is handed on: it ends the question, and all others.
trap 'STOPPED=1; [ -z "$RUNNING" ] || kill -INT "$RUNNING" 2>/dev/null' INT TERM
ask() { # ask SECONDS NAME COMMAND...: a question with a time limit, its whole output in a file
    local limit=$1 name=$2 began=$SECONDS left=$((DEADLINE - SECONDS)) code
    shift 2
    echo "== $name"
    if [ $left -lt 15 ]; then
        echo "   not asked: the time for all questions is over" && return
    fi
    limit=$((left < limit ? left : limit))
    timeout -s INT -k 10 "$limit" "$@" >"$OUT/$name.txt" 2>&1 &
    RUNNING=$!
    wait "$RUNNING"
    code=$?
    while [ -n "$STOPPED" ] && kill -0 "$RUNNING" 2>/dev/null; do wait "$RUNNING"; done # it has ten seconds
    RUNNING=
    tail -n "${LINES_SHOWN:-45}" "$OUT/$name.txt"
    tar -czf "$ARCHIVE.part" -C "$OUT" . && mv "$ARCHIVE.part" "$ARCHIVE"
    if [ $code -eq 0 ]; then echo "   ($((SECONDS - began)) s)"; else
        FAILED=1
        echo "   ended with code $code after $((SECONDS - began)) s (124: its time was over)"
    fi
    [ -z "$STOPPED" ] || { echo "   stopped: what was found so far is in $ARCHIVE" && exit 130; }
}
interpreted() { TRITON_INTERPRET=1 ask "$@"; }
bench() { # bench SECONDS NAME MEMBERS PRECISION PRESET OPTION...: results as JSON lines too
    local limit=$1 name=$2 members=$3 precision=$4 preset=$5
    shift 5
    ask "$limit" "$name" "$PYTHON" -m wse.cli bench train --device cuda --preset "$preset" --members "$members" \
        --precision "$precision" --rounds 3 --out "$OUT/train.jsonl" "$@"
}

# The best of each way first; a bench that is cut short keeps its whole rounds.
RIVALS=cuda-bf16-1024,eager,graph-bf16,vmap,grouped-bf16
OTHERS=cuda-bf16-1024,eager-nx1,graph,graphs,grouped

# Tests side by side, because compiling takes longest: those of kernels by file, which take longest and come first, then
# those of whole packs one by one. What each says is in a file of its own, a line a test.
test_some() { # test_some FILE or FILE::TEST
    local name log code
    name=$(basename "$1" | tr -c '[:alnum:]._\n-' '-')
    log=$OUT/numerics/$name.txt
    "$PYTHON" -m pytest -W default -v --tb=short -m gpu -p no:cacheprovider "$1" >"$log" 2>&1
    code=$?
    grep -E '^(FAILED|ERROR) ' "$log"
    echo "$name: $(tail -n 1 "$log")"
    [ $code -eq 0 ] || [ $code -eq 5 ] # 5: nothing in there runs on a GPU
}
numerics() {
    mkdir -p "$OUT/numerics"
    {
        find tests/kernels -name 'test_*triton.py' -o -name test_transfer.py
        "$PYTHON" -m pytest -W default --collect-only -q -m gpu tests/engine/train/test_cuda*.py | grep ::
    } | xargs -P 12 -d '\n' -I{} bash -c 'test_some "$1"' _ {}
}
export -f test_some numerics
export OUT PYTHON

for part in $PARTS; do
    case $part${DRY:+-dry} in
    numerics) LINES_SHOWN=60 ask 210 numerics bash -c numerics ;;
    numerics-dry)
        interpreted 300 numerics "$PYTHON" -m pytest -q -p no:cacheprovider tests/kernels/pool/test_pool_triton.py tests/kernels/loss/test_loss_triton.py
        ;;
    steps)
        # The first of them waits for the compiler, twice: what is checked in fp32 is timed in bf16.
        bench 110 steps-ours 64,256,1024 bf16 nws-fixed --contenders cuda-bf16-64,cuda-bf16-256,cuda-bf16-1024
        bench 110 steps-nws-fixed 1024 bf16 nws-fixed --contenders "$RIVALS" --plot "$OUT/nws-fixed.svg"
        bench 70 steps-small-cnn 1024 bf16 small-cnn --batch 64 --contenders "$RIVALS"
        bench 70 steps-nws-fixed-others 1024 bf16 nws-fixed --contenders "$OTHERS"
        ;;
    steps-dry)
        interpreted 200 steps "$PYTHON" -m pytest -q -p no:cacheprovider tests/engine/bench/test_cuda_bench.py
        ask 60 steps-without-gpu sh -c '"$PYTHON" -m wse.cli bench train --device cuda; [ $? -eq 2 ]'
        ;;
    population)
        rm -rf build/gpu-zoos/population
        ask 150 population "$PYTHON" benchmarks/gpu_population.py --folder build/gpu-zoos/population
        ;;
    population-dry)
        rm -rf build/gpu-zoos/population
        ask 200 population "$PYTHON" benchmarks/gpu_population.py --folder build/gpu-zoos/population --members 3 --epochs 1 --device reference cpu
        ;;
    questions)
        ask 90 questions-tiles "$PYTHON" benchmarks/gpu_tiles.py --out "$OUT/questions.jsonl"
        ask 30 questions-tma "$PYTHON" benchmarks/gpu_tma.py --out "$OUT/questions.jsonl"
        ask 30 questions-slices "$PYTHON" benchmarks/gpu_slices.py --out "$OUT/questions.jsonl"
        bench 60 questions-fp32 1024 bf16,fp32 nws-fixed --contenders cuda-bf16-1024,cuda-fp32-1024
        ;;
    questions-dry)
        ask 200 questions-tiles-compiled "$PYTHON" benchmarks/gpu_tiles.py --compile --shapes 1 --only forward
        interpreted 200 questions-tiles "$PYTHON" benchmarks/gpu_tiles.py --device cpu --members 1 --batch 1 --shapes 1 --out "$OUT/questions.jsonl"
        ask 100 questions-tma-compiled "$PYTHON" benchmarks/gpu_tma.py --compile
        interpreted 100 questions-tma "$PYTHON" benchmarks/gpu_tma.py --device cpu --members 1 --batch 8 --out "$OUT/questions.jsonl"
        interpreted 100 questions-slices "$PYTHON" benchmarks/gpu_slices.py --device cpu --gigabytes 0.001 --lengths 50 9000 --out "$OUT/questions.jsonl"
        ;;
    mixed)
        ask 120 mixed-packs "$PYTHON" benchmarks/gpu_packs.py --folder build/gpu-zoos --out "$OUT/packs.jsonl"
        bench 150 mixed-nws-main 1024 bf16 nws-main --contenders "$RIVALS"
        ;;
    mixed-dry)
        ask 200 mixed-packs "$PYTHON" benchmarks/gpu_packs.py --folder build/gpu-zoos --device cpu --members 6 --epochs 1 --packs 1 2
        ;;
    *) echo "no part is called $part" && exit 2 ;;
    esac
done
exit $FAILED
