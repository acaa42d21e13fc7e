#!/usr/bin/env python3
"""Where the time of libeqat's steps goes: samples of `perf record`, added up by what the code does.

    where.py --eqat BUILD_DIR [--cases PATTERN,...] [--dtype bf16]

The cases are those of bench.py. A share is of the whole run of a case on one thread, warm-up and
stream included. Exit code 77 without perf.
"""

import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile

from bench import Bench
from cases import cases

# The first pattern that fits a symbol names its part.
PARTS = (
    ("products of linears (oneDNN)", r"^0x|^jit|brgemm|dnnl"),
    ("attention's products", r"^strip|^VEC.tile|^rows_bf16|amx_tile"),
    ("attention, the rest", r"attention|store_keys|scores"),
    ("weights into operands: fake quantization, unpacking", r"vec_rows_|pack_b|vec_pack_b"),
    ("activations into operands", r"pack_a"),
    ("results to their dtype", r"vec_finish"),
    ("gradients of w, s, z", r"quant_grad|packed_grad"),
    ("AdamW and norms of gradients", r"adamw|sum_squares"),
    ("cross-entropy", r"log_sum_exp|softmax|shrink"),
    ("RMSNorm, RoPE, SiLU, residuals", r"rmsnorm|rope|rotate|gated|axpby|vec_mul"),
    ("loss, and whether numbers are finite", r"squared_error"),
    ("copies", r"memmove|memcpy|memset|convert"),
    ("waiting, waking, page faults", r"\[k\]|futex|cond|worker"),
)


def part_of(symbol):
    return next((name for name, pattern in PARTS if re.search(pattern, symbol)), "other")


def shares(command, folder):
    data = os.path.join(folder, "perf.data")
    r = subprocess.run(
        ["perf", "record", "-q", "-F", "997", "-o", data] + command, capture_output=True, text=True
    )
    if r.returncode:
        sys.exit("perf record: " + (r.stderr.strip().splitlines() or ["failed"])[-1])
    text = subprocess.run(
        [
            "perf",
            "report",
            "-i",
            data,
            "--no-children",
            "-g",
            "none",
            "--sort",
            "sym",
            "--percent-limit",
            "0.002",
        ],
        capture_output=True,
        text=True,
    ).stdout
    out = {}
    for row in text.splitlines():
        found = re.match(r"\s*([\d.]+)%\s+(\[[.k]\])\s+(\S+)", row)
        if found:
            name = part_of("[k]" if found[2] == "[k]" else found[3])
            out[name] = out.get(name, 0) + float(found[1])
    return out


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--eqat", metavar="BUILD_DIR", required=True)
    p.add_argument("--cases", default="block-ap/smollm2/*,e2e-qp/smollm2/512")
    p.add_argument("--dtype", default="bf16")
    p.add_argument("--seconds", type=float, default=15)
    opt = p.parse_args()
    if not shutil.which("perf"):
        print("SKIP: perf is not installed")
        return 77
    opt.threads, opt.group_size = 1, 64
    folder = tempfile.mkdtemp(prefix="eqat-where-")
    try:
        b, found = Bench(opt, folder), {}
        for case in cases(opt.group_size):
            if case.kind == "advance" or not any(
                fnmatch.fnmatchcase(case.name, pattern) for pattern in opt.cases.split(",")
            ):
                continue
            full, rounded = b.model(case)
            samples = case.batch * (2 if case.kind == "block_ap" else 1)
            arguments = dict(
                model=rounded if case.kind == "e2e_qp" else full,
                tokens=b.tokens(case, samples),
                dtype=opt.dtype,
                time=case.time,
                batch=case.batch,
                samples=samples,
                group=case.group,
                warmup=1,
                steps=1000,
                seconds=opt.seconds,
                threads=1,
            )
            path = os.path.join(opt.eqat, "tests", "bench", "bench_" + case.kind)
            found[case.name] = shares([path] + [f"{k}={v}" for k, v in arguments.items()], folder)
    finally:
        shutil.rmtree(folder)
    print("| % of the time | " + " | ".join(found) + " |\n|---" + "|---" * len(found) + "|")
    for name in [name for name, _ in PARTS] + ["other"]:
        print(f"| {name} | " + " | ".join(f"{f.get(name, 0):.1f}" for f in found.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
