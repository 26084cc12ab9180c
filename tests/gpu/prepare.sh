#!/usr/bin/env bash
# On a machine with network: makes the folder that tests/gpu/run.sh --kit takes. See usage() below.
set -euo pipefail

usage() {
    cat <<'TEXT'
Makes a kit for tests/gpu/run.sh: what a GPU machine without network lacks. No GPU is needed here.

    tests/gpu/prepare.sh [--out DIR] [--python X.Y] [--without NAME,NAME…] [--arch N.M] [--no-scene]

    --out DIR        the kit (gpu-kit)
    --python X.Y     Python of the GPU machine (3.12); wheels are those for Linux on x86-64
    --without N,N…   packages that the GPU machine has, which would only make the kit large: numpy, numba and llvmlite,
                     scipy and pillow are 120 MB, all others 13
    --arch N.M       of its GPU (9.0, an H100 or H200)
    --no-scene       leaves out the demo flight (72 photos of 960x720), which takes minutes to make
    --help           this text

    PYTHON=…         interpreter with Spaceport's own packages (python3)
    CUDA_PYTHON=…    interpreter of any version with gsplat, ninja and the torch of the GPU machine, the same version to
                     the last letter (`python -c "import torch; print(torch.__version__)"` there); nvcc, of its CUDA
                     version, has to be on the PATH. Without it the kit has no kernels, and the GPU machine compiles
                     them.
TEXT
}

refuse() {
    echo "prepare.sh: $*" >&2
    exit 2
}

OUT=gpu-kit VERSION=3.12 WITHOUT='' ARCHITECTURE=9.0 FLIGHT=yes
while (($#)); do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --no-scene)
        FLIGHT=''
        shift
        ;;
    --out | --python | --without | --arch)
        (($# >= 2)) || refuse "$1 needs a value"
        case $1 in
        --out) OUT=$2 ;;
        --python) VERSION=$2 ;;
        --without) WITHOUT=$2 ;;
        --arch) ARCHITECTURE=$2 ;;
        esac
        shift 2
        ;;
    *) refuse "unknown argument $1; --help lists them" ;;
    esac
done
PYTHON=${PYTHON:-python3}
for interpreter in "$PYTHON" ${CUDA_PYTHON:+"$CUDA_PYTHON"}; do
    command -v "$interpreter" >/dev/null || refuse "there is no $interpreter"
done
PYTHON=$(command -v "$PYTHON")
CUDA_PYTHON=${CUDA_PYTHON:+$(command -v "$CUDA_PYTHON")}
OUT=$(realpath -m -- "$OUT")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$OUT"

echo "== wheels"
grep --invert-match '^#' tests/gpu/requirements.txt | grep --invert-match --line-regexp --fixed-strings \
    --file <(tr , '\n' <<<"$WITHOUT" | sed 's/^$/-/') >"$OUT/requirements.txt"
# pip takes the platforms literally: each that a wheel may name has to be named.
PLATFORMS=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
    PLATFORMS+=(--platform "${platform}_x86_64")
done
rm -f "$OUT"/*.whl
"$PYTHON" -m pip download --quiet --disable-pip-version-check --dest "$OUT" --no-deps --only-binary :all: \
    --python-version "$VERSION" --implementation cp "${PLATFORMS[@]}" \
    --constraint constraints.txt --requirement "$OUT/requirements.txt"

if [[ -n $CUDA_PYTHON ]]; then
    # The toolkit's own folder, asked of nvcc: torch takes the parent of the program's, which is wrong where that is a
    # script or a link in /usr/local/bin, and then misses CUDA's headers.
    CUDA_HOME=${CUDA_HOME:-$(nvcc --dryrun -E -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p' || true)}
    export CUDA_HOME
    echo "== kernels for $ARCHITECTURE"
    PATH=$(dirname "$CUDA_PYTHON"):$PATH "$CUDA_PYTHON" -m tests.gpu.kernels build "$OUT" --arch "$ARCHITECTURE"
fi
if [[ -n $FLIGHT ]]; then
    echo "== scene"
    rm -rf "$OUT/scene"
    "$PYTHON" -c '
import sys
from pathlib import Path
from tasks.core.demo.flight_plan import DemoOptions
from tests.gpu.flight_scene import flight_scene
flight_scene(Path(sys.argv[1]), DemoOptions(photos=72, width=960, height=720))' "$OUT/scene"
fi
du --summarize --human-readable "$OUT"
