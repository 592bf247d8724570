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
services=("$@")
if [ $# = 0 ]; then
    for each in services/*/__main__.py; do
        each=$(basename "$(dirname "$each")")
        [ "$each" = dev ] || services+=("$each")
    done
fi
for service in "${services[@]}"; do
    if ! [ -e "docker/requirements/$service.txt" ]; then
        echo "posta: $service is no service: there is no docker/requirements/$service.txt" >&2
        exit 2
    fi
done
for service in "${services[@]}"; do
    build_image "${REPOSITORY:-posta}/$service:${TAG:-$version}" docker/Dockerfile . \
        --build-arg "SERVICE=$service" \
        --build-arg "VERSION=${TAG:-$version}" \
        --build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" \
        ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"}
done
