#!/usr/bin/env bash
# Builds the CPU image and runs it, without a Docker daemon and without a registry: buildah on a base that debootstrap
# makes. What the image is built on elsewhere, python:3.11-slim-bookworm, is the same Debian. Python packages come from
# wherever this machine has them, which need not be PyPI's own files: by version, not by hash.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in buildah mmdebstrap; do
  command -v "$program" >/dev/null || { echo "image-test needs $program: apt-get install buildah mmdebstrap" >&2; exit 1; }
done

work=${IMAGE_TEST_FOLDER:-build/image-test}
base=localhost/spaceport-base:bookworm
image=localhost/spaceport:test
mkdir -p "$work"

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  [ -e "$work/base.tar" ] || mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$work/base.tar"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$work/base.tar" /
  buildah commit --quiet --rm "$container" "$base"
fi

# How this machine reaches its package registries has to hold inside too.
mounts=()
for path in /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /opt/wheels /opt/pypi; do
  [ -e "$path" ] && mounts+=(--volume "$path:$path:ro")
done
[ -e "$HOME/.config/pip/pip.conf" ] && mounts+=(--volume "$HOME/.config/pip/pip.conf:/root/.config/pip/pip.conf:ro")
certificates=$(npm config get cafile 2>/dev/null || echo null)
if [ "$certificates" != null ]; then
  echo "cafile=$certificates" >"$work/npmrc"
  mounts+=(--volume "$(realpath "$work/npmrc"):/root/.npmrc:ro")
fi

buildah bud --isolation chroot --network host --format docker --layers "${mounts[@]}" \
  --build-arg "BASE_IMAGE=$base" --build-arg HASHED=no --build-arg "REVISION=$(git rev-parse --short HEAD)" \
  --file docker/cpu.Dockerfile --tag "$image" .

container=$(buildah from "$image")
trap 'buildah rm "$container" >/dev/null' EXIT
inside() { buildah run --isolation chroot "$container" -- "$@"; }
[ "$(inside id -u)" = 10001 ] || { echo "the image does not run as 10001" >&2; exit 1; }
inside spaceport doctor
inside prefect --version
inside python -c "import deployments.apply, deployments.listener.service, deployments.aws.runtime.scaler"
if inside touch /opt/spaceport/probe 2>/dev/null; then echo "the user that runs the code can write it" >&2; exit 1; fi
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' "$image"
