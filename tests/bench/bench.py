#!/usr/bin/env python3
"""libeqat's CPU backend beside the PyTorch oracle, pair by pair in one run.

    bench.py --eqat BUILD_DIR [--cases PATTERN,...] [--quick] [--json FILE] [--plot FILE.png]

Run it with a Python that has torch, transformers and safetensors (exit code 77 without), on a
machine that does nothing else. Every side of every pair is a process of its own on all processors.
`--list` names the cases; a pattern with wildcards selects among them.
"""

import argparse
import fnmatch
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import offload
import report
from cases import QUICK, cases
from models import write_model, write_tokens

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS, COLS = 4096, 11008


def middle(value):
    return statistics.median(value) if isinstance(value, list) else value


def least(value):
    return min(value) if isinstance(value, list) else value


class Bench:
    def __init__(self, opt, folder):
        self.opt, self.folder = opt, folder
        self.threads = opt.threads or len(os.sched_getaffinity(0))
        self.rows, self.rates, self.memory = [], {}, None

    # ---- processes ----

    def run(self, command):
        environment = dict(
            os.environ,
            TORCHINDUCTOR_CACHE_DIR=os.path.join(self.folder, "compiled"),
            TOKENIZERS_PARALLELISM="false",
        )
        if self.opt.busy:
            environment["OMP_WAIT_POLICY"] = "passive"
        r = subprocess.run(command, capture_output=True, text=True, env=environment)
        if r.returncode:
            lines = [line for line in r.stderr.strip().splitlines() if line.strip()]
            return {"error": lines[-1][:200] if lines else f"exit code {r.returncode}"}
        return json.loads(r.stdout[r.stdout.index("{") :])

    def program(self, name, **arguments):
        path = os.path.join(self.opt.eqat, "tests", "bench", "bench_" + name)
        return self.run(
            [path] + [f"{k}={v}" for k, v in dict(arguments, threads=self.threads).items()]
        )

    def torch(self, kind, compiled, **arguments):
        arguments.update(kind=kind, compile=compiled, threads=self.threads)
        return self.run(
            [sys.executable, os.path.join(HERE, "torch_side.py"), json.dumps(arguments)]
        )

    def say(self, text):
        print(f"[{time.monotonic() - self.opt.start:6.0f} s] {text}", file=sys.stderr, flush=True)

    # ---- files ----

    def model(self, case):
        """Folders of the case's shape: full precision, and rounded for E2E-QP."""
        s = case.shape
        # Block-AP moves the quantized stream behind every block but the last.
        layers = 2 if case.kind in ("block_ap", "advance") else s["layers"]
        name = f"{s['hidden']}-{layers}-{s['vocab']}"
        full = os.path.join(self.folder, name)
        if not os.path.exists(full):
            write_model(full, dict(s, layers=layers))
        rounded = f"{full}-w2g{case.group}"
        if case.kind == "e2e_qp" and not os.path.exists(rounded):
            tool = os.path.join(self.opt.eqat, "examples", "eqat", "eqat")
            subprocess.run(
                [
                    tool,
                    "quantize",
                    full,
                    "--out",
                    rounded,
                    "--bits",
                    "2",
                    "--group-size",
                    str(case.group),
                    "--method",
                    "rtn",
                ],
                check=True,
                capture_output=True,
            )
        return full, rounded

    def tokens(self, case, samples):
        path = os.path.join(self.folder, f"{case.shape['vocab']}-{samples * case.time}.u32")
        if not os.path.exists(path):
            write_tokens(path, samples * case.time, case.shape["vocab"])
        return path

    # ---- the machine ----

    def matrix_rate(self, case, dtype):
        """Flops a second of the case's products, each in its best tiling: by clock, by cpu time."""
        products = case.products()
        missing = [p for p in products if (dtype, p) not in self.rates]
        if missing:
            quick = self.opt.quick or self.opt.smoke
            r = self.program(
                "matrix_rate",
                dtype=dtype,
                shapes=":".join("%d,%d,%d" % p for p in missing),
                seconds=0.02 if quick else 0.05,
                rounds=1 if quick else 3,
            )
            if "error" in r:
                sys.exit("matrix_rate: " + r["error"])
            for found in r["rates"]:
                self.rates[dtype, tuple(found["shape"])] = found
        work = {p: 2 * p[0] * p[1] * p[2] * often for p, often in products.items()}
        return tuple(
            sum(work.values()) / sum(w / self.rates[dtype, p][key] for p, w in work.items())
            for key in ("rate", "rate_cpu")
        )

    # ---- pairs ----

    def sides(self, dtype):
        return [side for side in self.opt.sides.split(",") if side != "compile" or dtype == "bf16"]

    def steps(self, case):
        if self.opt.smoke:
            return dict(warmup=1, steps=1, seconds=1)
        slow = case is not None and case.seconds > 20
        return dict(
            warmup=1 if slow else 2,
            steps=5 if slow else 10,
            seconds=(case.seconds if case else 20) / (3 if self.opt.quick else 1),
        )

    def pair(self, run, dtype):
        """Median over pairs of every side's median step; a side that fails is not tried again."""
        found, failed = {side: [] for side in self.sides(dtype)}, {}
        for _ in range(self.opt.pairs):
            for side in found:
                if side not in failed:
                    r = run(side)
                    if "error" in r:
                        failed[side] = r["error"]
                        self.say(f"{side}: {r['error']}")
                    found[side].append(r)
        return {side: results for side, results in found.items() if side not in failed}, failed

    def summary(self, name, dtype, found, failed, what, **more):
        row = dict(case=name, dtype=dtype, failed=failed, sides={}, **more)
        for side, results in found.items():
            row["sides"][side] = {
                "seconds": [middle(r[what]) for r in results],
                "cpu": [middle(r[what + "_cpu"]) for r in results],
                "least": min(least(r[what]) for r in results),
                "loss": results[0].get("loss"),
                "peak": max(r["peak"] for r in results),
                "base": results[0]["base"],
                "runs": results,
            }
        eqat = row["sides"].get("eqat")
        for side, s in row["sides"].items():
            for key, result, ratio in (
                ("seconds", "median", "ratio"),
                ("cpu", "median_cpu", "ratio_cpu"),
            ):
                s[result] = statistics.median(s[key])
                if eqat and side != "eqat":
                    s[ratio] = statistics.median(b / a for a, b in zip(eqat[key], s[key]))
            if eqat and side != "eqat":
                s["ratio_least"] = s["least"] / eqat["least"]
        self.rows.append(row)
        if "flops" in row and eqat:
            clock, cpu = row["matrix_rate"]
            row["fraction"] = row["flops"] / eqat["median"] / clock
            row["fraction_cpu"] = row["flops"] * self.threads / eqat["median_cpu"] / cpu
            row["fraction_least"] = row["flops"] / eqat["least"] / clock
        self.say(report.line(row))
        self.save()

    def result(self):
        return dict(
            machine=dict(
                processor=report.processor(),
                threads=self.threads,
                load=os.getloadavg(),
                system=platform.platform(),
            ),
            versions=report.versions(),
            options={k: v for k, v in vars(self.opt).items() if k != "start"},
            rows=self.rows,
            matrix_rates=[dict(r, dtype=dtype) for (dtype, _), r in self.rates.items()],
            memory=self.memory,
        )

    def save(self):
        """After every row: a whole run takes hours."""
        if self.opt.json:
            with open(self.opt.json, "w") as f:
                json.dump(self.result(), f, indent=1)

    def compare(self, group):
        """Cases of one process: steps of a block, and the stream's way through it."""
        case = group[0]
        for dtype in self.opt.dtypes.split(","):
            samples = case.batch * (2 if case.kind in ("block_ap", "advance") else 1)
            full, rounded = self.model(case)
            arguments = dict(
                tokens=self.tokens(case, samples),
                dtype=dtype,
                time=case.time,
                batch=case.batch,
                samples=samples,
                group=case.group,
                keep=case.keep,
                **self.steps(case),
            )
            kind = "block_ap" if case.kind == "advance" else case.kind

            def run(side):
                if side == "eqat":
                    return self.program(
                        kind, model=rounded if kind == "e2e_qp" else full, **arguments
                    )
                return self.torch(kind, side == "compile", model=full, **arguments)

            found, failed = self.pair(run, dtype)
            for c in group:
                self.summary(
                    c.name,
                    dtype,
                    found,
                    failed,
                    "advance" if c.kind == "advance" else "times",
                    tokens=c.tokens,
                    flops=c.flops(),
                    matrix_rate=self.matrix_rate(c, dtype),
                )

    def pack(self):
        rows, cols = (64, 128) if self.opt.smoke else (ROWS, COLS)
        arguments = dict(
            rows=rows, cols=cols, group=self.opt.group_size, dtype="f32", **self.steps(None)
        )

        def run(side):
            return (
                self.program("pack", **arguments)
                if side == "eqat"
                else self.torch("pack", side == "compile", **arguments)
            )

        found, failed = self.pair(run, "f32")
        self.memory = self.program("memory_rate", mb=8 if self.opt.smoke else 256)
        groups = rows * cols // self.opt.group_size
        # Weights in; codes, s and z out; once each.
        moved = 4 * rows * cols + 2 * rows * cols // 8 + 5 * groups
        self.summary("pack", "f32", found, failed, "times", bytes=moved)
        if found.get("eqat"):
            row = self.rows[-1]
            row["memory_rate"] = [
                max(self.memory["copy" + key], self.memory["triad" + key]) for key in ("", "_cpu")
            ]
            row["fraction"] = moved / row["sides"]["eqat"]["median"] / row["memory_rate"][0]
            row["fraction_least"] = moved / row["sides"]["eqat"]["least"] / row["memory_rate"][0]
            row["fraction_cpu"] = (
                moved * self.threads / row["sides"]["eqat"]["median_cpu"] / row["memory_rate"][1]
            )

    def cancel_checks(self):
        """The library's pool, asked and not asked before every task whether to stop."""
        sizes = dict(tasks=64, steps=2) if self.opt.smoke else {}
        row = dict(case="cancel-checks", **self.program("cancel_checks", **sizes))
        self.rows.append(row)
        self.say(report.cancel_line(row))

    # ---- other programs' own measurements ----

    def tokenizer(self):
        shared = (
            "gpt2,qwen2,llama3 pattern,llama2"
            if os.environ.get("EQAT_SHARED")
            else "trained smollm,trained llama3,trained qwen2,trained llama2"
        )
        command = [
            sys.executable,
            os.path.join(HERE, "..", "tokenizer", "compare_hf.py"),
            os.path.join(self.opt.eqat, "tests", "tokenizer", "encode_file"),
            "--mb",
            "0.3",
            "--speed",
            "--kinds",
            shared,
        ]
        r = subprocess.run(command, capture_output=True, text=True)
        for line in r.stdout.splitlines():
            if " ours " in line:
                name, rest = line.split(" ours ")
                ours, theirs, fast = (float(part.split()[-2]) for part in rest.split(","))
                self.rows.append(
                    dict(
                        case="tokenizer/" + name.strip(),
                        megabytes_per_second=dict(
                            eqat=ours, tokenizers=theirs, without_offsets=fast
                        ),
                        ratio=ours / max(theirs, fast),
                    )
                )
                self.say(line)
        if r.returncode:
            self.say(f"tokenizer: {(r.stdout + r.stderr).strip().splitlines()[-1]}")

    def quickstart(self):
        t = time.monotonic()
        r = subprocess.run(
            [os.path.join(HERE, "..", "..", "examples", "quickstart.sh")],
            capture_output=True,
            text=True,
        )
        self.rows.append(
            dict(
                case="quickstart",
                seconds=time.monotonic() - t,
                output=r.stdout[-1000:] if not r.returncode else r.stderr[-1000:],
            )
        )


