#!/usr/bin/env bash
# Build the container image with podman, where no registry can be reached from a base image
# made of Debian packages.
#
#   deploy/build-image.sh [TAG]
#
# BASE_IMAGE=name   a base image that is already there (python:3.11-slim-bookworm or alike);
#                   without it, and where podman cannot pull one, one is made by mmdebstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:-unroll}
local_base=localhost/python:3.11-slim-bookworm
base=${BASE_IMAGE:-}

need() {
    command -v "$1" >/dev/null || { echo "$1 is missing: apt-get install $2" >&2; exit 1; }
}

make_base() {
    need mmdebstrap mmdebstrap
    local mirror tar
    mirror=$(grep -shoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list \
        /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources || true)
    mirror=${mirror%%$'\n'*}
    tar=$(mktemp --suffix .tar)
    mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io \
        --include=ca-certificates,python3-venv,python-is-python3 \
        --customize-hook='rm -f "$1"/etc/apt/sources.list' bookworm "$tar" "$mirror"
    podman import --quiet "$tar" "$local_base" >/dev/null
    rm -f "$tar"
}

need podman podman
# Without systemd there is no cgroup manager to ask, and the limits of a container that a
# sandbox runs in may be lower than podman's own defaults.
if [ ! -d /run/systemd/system ] && [ -z "${CONTAINERS_CONF:-}" ]; then
    CONTAINERS_CONF=$(mktemp)
    export CONTAINERS_CONF
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
if [ -z "$base" ]; then
    base=$local_base
    podman image exists "$base" || make_base
fi

# Behind a proxy with a certificate of its own, pip in the build needs the system's bundle.
ca=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
podman build --format docker --pull=never --tag "$tag" \
    --build-arg "BASE_IMAGE=$base" --build-arg "PIP_CERT=$ca" --volume "$ca:$ca:ro" .
podman image inspect "$tag" --format "$tag: {{.Size}} bytes"
