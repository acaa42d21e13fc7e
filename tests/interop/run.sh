#!/bin/sh
# Saved models in the engines of others: installs these into a virtual environment from PyPI, builds
# libeqat and runs the suite `interop`. EQAT_SHARED names the folder that holds stories260K.
# Usage: tests/interop/run.sh [--venv DIR] [BUILD_DIR]
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
venv=
[ "${1:-}" != --venv ] || { venv=$2 && shift 2; }
build=${1:-$here/build-interop}
venv=${venv:-$build-venv}
[ -x "$venv/bin/python3" ] || python3 -m venv "$venv"
"$venv/bin/python3" -m pip install -q --disable-pip-version-check \
    -r "$here/tests/interop/engines.txt" ||
    echo "not all engines could be installed: the checks of the others will skip" >&2
PATH=$venv/bin:$PATH
export PATH
[ -f "$build/build.ninja" ] ||
    meson setup "$build" "$here" --buildtype=release -Dtests=enabled -Dcuda=disabled
ninja -C "$build"
meson test -C "$build" --no-rebuild --num-processes 1 --verbose --suite interop
