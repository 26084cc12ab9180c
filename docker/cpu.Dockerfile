# Server, background services, listener and CPU workers: one image, so that they never differ in version.
#
#     docker build --file docker/cpu.Dockerfile --tag spaceport:0.1.0 .
#
# Packages are those of PyPI whose hashes docker/requirements*.txt name (`make image-hashes`). `--build-arg HASHED=no
# --build-arg PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"` takes PyTorch's build without CUDA
# libraries, 3 GB less, and the rest by version alone; the GPU image has those libraries.
# By digest: a tag can be moved to another image.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${BASE_IMAGE} AS build
ARG HASHED=yes
ARG PIP_OPTIONS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/spaceport
# Parts that change least come first: a new version of the code alone rebuilds the last layer.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY docker/requirements.txt docker/requirements-node.txt docker/
# hadolint ignore=DL3013,SC2086
RUN python3 -m venv .venv \
 && if [ "${HASHED}" = yes ]; then \
      .venv/bin/pip install --quiet --no-deps --require-hashes --requirement docker/requirements.txt \
      && .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .; \
    else \
      .venv/bin/pip install --quiet --constraint constraints.txt ${PIP_OPTIONS} --editable .; \
    fi
COPY tasks/core/viewer/npm tasks/core/viewer/npm
# Node is needed to fetch the viewer, and not in the image.
RUN python3 -m venv /opt/node \
 && /opt/node/bin/pip install --quiet --no-deps --require-hashes --requirement docker/requirements-node.txt \
 && PATH="/opt/node/bin:$PATH" npm ci --prefix tasks/core/viewer/npm --ignore-scripts --no-audit --no-fund --loglevel=error
COPY flows flows
COPY tasks tasks
COPY deployments deployments

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="spaceport" \
      org.opencontainers.image.description="Drone photos in, a 3D Gaussian splat that opens in any browser out: server and CPU stages" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --create-home --uid 10001 spaceport \
 && install --directory --owner spaceport /scratch /var/lib/spaceport
COPY --from=build /opt/spaceport /opt/spaceport
WORKDIR /opt/spaceport
USER 10001
ENV PATH=/opt/spaceport/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPACEPORT_HOME=/var/lib/spaceport \
    PREFECT_HOME=/var/lib/spaceport/prefect \
    NUMBA_CACHE_DIR=/var/lib/spaceport/numba
# The product itself, for 100 steps: an image in which a part is missing is not built.
RUN SPACEPORT_HOME=/tmp/smoke PREFECT_HOME=/tmp/smoke/prefect NUMBA_CACHE_DIR=/tmp/smoke/numba \
    spaceport demo --preset draft --set train.steps=100 --workspace /tmp/smoke/workspace --out /tmp/smoke/out \
 && rm -rf /tmp/smoke
# All that is written to when the rest is read-only. Declared here, since a volume of ECS then has the same owner.
VOLUME ["/tmp", "/scratch", "/var/lib/spaceport"]
STOPSIGNAL SIGTERM
CMD ["spaceport", "doctor"]
