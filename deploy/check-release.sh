#!/usr/bin/env bash
# Refuse to release what nobody could build again: `make release` runs this first.
#
#   BASE_IMAGE=NAME@sha256:… deploy/check-release.sh
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() {
    echo "no release: $1" >&2
    exit 1
}

[[ ${BASE_IMAGE:-} =~ ^[^@]+@sha256:[0-9a-f]{64}$ ]] ||
    refuse "BASE_IMAGE is '${BASE_IMAGE:-}', which can change; give one as NAME@sha256:DIGEST"

changed=$(git status --porcelain)
[ -z "$changed" ] ||
    refuse "these files are not as committed; commit or remove them"$'\n'"$changed"

tag=v$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' service/__init__.py)
git tag --points-at HEAD | grep -qxF "$tag" ||
    refuse "this commit has no tag $tag, which service/__init__.py names; git tag $tag"
