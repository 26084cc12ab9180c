#!/usr/bin/env bash
# Everything that needs a GPU, in one command. See usage() below and docs/training.md, "On a GPU".
set -euo pipefail

usage() {
    cat <<'TEXT'
Parity of gsplat with the specification, our trainer beside gsplat's stock strategies, and the demo scene, on this
machine's GPU. Needs Python with a CUDA build of torch, nvcc of the same CUDA major version, g++; no network.

    tests/gpu/run.sh [--out DIR] [--work DIR] [--kit DIR] [--scene DIR] [--quick] [--dry-run]
                     [-- OPTIONS OF tests.gpu.side_by_side]

    --out DIR     where reports go (gpu-report): report.txt and report.json, written anew after every part, so that a
                  run that is cut off leaves what was done; side_by_side.json, run.log and view.jpg beside them
    --work DIR    where everything else goes (OUT/work)
    --kit DIR     what tests/gpu/prepare.sh made on a machine with network: wheels, gsplat's kernels, a scene
    --scene DIR   a Scene folder made elsewhere (the scene of a run's sfm stage); else the kit's, else the demo flight
                  is made here
    --quick       at most 8 minutes in all: parity, then ours and gsplat's default and MCMC strategies at 2,000 and at
                  7,000 steps each, then the trainer alone; what does not fit any more is left out and named
    --dry-run     everything that needs no GPU, on a machine without one: packages, compilers, tests found, the scene
                  read, each with its seconds; then what a run would do
    --help        this text

    PYTHON=…      interpreter (python3); nothing is installed into it
    MAX_JOBS=n    compilers at once where gsplat's kernels have to be built here (2 GB each); else by this machine's
                  cores and memory

Exit status: 0 everything ran (bars may be missed: the report says which); 1 a part failed or was left out; 2 wrong
arguments or something missing on this machine.
TEXT
}

refuse() {
    echo "run.sh: $*" >&2
    exit 2
}

QUICK_SECONDS=480
OUT=gpu-report
WORK='' KIT='' SCENE='' QUICK='' DRY=''
MORE=()
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --out | --work | --kit | --scene)
        (($# >= 2)) || refuse "$1 needs a folder"
        case $1 in
        --out) OUT=$2 ;;
        --work) WORK=$2 ;;
        --kit) KIT=$2 ;;
        --scene) SCENE=$2 ;;
        esac
        shift 2
        ;;
    --quick | --dry-run)
        if [[ $1 == --quick ]]; then QUICK=yes; else DRY=yes; fi
        shift
        ;;
    --)
        shift
        MORE=("$@")
        break
        ;;
    *) refuse "unknown argument $1; --help lists them" ;;
    esac
done

