#!/bin/sh
# find_nvcc.sh NVCC: the folder above bin/, where links to nvcc lead; and the generations of GPUs
# that it knows. Fails with what it says when it cannot compile, with this system's C++ compiler
# say.
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
echo '__global__ void empty() {}' >"$work/empty.cu"
"$1" -std=c++17 -c "$work/empty.cu" -o "$work/empty.o" >"$work/said" 2>&1 || {
    head -n 1 "$work/said" >&2
    exit 1
}
dirname "$(dirname "$(readlink -f "$1")")"
"$1" --list-gpu-code 2>/dev/null | tr '\n' ' '
