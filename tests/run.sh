#!/bin/sh
# Builds libeqat for release and with AddressSanitizer and UndefinedBehaviorSanitizer and runs every
# test in both; builds it without oneDNN and runs the tests of products and of linking;
# ends with "N passed, N failed". Usage: tests/run.sh [BUILD_DIR]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$here/build-tests}
# shellcheck source=examples/packages.sh
. "$here/examples/packages.sh"
# shellcheck disable=SC2086
need_packages $build_packages g++ cmake check python3 abigail-tools \
    doxygen mandoc
need_packages python3-numpy python3-pytest
mkdir -p "$work"

# The suites that compare with other implementations skip without these.
if [ ! -x "$work/venv/bin/python" ]; then
    python3 -m venv "$work/venv" 2>/dev/null ||
        { need_packages python3-venv && python3 -m venv "$work/venv"; } || true
    "$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
        numpy gguf tokenizers clang-format==14.0.6 >"$work/pip.log" 2>&1 ||
        echo "the comparing suites will skip: their packages could not be installed" >&2
fi
PATH=$work/venv/bin:$PATH
export PATH
# Real models and texts, when there are any; the suites that want them skip without.
if [ -z "${EQAT_SHARED:-}" ] && [ -d "$here/../shared/data" ]; then
    EQAT_SHARED=$(cd "$here/../shared/data" && pwd)
    export EQAT_SHARED
fi

broken() { # LOG
    tail -n 60 "$1"
    echo "0 passed, 1 failed"
    exit 1
}

suite() { # NAME MESON_TEST_OPTIONS -- MESON_SETUP_OPTIONS
    name=$1 options=$2
    shift 3
    build=$work/$name log=$work/$name.log
    [ -f "$build/build.ninja" ] ||
        meson setup "$build" "$here" --werror -Dtests=enabled "$@" >"$log" 2>&1 || broken "$log"
    ninja -C "$build" >>"$log" 2>&1 || broken "$log"
    echo "== $name"
    # shellcheck disable=SC2086
    meson test -C "$build" --no-rebuild --print-errorlogs $options || true
}

# Debug information tells the ABI suite the types behind the symbols. Of what nvcc knows the oldest
# generation, the first with mma.sync for BF16, and two newer ones: all six take half as long again.
gpu_archs=$(nvcc --list-gpu-code 2>/dev/null |
    sed -nE 's/^sm_(75|80|90|120)$/\1/p' | paste -sd, || true)
suite release "--no-suite interop" -- --buildtype=release -Ddebug=true "-Dgpu_archs=$gpu_archs"
ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    suite sanitize "--timeout-multiplier 6 --no-suite release-only --no-suite interop" -- \
        --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dcuda=disabled
# Products of our own in place of oneDNN's, in a library that programs link statically.
suite portable \
    "--suite conformance --suite unit --suite golden --suite install" -- \
        --buildtype=release --default-library=static -Ddnnl=disabled -Dcuda=disabled

python3 - "$work" <<'PYTHON'
import json, os, sys

counts = {"OK": 0, "SKIP": 0, "FAIL": 0}
for build in ("release", "sanitize", "portable"):
    log = os.path.join(sys.argv[1], build, "meson-logs", "testlog.json")
    results = [json.loads(line) for line in open(log)] if os.path.exists(log) else []
    if not results:
        counts["FAIL"] += 1
    for test in results:
        kind = {"OK": "OK", "EXPECTEDFAIL": "OK", "SKIP": "SKIP"}.get(test["result"], "FAIL")
        counts[kind] += 1
        if kind != "OK":
            print(f"{test['result']:8} {build}: {test['name']}")
skipped = f", {counts['SKIP']} skipped" if counts["SKIP"] else ""
print(f"{counts['OK']} passed, {counts['FAIL']} failed{skipped}")
sys.exit(counts["FAIL"] != 0)
PYTHON