[[ -z $KIT || -d $KIT ]] || refuse "--kit $KIT is no folder"
if [[ -z $SCENE && -n $KIT && -f $KIT/scene/scene.json ]]; then SCENE=$KIT/scene; fi
[[ -z $SCENE || -f $SCENE/scene.json ]] || refuse "--scene $SCENE holds no scene.json"
PYTHON=${PYTHON:-python3}
command -v "$PYTHON" >/dev/null || refuse "there is no $PYTHON; name an interpreter with PYTHON=…"
PYTHON=$(command -v "$PYTHON")
OUT=$(realpath -m -- "$OUT")
WORK=$(realpath -m -- "${WORK:-$OUT/work}")
KIT=${KIT:+$(realpath -- "$KIT")}
SCENE=${SCENE:+$(realpath -- "$SCENE")}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# One process for three questions: importing torch takes seconds.
ARCHITECTURE=$("$PYTHON" -c '
import sys
try:
    import torch
except ImportError as error:
    sys.exit(f"{sys.executable} has no torch ({error}); install a CUDA build of it")
if torch.cuda.is_available():
    print("{}.{}".format(*torch.cuda.get_device_capability()))
') || refuse "see above"
[[ -n $ARCHITECTURE || -n $DRY ]] || refuse "torch finds no GPU; only --dry-run can do without one"

mkdir -p "$OUT" "$WORK"
rm -rf "$OUT"/{report.json,report.txt,side_by_side.json,run.log,view.jpg} \
    "$WORK"/{site,machine.json,parity.xml,side_by_side,demo,parts}
mkdir "$WORK/site" "$WORK/parts"
exec > >(tee "$OUT/run.log") 2>&1
LOG=$!
trap 'exec >&- 2>&-; wait "$LOG"' EXIT # until the last line is written
export PYTHONUNBUFFERED=1
# Packages of the kit go before this Python's own. Programs, as ninja, lie beside the interpreter, where a shell that
# did not activate it does not look.
export PYTHONPATH=$PWD:$WORK/site PATH=$WORK/site/bin:$(dirname "$PYTHON"):$PATH

# The toolkit's own folder, asked of nvcc: torch takes the parent of the program's, which is wrong where that is a
# script or a link in /usr/local/bin, and then misses CUDA's headers.
CUDA_HOME=${CUDA_HOME:-$(nvcc --dryrun -E -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p' || true)}
export CUDA_HOME

FAILED='' # of a dry run
say() {
    echo "== ${SECONDS} s: $*"
}

if [[ -n $KIT ]] && compgen -G "$KIT/*.whl" >/dev/null; then
    say "unpacking the kit's packages"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --target "$WORK/site" \
        "$KIT"/*.whl || refuse "a wheel of $KIT does not fit this Python; see pip's words above"
fi

say "importing what the parts import"
# Really importing: a numba that is there can still refuse the numpy that is there. gsplat, when imported, compiles.
"$PYTHON" - <<'TEXT' || refuse "packages are missing; tests/gpu/prepare.sh makes a kit of them for --kit"
import importlib, importlib.util, sys

missing = []
for name in """
numpy numba scipy PIL plyfile psutil pydantic pynvml pytest rich jaxtyping ninja
""".split():
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing.append(f"{name} ({error})")
if importlib.util.find_spec("gsplat") is None:
    missing.append("gsplat")
sys.exit(f"missing: {', '.join(missing)}" if missing else 0)
TEXT

# Only this GPU's kernels; as many compilers as memory allows, for gsplat's own default of 10 can exhaust 16 GB.
TORCH_CUDA_ARCH_LIST=$ARCHITECTURE
if [[ -z ${MAX_JOBS:-} ]]; then
    by_memory=$(awk '/MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo)
    MAX_JOBS=$(nproc)
    ((MAX_JOBS <= by_memory)) || MAX_JOBS=$by_memory
    ((MAX_JOBS >= 1)) || MAX_JOBS=1
fi
export MAX_JOBS
# Against fragments on small cards. It maps memory in a way that not every virtual machine offers, which a quick run is
# too short to find out.
[[ -n $QUICK ]] || export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}

if [[ -n $KIT && -f $KIT/kernels.json ]]; then
    say "binding the kit's kernels to this Python"
    if ! "$PYTHON" -m tests.gpu.kernels bind "$KIT" ${ARCHITECTURE:+--arch "$ARCHITECTURE"}; then
        echo "THE KIT'S KERNELS CANNOT BE USED, see above: all of gsplat's are compiled here instead"
        FAILED=yes
    fi
fi
if [[ -n $ARCHITECTURE ]]; then
    export TORCH_CUDA_ARCH_LIST
    say "loading gsplat's kernels; where the kit brought none they are built for $ARCHITECTURE with $MAX_JOBS compilers"
fi
"$PYTHON" -m tests.gpu.machine | tee "$WORK/machine.json"
if [[ -z $DRY ]]; then
    "$PYTHON" -c '
import json, sys
sys.exit(json.load(open(sys.argv[1], encoding="utf-8"))["why_cuda_is_unavailable"])' "$WORK/machine.json" ||
        refuse "gsplat's kernels cannot run here; see above"
fi

# A part that fails does not keep the others from running. A quick run gives each part what is left of the 8 minutes,
# less what the later ones need at least, and does not begin a part for which nothing is left.
part() {
    local name=$1 kept=$2 began=$SECONDS status=0 limit=()
    shift 2
    if [[ -n $QUICK ]]; then
        local left=$((QUICK_SECONDS - kept - SECONDS))
        if ((left < 10)); then
            say "$name: left out, no time is left"
            return
        fi
        limit=(timeout --kill-after=5 "$left")
    fi
    say "$name${limit:+, at most ${limit[2]} s}"
    ${limit[@]+"${limit[@]}"} "$@" || status=$?
    say "$name: status $status after $((SECONDS - began)) s"
    printf '{"status": %d, "seconds": %d}\n' "$status" "$((SECONDS - began))" >"$WORK/parts/$name.json"
    [[ -n $DRY ]] || "$PYTHON" -m tests.gpu.report "$OUT" --work "$WORK" >/dev/null || true # what is missing is to come
    ((status == 0)) || FAILED=yes
}

export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # those that happen to be there may not fit the pytest of the kit
PARITY=(-m pytest -c tests/gpu/pytest.ini --rootdir . --noconftest -p no:cacheprovider -m cuda)
PARITY_FILES=(tests/core/render/test_parity.py tests/core/training/test_engines.py
    tests/core/training/test_cuda_engine.py)
CONTEST=(-m tests.gpu.side_by_side --out "$OUT" ${SCENE:+--scene "$SCENE"})
DEMO=(-m tests.gpu.demo --out "$WORK/demo" ${SCENE:+--scene "$SCENE"})
if [[ -n $QUICK ]]; then
    CONTEST+=(--steps 2000 7000 --equal-steps --contenders ours default mcmc --photos 72 --size 960)
    DEMO+=(--steps 2000)
fi
CONTEST+=(${MORE[@]+"${MORE[@]}"})

if [[ -n $DRY ]]; then
    part parity 0 "$PYTHON" "${PARITY[@]}" -q --collect-only "${PARITY_FILES[@]}"
    part reading 0 "$PYTHON" -m tests.gpu.rehearsal ${SCENE:+--scene "$SCENE"}
    say "a run would now do, in this order:"
    printf '    %s\n' "python ${PARITY[*]} ${PARITY_FILES[*]}" "python ${CONTEST[*]}" "python ${DEMO[*]}"
    [[ -z $FAILED ]] || exit 1
    exit 0
fi

part parity 240 "$PYTHON" "${PARITY[@]}" -v --durations=5 --junitxml "$WORK/parity.xml" "${PARITY_FILES[@]}"
if [[ -n $QUICK ]]; then CONTEST+=(--seconds $((QUICK_SECONDS - 60 - SECONDS))); fi
part side_by_side 40 "$PYTHON" "${CONTEST[@]}"
if [[ -z $QUICK && -z $SCENE && -d tasks/core/viewer/npm/node_modules ]] &&
    "$PYTHON" -c 'import prefect, pycolmap, boto3, typer' 2>/dev/null; then
    part demo 0 "$PYTHON" -c 'from flows.cli.app import main; main()' demo --out "$WORK/demo" --preset standard \
        --workspace "$WORK/workspace" --fresh --set train.backend=cuda
else # no structure from motion and no orchestration here: the trainer alone
    part demo 8 "$PYTHON" "${DEMO[@]}"
fi
if [[ -f $WORK/demo/view.jpg ]]; then cp "$WORK/demo/view.jpg" "$OUT"; fi
say "all parts"
"$PYTHON" -m tests.gpu.report "$OUT" --work "$WORK"