def groups_of(wanted):
    """Steps and stream of one block stand together."""
    out = {}
    for case in wanted:
        key = case.name.replace("advance/", "block-ap/")
        out.setdefault(key, []).append(case)
    return out.values()


def parse():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    a = p.add_argument
    a("--eqat", metavar="BUILD_DIR", help="a release build of libeqat")
    a("--cases", default="", help="patterns, separated by commas (default: all)")
    a("--quick", action="store_true", help="a few small cases, one pair each: minutes")
    a("--pairs", type=int, default=0, help="default: 3; 1 with --quick")
    a("--dtypes", default="bf16,f32")
    a(
        "--sides",
        default="eqat,torch,compile",
        help="compile: PyTorch with torch.compile, in bf16; eqat alone needs no PyTorch",
    )
    a("--group-size", type=int, default=64)
    a("--threads", type=int, default=0, help="of both sides; default: one per processor")
    a(
        "--busy",
        action="store_true",
        help="the machine does other work: PyTorch's threads wait without spinning; "
        "believe only the cpu columns",
    )
    a("--quickstart", action="store_true", help="also time examples/quickstart.sh")
    a("--json", metavar="FILE")
    a("--plot", metavar="FILE.png")
    a("--tmp", metavar="DIR", help="for models; 3 GB")
    a("--smoke", action="store_true", help="a tiny model only, one step of everything")
    a("--list", action="store_true")
    opt = p.parse_args()
    opt.pairs = opt.pairs or (1 if opt.quick or opt.smoke else 3)
    opt.start = time.monotonic()
    return opt, p


