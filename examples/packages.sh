# Sourced by the scripts that a new user runs. need_packages NAME... installs the missing Debian
# packages when it may; otherwise it names them and stops.
need_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" != 0 ]; then
        echo "These packages are missing; install them as root and run this again:" >&2
        echo "    apt-get install$missing" >&2
        exit 1
    fi
    echo "installing$missing" >&2
    apt-get update -qq || true
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null || {
        echo "apt-get could not install:$missing" >&2
        exit 1
    }
}

build_packages="gcc libc6-dev meson ninja-build pkg-config"
build_packages="$build_packages libdnnl-dev libjansson-dev libpcre2-dev"
build_packages="$build_packages libutf8proc-dev"
