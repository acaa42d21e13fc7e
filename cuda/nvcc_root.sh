#!/bin/sh
# The folder above bin/, where links to nvcc lead.
dirname "$(dirname "$(readlink -f "$1")")"
