"""The benchmark's programs run, on a tiny model; nothing is asserted on time."""

import json
import os
import subprocess
import sys
import tempfile

from models import SHAPES, write_model, write_tokens

BUILD = sys.argv[1]


def program(name, *wanted, **arguments):
    path = os.path.join(BUILD, "tests", "bench", "bench_" + name)
    r = subprocess.run(
        [path] + [f"{k}={v}" for k, v in arguments.items()], capture_output=True, text=True
    )
    if r.returncode:
        sys.exit(f"{name}: {r.stderr}")
    result = json.loads(r.stdout)
    for key in wanted:
        if not result.get(key):
            sys.exit(f"{name}: {key} is missing in {r.stdout}")


def main():
    with tempfile.TemporaryDirectory(prefix="eqat-bench-") as folder:
        model, rounded, tokens = (
            os.path.join(folder, n) for n in ("model", "rounded", "tokens.u32")
        )
        write_model(model, SHAPES["tiny"])
        write_tokens(tokens, 8 * 64, SHAPES["tiny"]["vocab"])
        subprocess.run(
            [
                os.path.join(BUILD, "examples", "eqat", "eqat"),
                "quantize",
                model,
                "--out",
                rounded,
                "--method",
                "rtn",
            ],
            check=True,
            capture_output=True,
        )
        steps = dict(warmup=1, steps=2, seconds=60)
        for dtype in ("bf16", "f32"):
            data = dict(tokens=tokens, dtype=dtype, time=64, samples=4, **steps)
            program("block_ap", "times", "loss", "base", "peak", "advance", model=model, **data)
            program("e2e_qp", "times", "loss", "base", "peak", model=rounded, **data)
            program(
                "scaling",
                "jobs",
                "tasks",
                "step",
                "alone",
                "threads_1",
                "threads_64",
                model=model,
                rounds=2,
                **data,
            )
            program("eval", "times", "loss", "base", "peak", model=model, **data)
            if not os.path.exists(os.path.join(BUILD, "tests", "bench", "bench_matrix_rate")):
                continue  # a build without oneDNN
            program(
                "matrix_rate",
                "rates",
                dtype=dtype,
                shapes="64,128,96:33,100,40",
                seconds=0.002,
                rounds=1,
            )
        program("pack", "times", "peak", rows=64, cols=256, **steps)
        program("cancel_checks", "with", "without", "ratio", tasks=64, floats=64, steps=2)
        program("memory_rate", "copy", "triad", "read", mb=1, steps=1)


main()
