#!/usr/bin/env bash
# Build the container image with podman, also where no registry can be reached: on a base image
# made of Debian packages.
#
#   deploy/build-image.sh [TAG]
#
# BASE_IMAGE=name   another base image (python:3.11-slim-bookworm or alike), pulled where it is not there
# RUNTIME, MODELS   build arguments of the Dockerfile
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:-unroll}
local_base=localhost/python:3.11-slim-bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

need() {
    command -v "$1" >/dev/null || { echo "$1 is missing: apt-get install $1" >&2; exit 1; }
}

# Of what python:3.11-slim-bookworm has, the parts that the Dockerfile and the service need.
make_base() {
    need mmdebstrap
    local mirror
    mirror=$(grep -shoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list \
        /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources || true)
    mirror=${mirror%%$'\n'*}
    mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io \
        --include=ca-certificates,python3-venv,python-is-python3,libpython3.11 \
        --customize-hook='rm -f "$1"/etc/apt/sources.list' bookworm "$work/base.tar" "$mirror"
    podman import --quiet "$work/base.tar" "$local_base" >/dev/null
    rm -f "$work/base.tar"
}

need podman
# Without systemd there is no cgroup manager, and the limits of a container that a
# sandbox runs in may be lower than podman's own defaults.
if [ ! -d /run/systemd/system ] && [ -z "${CONTAINERS_CONF:-}" ]; then
    need runc
    export CONTAINERS_CONF=$work/containers.conf
    cat > "$CONTAINERS_CONF" <<'CONF'
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
fi
base=${BASE_IMAGE:-$local_base}
if [ "$base" = "$local_base" ]; then
    podman image exists "$base" || make_base
fi

# Behind a proxy with a certificate of its own, pip in the build needs the system's bundle.
ca=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
certificates=()
[ -e "$ca" ] && certificates=(--build-arg "PIP_CERT=$ca" --volume "$ca:$ca:ro")

# What the sources say of themselves.
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' service/__init__.py)
labels=(--label "org.opencontainers.image.version=$version")
if revision=$(git rev-parse --verify --quiet HEAD 2>/dev/null); then
    labels+=(--label "org.opencontainers.image.revision=$revision")
fi
if [[ $base = *@* ]]; then
    labels+=(--label "org.opencontainers.image.base.name=${base%@*}")
    labels+=(--label "org.opencontainers.image.base.digest=${base#*@}")
fi

podman build --format docker --pull=missing --tag "$tag" "${certificates[@]}" "${labels[@]}" \
    --build-arg "BASE_IMAGE=$base" \
    --build-arg "RUNTIME=${RUNTIME:-cpu}" --build-arg "MODELS=${MODELS:-bundled}" .
bytes() { podman image inspect "$1" --format '{{.Size}}'; }
echo "$tag: $((($(bytes "$tag") - $(bytes "$base")) / 1000000)) MB on top of $base"