def main():
    opt, parser = parse()
    every = cases(opt.group_size, opt.smoke)
    names = [c.name for c in every] + ["pack", "cancel-checks", "offload", "tokenizer"]
    patterns = opt.cases.split(",") if opt.cases else QUICK if opt.quick else ["*"]
    chosen = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    if opt.list:
        print("\n".join(names))
        return 0
    if not opt.eqat:
        parser.error("--eqat: expected a build directory")
    for package in ("torch", "transformers", "safetensors"):
        if opt.sides != "eqat" and not importlib.util.find_spec(package):
            print(f"SKIP: the Python package {package} is not installed")
            return 77
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # the models in the temporary folder are large
    folder = tempfile.mkdtemp(prefix="eqat-bench-", dir=opt.tmp)
    try:
        b = Bench(opt, folder)
        for group in groups_of([c for c in every if c.name in chosen]):
            b.compare(group)
        if "pack" in chosen:
            b.pack()
        if "cancel-checks" in chosen:
            b.cancel_checks()
        if "offload" in chosen:
            for row in offload.rows(b):
                b.rows.append(row)
                b.say(offload.line(row))
        if "tokenizer" in chosen:
            b.tokenizer()
        if opt.quickstart:
            b.quickstart()
    finally:
        shutil.rmtree(folder)
    b.save()
    print(report.table(b.result()))
    if opt.plot:
        report.plot(b.result(), opt.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
