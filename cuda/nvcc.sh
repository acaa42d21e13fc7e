#!/bin/sh
# nvcc.sh RESOURCES NVCC ARGUMENTS...: what ptxas says of resources goes into a file, all else that
# is said, if anything, is shown.
resources=$1
shift
"$@" 2>"$resources"
status=$?
grep -v -e '^ptxas info' -e 'bytes stack frame' "$resources" >&2
exit $status
