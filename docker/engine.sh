# Sourced: docker, podman and buildah under one set of words. ENGINE names one of them; else the first that answers.

find_engine() {
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        echo docker
    elif command -v podman >/dev/null && podman info >/dev/null 2>&1; then
        echo podman
    elif command -v buildah >/dev/null; then
        echo buildah
    else
        echo "posta: none of docker, podman and buildah is here and answers" >&2
        return 1
    fi
}

# import_image TAR NAME: a root file system becomes an image.
import_image() {
    case $engine in
        docker | podman) $engine import --change 'CMD ["python3"]' "$1" "$2" >/dev/null 2>&1 ;;
        buildah)
            local made
            made=$(buildah from scratch)
            buildah add --quiet "$made" "$1" / >/dev/null
            buildah config --cmd python3 "$made"
            buildah commit --quiet --rm "$made" "$2" >/dev/null
            ;;
    esac
}

# build_image NAME FILE FOLDER ARGUMENT...: what FILE says about FOLDER, with arguments that all three understand.
# Silent unless it fails.
build_image() {
    local name=$1 file=$2 folder=$3 log builder=("$engine" build)
    shift 3
    # docker's format, for it alone keeps a health check and a stop signal.
    [ "$engine" = docker ] || builder+=(--format docker --layers)
    log=$(mktemp)
    # BUILD_ARGS is several words on purpose.
    if ! DOCKER_BUILDKIT=1 "${builder[@]}" -t "$name" -f "$file" "${secret_arguments[@]}" "$@" ${BUILD_ARGS:-} \
        "$folder" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        echo "posta: $name was not built" >&2
        return 1
    fi
    rm -f "$log"
    echo "$name $(image_size "$name")"
}

# image_size NAME: for a person.
image_size() {
    case $engine in
        docker | podman) $engine image inspect --format '{{.Size}}' "$1" | awk '{printf "%d MB\n", $1 / 1000000}' ;;
        buildah) buildah images --format '{{.Size}}' "$1" | head -1 ;;
    esac
}

# What pip is told on this machine, by file or by variable, it is told in a build as well, and the build forgets it.
pip_settings() {
    local python=.venv/bin/python
    [ -x $python ] || python=python3
    $python -m pip config list 2>/dev/null || true
}

write_secrets() {
    local ca known='index-url|extra-index-url|trusted-host|proxy|timeout|default-timeout'
    {
        echo '[global]'
        pip_settings | sed -nE "s/^[^=]*\.($known)='(.*)'$/\1 = \2/p" | sort -u
    } >"$secrets/pip.conf"
    ca=$(pip_settings | sed -nE "s/^[^=]*\.cert='(.*)'$/\1/p" | head -1)
    cat "${ca:-/dev/null}" >"$secrets/ca"
}

engine=${ENGINE:-$(find_engine)}
secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
secret_arguments=(--secret "id=pip.conf,src=$secrets/pip.conf" --secret "id=ca,src=$secrets/ca")
write_secrets
