#!/usr/bin/env bash
# Builds the images with docker, podman or buildah, whichever answers first.
#
#   docker/build.sh [SERVICE...]      all of them where none is named
#
# BASE_IMAGE  what they stand on; made by docker/base.sh where no registry can be reached
# REPOSITORY  what stands before the service's name (posta): registry.example.org/mail gives .../mail/imap
# TAG         their version; the project's own unless set
# ENGINE      docker, podman or buildah
# BUILD_ARGS  more words for every `build`, such as `--isolation chroot` where containers may not nest
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
repository=${REPOSITORY:-posta}
tag=${TAG:-$version}
services=("$@")
if [ $# = 0 ]; then
    services=($(cd services && ls -d */ | tr -d / | grep -vxE 'contracts|core|dev|__pycache__'))
fi

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT

# What pip is told on this machine, by file or by variable, it is told in the build as well.
pip_settings() {
    local python=.venv/bin/python
    [ -x $python ] || python=python3
    $python -m pip config list 2>/dev/null || true
}
pip_settings | sed -nE "s/^[^=]*\.(index-url|extra-index-url|trusted-host|proxy|timeout|default-timeout)='(.*)'$/\1 = \2/p" \
    | sort -u | { echo '[global]'; cat; } >"$secrets/pip.conf"
ca=$(pip_settings | sed -nE "s/^[^=]*\.cert='(.*)'$/\1/p" | head -1)
cat "${ca:-/dev/null}" >"$secrets/ca"

arguments=(
    --secret "id=pip.conf,src=$secrets/pip.conf"
    --secret "id=ca,src=$secrets/ca"
    --build-arg "VERSION=$version"
    --build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"}
    ${BUILD_ARGS:-}
)
for service in "${services[@]}"; do
    name=$repository/$service:$tag
    build_image "$name" --build-arg "SERVICE=$service" "${arguments[@]}" || {
        echo "posta: $name was not built" >&2
        exit 1
    }
    echo "$name $(image_size "$name") MB"
done
