# Training on NVIDIA GPUs: the CPU image's code with PyTorch for CUDA, a compiled gsplat and pycolmap for CUDA.
#
#     docker build --file docker/gpu.Dockerfile --tag spaceport-gpu:0.1.0 .
#
# It builds without a GPU. CUDA is that of PyPI's torch 2.13.0, which has no build for CUDA 12.8; machines that run it
# need a driver of 580 or later. `prefect flow-run execute` on ECS and `python -m deployments.aws.runtime.gpu_host` on EC2 run in it.
# By digest: a tag can be moved to another image.
ARG BUILD_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04@sha256:5dc1bca23d05bd37b011be68ec470c03b403a5da07ec3a86e41af9470e9d0cc6
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04@sha256:2ab6381d970b211fb93853796dc6707eb8a72575a375c422b17cf4d8b2641701

FROM ${BUILD_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# T4 (g4dn), A100, A10G (g5), L4 (g6), H100: gsplat would otherwise compile for minutes when a first run starts.
ARG CUDA_ARCHITECTURES="7.5;8.0;8.6;8.9;9.0"
ARG MAX_JOBS=2
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive
# The base image's own versions: they change with it, and it is what is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential git ninja-build python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/spaceport
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/requirements.txt docker/requirements-gpu.txt docker/requirements-node.txt docker/
# pycolmap-cuda12 is the same module as pycolmap; the two must not lie over one another. It is made for CUDA 12 and asks
# for a cuda-toolkit that excludes torch's, so the two libraries of it that it loads are named instead.
# hadolint ignore=DL3013
RUN python3 -m venv .venv \
 && .venv/bin/pip install --quiet --no-deps --require-hashes --requirement docker/requirements.txt \
 && .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable . \
 && .venv/bin/pip uninstall --quiet --yes pycolmap \
 && .venv/bin/pip install --quiet --no-deps --require-hashes --requirement docker/requirements-gpu.txt
# The version that the constraints name, from the commit of its tag: the wheel on PyPI holds no compiled kernels.
ARG GSPLAT_COMMIT=937e29912570c372bed6747a5c9bf85fed877bae
RUN TORCH_CUDA_ARCH_LIST="${CUDA_ARCHITECTURES}" MAX_JOBS=${MAX_JOBS} .venv/bin/pip install --quiet --no-deps \
    --no-build-isolation --force-reinstall \
    "gsplat @ git+https://github.com/nerfstudio-project/gsplat@${GSPLAT_COMMIT}" \
 && [ "$(.venv/bin/pip show gsplat | sed -n 's/^Version: //p')" = "$(sed -n 's/^gsplat==//p' constraints.txt)" ] \
 && for architecture in $(echo "${CUDA_ARCHITECTURES}" | tr -d . | tr ';' ' '); do \
      cuobjdump --list-elf "$(find .venv -path '*gsplat*' -name '*.so' -print -quit)" | grep --quiet "sm_${architecture}" || exit 1; \
    done
COPY tasks/core/viewer/npm tasks/core/viewer/npm
RUN python3 -m venv /opt/node \
 && /opt/node/bin/pip install --quiet --no-deps --require-hashes --requirement docker/requirements-node.txt \
 && PATH="/opt/node/bin:$PATH" npm ci --prefix tasks/core/viewer/npm --ignore-scripts --no-audit --no-fund --loglevel=error
COPY flows flows
COPY tasks tasks
COPY deployments deployments

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="spaceport-gpu" \
      org.opencontainers.image.description="Drone photos in, a 3D Gaussian splat that opens in any browser out: training on GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# pycolmap-cuda12's wheel leaves the X libraries to the system.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libice6 libsm6 libx11-6 libxext6 python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 spaceport \
 && install --directory --owner spaceport /scratch /var/lib/spaceport
COPY --from=build /opt/spaceport /opt/spaceport
WORKDIR /opt/spaceport
USER 10001
ENV PATH=/opt/spaceport/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPACEPORT_HOME=/var/lib/spaceport \
    PREFECT_HOME=/var/lib/spaceport/prefect \
    NUMBA_CACHE_DIR=/var/lib/spaceport/numba \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Where it is built there is no GPU: the product runs for 100 steps on the CPU, and gsplat's extension has to be there.
RUN python -c "import importlib.util as u, pycolmap, torch; assert torch.version.cuda; assert u.find_spec('gsplat.csrc')" \
 && SPACEPORT_HOME=/tmp/smoke PREFECT_HOME=/tmp/smoke/prefect NUMBA_CACHE_DIR=/tmp/smoke/numba \
    spaceport demo --preset draft --set train.steps=100 --workspace /tmp/smoke/workspace --out /tmp/smoke/out \
 && rm -rf /tmp/smoke
# All that is written to when the rest is read-only. Declared here, since a volume of ECS then has the same owner.
VOLUME ["/tmp", "/scratch", "/var/lib/spaceport"]
STOPSIGNAL SIGTERM
CMD ["spaceport", "doctor"]
