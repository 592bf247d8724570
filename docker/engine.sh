# Sourced: the three builders under one set of words. ENGINE names one of them; else the first that answers is taken.

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
        docker) docker import --change 'CMD ["python3"]' "$1" "$2" >/dev/null ;;
        podman) podman import --quiet --change 'CMD ["python3"]' "$1" "$2" >/dev/null ;;
        buildah)
            local made
            made=$(buildah from scratch)
            buildah add --quiet "$made" "$1" / >/dev/null
            buildah config --cmd python3 "$made"
            buildah commit --quiet --rm "$made" "$2" >/dev/null
            ;;
    esac
}

# build_image NAME ARGUMENT...: the Dockerfile, with `build` arguments that all three understand.
build_image() {
    local name=$1
    shift
    case $engine in
        docker) DOCKER_BUILDKIT=1 docker build --quiet -f docker/Dockerfile -t "$name" "$@" . >/dev/null ;;
        podman) podman build --quiet --format docker -f docker/Dockerfile -t "$name" "$@" . >/dev/null ;;
        buildah) buildah build --quiet --layers --format docker -f docker/Dockerfile -t "$name" "$@" . >/dev/null ;;
    esac
}

# image_size NAME: in MB.
image_size() {
    case $engine in
        docker | podman) $engine image inspect --format '{{.Size}}' "$1" | awk '{printf "%d\n", $1 / 1000000}' ;;
        buildah) buildah images --format '{{.Size}}' "$1" | head -1 ;;
    esac
}

engine=${ENGINE:-$(find_engine)}
