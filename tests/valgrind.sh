#!/bin/sh
# A small run under valgrind's memcheck: no access that is wrong, no value that was never written,
# nothing lost. Skips (77) without valgrind. Takes minutes.
# Usage: tests/valgrind.sh [BUILD_DIR]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$here/build-valgrind}
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 77; }
[ -f "$build/build.ninja" ] ||
    meson setup "$build" "$here" -Dtests=enabled -Dexamples=disabled -Ddocs=disabled \
        -Dcuda=disabled \
        --default-library=static --buildtype=debugoptimized
ninja -C "$build" tests/faults/faults
CK_DEFAULT_TIMEOUT=0 CK_FORK=no FAULTS_NONE=1 valgrind --error-exitcode=1 --leak-check=full \
    --errors-for-leak-kinds=definite --fair-sched=yes "$build/tests/faults/faults"
