#!/usr/bin/env bash
# Makes BASE_IMAGE on a bare Debian machine, where no image registry can be reached: Debian with Python and nothing else.
#
#   docker/base.sh [NAME]        as root; NAME defaults to posta/base. SUITE=trixie (Python 3.13) or bookworm (3.11).
#
# Packages come from where this machine's apt gets its own, with the security updates of that day. Nothing of this
# machine goes into the image: no host, no resolver, no log. The root file system is kept in .images/; RENEW=1 makes it
# anew.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh

name=${1:-posta/base}
suite=${SUITE:-trixie}
kept=.images/base-$suite.tar

die() { echo "posta: $*" >&2; exit 1; }

# Where apt has the repositories of that label from.
sites() { apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' "Label: $1" | sort -u; }

make_root() {
    local root=$1 mirror security
    mirror=$(sites Debian | head -1)
    security=$(sites Debian-Security | head -1)
    [ -n "$mirror" ] || die "apt knows no Debian repository: apt-get update"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" "$mirror" \
        >.images/debootstrap.log 2>&1 || die "debootstrap failed, see .images/debootstrap.log"
    if [ -n "$security" ]; then
        echo "deb $security $suite-security main" >>"$root/etc/apt/sources.list"
        # How this machine fetches (proxies, clocks) holds in there, too.
        apt-config dump Acquire >"$root/etc/apt/apt.conf.d/00host"
        chroot "$root" sh -ec 'export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get upgrade -q -y' \
            >>.images/debootstrap.log 2>&1 || die "the security updates failed, see .images/debootstrap.log"
    fi
    strip "$root"
}

# What only a person or apt would read; copyright files stay, as their licences ask.
strip() {
    (
        cd "$1"
        find usr/share/doc ! -type d ! -name copyright -delete
        find usr/share/doc -type d -empty -delete
        rm -rf usr/share/{man,locale,info,lintian,bug} var/cache/* var/lib/apt/lists/* var/log/* tmp/* \
            etc/apt/sources.list etc/apt/apt.conf.d/00host var/cache/debconf
        rm -f etc/hostname etc/resolv.conf etc/hosts
        : >etc/machine-id
        mkdir -p var/cache/apt/archives/partial var/lib/apt/lists/partial
    )
}

if [ ! -e "$kept" ] || [ -n "${RENEW:-}" ]; then
    [ "$(id -u)" = 0 ] || die "making a base image needs root"
    command -v debootstrap >/dev/null || die "debootstrap is needed (Debian: apt-get install debootstrap)"
    mkdir -p .images
    root=$(mktemp -d)
    trap 'rm -rf --one-file-system "$root" "$secrets"' EXIT
    make_root "$root"
    # Named once it is whole: a run that was cut short leaves nothing that looks like a base.
    tar --numeric-owner --sort=name -C "$root" -cf "$kept.part" .
    mv "$kept.part" "$kept"
fi
import_image "$kept" "$name"
echo "made $name: make images BASE_IMAGE=$name"
