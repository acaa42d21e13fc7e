#!/bin/sh
# Builds with ThreadSanitizer and runs what threads share: two contexts that train at once and a
# third thread that cancels one, frees from any thread. Takes minutes.
# Usage: tests/tsan.sh [BUILD_DIR]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$here/build-tsan}
[ -f "$build/build.ninja" ] ||
    meson setup "$build" "$here" -Dtests=enabled -Dexamples=disabled -Ddocs=disabled \
        -Dcuda=disabled \
        --default-library=static --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false
ninja -C "$build" tests/train/check_together tests/api/check_context
TSAN_OPTIONS="suppressions=$here/tests/tsan.supp halt_on_error=1 ${TSAN_OPTIONS:-}" CK_FORK=no \
    meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 10 \
    together context
