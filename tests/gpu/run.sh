#!/usr/bin/env bash
# Everything that needs a GPU, in one command. See usage() below and docs/training.md, "On a GPU".
set -euo pipefail

usage() {
    cat <<'TEXT'
Parity of gsplat with the specification, our trainer beside gsplat's stock strategies, and the demo scene, on this
machine's GPU. Needs Python with a CUDA build of torch, nvcc of the same CUDA major version, g++; no network.

    tests/gpu/run.sh [--out DIR] [--scene DIR] [--quick] [-- OPTIONS OF tests.gpu.side_by_side]

    --out DIR     where reports go (gpu-report); report.txt and report.json at the end
    --scene DIR   a Scene folder made elsewhere (the scene of a run's sfm stage); else the demo flight is made here
    --quick       600 steps instead of 30,000 and 10,000, to see that everything runs; its ratios mean nothing
    --help        this text

    PYTHON=…      interpreter (python3)
    WHEELS=DIR    folder of wheels from which missing packages are installed with --no-index; torch is never replaced
    MAX_JOBS=n    compilers at once while gsplat's kernels are built (2 GB each); else by this machine's cores and memory

To carry wheels to a machine without network, on one with network and the same Python version and platform:
    pip download --dest wheels --no-deps --constraint constraints.txt --requirement tests/gpu/requirements.txt

Exit status: 0 everything ran (bars may be missed: the report says which); 1 a part failed; 2 wrong arguments or
something missing on this machine.
TEXT
}

refuse() {
    echo "run.sh: $*" >&2
    exit 2
}

OUT=gpu-report
SCENE=()
CONTEST=()
DEMO=()
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --out | --scene)
        (($# >= 2)) || refuse "$1 needs a folder"
        if [[ $1 == --out ]]; then OUT=$2; else SCENE=(--scene "$(realpath -m -- "$2")"); fi
        shift 2
        ;;
    --quick)
        CONTEST+=(--steps 600 --photos 40 --size 800 --ours steps=600 max_gaussians=100000)
        DEMO+=(--steps 300)
        shift
        ;;
    --)
        shift
        CONTEST+=("$@")
        break
        ;;
    *) refuse "unknown argument $1; --help lists them" ;;
    esac
done

if ((${#SCENE[@]})) && [[ ! -f ${SCENE[1]}/scene.json ]]; then
    refuse "--scene ${SCENE[1]} holds no scene.json"
fi
PYTHON=${PYTHON:-python3}
command -v "$PYTHON" >/dev/null || refuse "there is no $PYTHON; name an interpreter with PYTHON=…"
PYTHON=$(command -v "$PYTHON")
[[ -z ${WHEELS:-} || -d $WHEELS ]] || refuse "WHEELS=$WHEELS is no folder"
OUT=$(realpath -m -- "$OUT")
WHEELS=${WHEELS:+$(realpath -- "$WHEELS")}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONPATH=$PWD

"$PYTHON" -c 'import torch' 2>/dev/null || refuse "$PYTHON has no torch; install a CUDA build of it"
"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    refuse "torch finds no GPU; nothing here can run without one"

# What the pure core and these programs import: import name, then the package's name.
install_missing() {
    local module package missing=()
    while read -r module package; do
        "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$module') is None)" ||
            missing+=("$package")
    done <<'TEXT'
numpy numpy
numba numba
scipy scipy
PIL pillow
plyfile plyfile
psutil psutil
pydantic pydantic
pynvml nvidia-ml-py
pytest pytest
rich rich
jaxtyping jaxtyping
ninja ninja
gsplat gsplat
TEXT
    ((${#missing[@]})) || return 0
    [[ -n $WHEELS ]] || refuse "missing packages: ${missing[*]}; carry their wheels and name the folder with WHEELS=…"
    local torch_version
    torch_version=$("$PYTHON" -c 'import torch; print(torch.__version__)')
    "$PYTHON" -m pip install --no-index --find-links "$WHEELS" "${missing[@]}" "torch==$torch_version" ||
        refuse "$WHEELS lacks a wheel that fits this Python; see pip's words above"
}
install_missing

# Only this GPU's kernels; as many compilers as memory allows, for gsplat's own default of 10 can exhaust 16 GB.
TORCH_CUDA_ARCH_LIST=$("$PYTHON" -m tests.gpu.machine --arch)
if [[ -z ${MAX_JOBS:-} ]]; then
    by_memory=$(awk '/MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo)
    MAX_JOBS=$(nproc)
    ((MAX_JOBS <= by_memory)) || MAX_JOBS=$by_memory
    ((MAX_JOBS >= 1)) || MAX_JOBS=1
fi
export TORCH_CUDA_ARCH_LIST MAX_JOBS
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
# ninja's program lies beside the interpreter, where a shell that did not activate it does not look
PATH=$(dirname "$PYTHON"):$PATH
export PATH

mkdir -p "$OUT"
rm -rf "$OUT"/{machine.json,parity.xml,side_by_side,demo,exit_status.json,report.json,report.txt}
echo "building gsplat's kernels for architecture $TORCH_CUDA_ARCH_LIST with $MAX_JOBS compilers, where not done before"
reason=$("$PYTHON" -c 'from tasks.core.render.cuda import why_unavailable; print(why_unavailable() or "")' | tail -n 1)
[[ -z $reason ]] || refuse "$reason"
"$PYTHON" -m tests.gpu.machine >"$OUT/machine.json"

# A part that fails does not keep the others from running.
declare -A STATUS
part() {
    local name=$1 began=$SECONDS
    shift
    echo "== $name"
    STATUS[$name]=0
    "$@" 2>&1 | tee "$OUT/$name.log" || STATUS[$name]=1
    echo "== $name: status ${STATUS[$name]}, $((SECONDS - began)) s"
}

part parity "$PYTHON" -m pytest -c tests/gpu/pytest.ini --rootdir . --noconftest -p no:cacheprovider -q -m cuda \
    --junitxml "$OUT/parity.xml" tests/core/render/test_parity.py tests/core/training/test_engines.py \
    tests/core/training/test_cuda_engine.py
part side_by_side "$PYTHON" -m tests.gpu.side_by_side --out "$OUT/side_by_side" \
    ${SCENE[@]+"${SCENE[@]}"} ${CONTEST[@]+"${CONTEST[@]}"}
if ((${#SCENE[@]} == 0)) && [[ -d tasks/core/viewer/npm/node_modules ]] &&
    "$PYTHON" -c 'import prefect, pycolmap, boto3, typer' 2>/dev/null; then
    whole=("$PYTHON" -c 'from flows.cli import main; main()' demo --out "$OUT/demo" --preset standard
        --workspace "$OUT/workspace" --fresh --set train.backend=cuda)
    if ((${#DEMO[@]})); then whole+=(--set train.steps="${DEMO[1]}"); fi
    part demo "${whole[@]}"
else # no structure from motion and no orchestration here: the trainer alone
    part demo "$PYTHON" -m tests.gpu.demo --out "$OUT/demo" ${SCENE[@]+"${SCENE[@]}"} ${DEMO[@]+"${DEMO[@]}"}
fi

printf '{"parity": %d, "side_by_side": %d, "demo": %d}\n' \
    "${STATUS[parity]}" "${STATUS[side_by_side]}" "${STATUS[demo]}" >"$OUT/exit_status.json"
"$PYTHON" -m tests.gpu.report "$OUT"
