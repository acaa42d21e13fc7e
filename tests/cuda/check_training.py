#!/usr/bin/env python3
"""The tool on the CUDA backend, over the stand-in runtime: both phases of a small model as on the
CPU, the same bytes in whatever order blocks, threads and streams run, and every failure of a device
told in one line.

    check_training.py            $EQAT_TOOL, $EQAT_TRAIN_TINY, $EQAT_CUDA_FOLDER

EQAT_EVERY_ALLOCATION=1 refuses every allocation of a run in turn, in place of a few: some hundred
runs.
"""

import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

EQAT, TRAIN_TINY = os.environ["EQAT_TOOL"], os.environ["EQAT_TRAIN_TINY"]
EVERY = os.environ.get("EQAT_EVERY_ALLOCATION")
SMALL = "--bits 2 --group-size 32 --sampling consecutive --seq-len 64 --val-size 2 --train-size 4"
SMALL = f"{SMALL} --epochs 1 --batch-size 2 --e2e-seq-len 64 --e2e-train-size 4".split()
ERROR = re.compile("eqat: (?!info|warning|needs)")


class Training(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="eqat-cuda-"))
        subprocess.run([TRAIN_TINY, cls.dir], check=True, capture_output=True)
        cls.runs = 0

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def quantize(self, device, *args, **settings):
        """Runs the tool; the process and the folder of the result."""
        type(self).runs += 1
        out = self.dir / f"out{self.runs}"
        text = str(self.dir / "train.u16")
        env = {**os.environ, "LD_LIBRARY_PATH": os.environ["EQAT_CUDA_FOLDER"]}
        env.update({f"HOSTCUDA_{name}": str(value) for name, value in settings.items()})
        command = [EQAT, "quantize", self.dir / "model", "--out", out, "--device", device, *SMALL]
        command += ["--calib", text, "--e2e", text, *args]
        return subprocess.run(command, env=env, capture_output=True, text=True), out

    def losses(self, device, *args, **settings):
        """Every loss of a run that succeeds, and the hash of what it wrote."""
        run, out = self.quantize(device, *args, **settings)
        self.assertEqual(run.returncode, 0, run.stderr)
        events = [json.loads(line) for line in (out / "eqat_log.jsonl").read_text().splitlines()]
        losses = [e["loss"] for e in events if e["event"] == "step"]
        self.assertGreater(len(losses), 4)
        return losses, hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()

    def test_as_on_the_cpu(self):
        """Rounding to nearest begins both runs, so no code hangs on a last bit before it trains."""
        args = "--recipe paper --weight-lr 1e-3 --quant-lr 1e-3 --e2e-lr 1e-4".split()
        for dtype, tolerance in ("f32", 1e-3), ("bf16", 5e-2):
            mine, _ = self.losses("cuda:0", *args, "--compute-dtype", dtype)
            theirs, _ = self.losses("cpu", *args, "--compute-dtype", dtype)
            self.assertEqual(len(mine), len(theirs))
            for a, b in zip(mine, theirs):
                self.assertLess(abs(a - b), tolerance * b, (dtype, mine, theirs))

    def test_same_bytes_in_any_order(self):
        for dtype in "f32", "bf16":
            first = self.losses("cuda:0", "--compute-dtype", dtype, SEED=1)
            for seed in 2, 3:
                again = self.losses("cuda:0", "--compute-dtype", dtype, SEED=seed)
                self.assertEqual(again, first, (dtype, seed))

    def refused(self, says, *args, device="cuda:0", **settings):
        run, out = self.quantize(device, *args, **settings)
        self.assertEqual(run.returncode, 1, run.stderr)
        errors = [line for line in run.stderr.splitlines() if ERROR.match(line)]
        self.assertEqual(len(errors), 1, run.stderr)
        self.assertRegex(errors[0], says)
        self.assertFalse(out.exists())

    def test_no_such_device(self):
        self.refused("found 1 CUDA device, expected at least 8", device="cuda:7")
        self.refused("found 0 CUDA devices, expected at least 1", DEVICES=0)
        self.refused(r"found a driver for CUDA 11\.4, expected one for CUDA \d+", DRIVER=11040)
        self.refused('found "cuda:x", expected cuda:N', device="cuda:x")

    def test_faults(self):
        for launch in 1, 40, 1000:
            self.refused("cuda:0: .*illegal memory access", FAULT_AT=launch)

    def refuse_in_turn(self, setting, few, says, *args):
        """Runs in which `setting` refuses an allocation: what ends by it says so, in one line."""
        ended, report = 0, self.dir / "report"
        for n in itertools.count(1) if EVERY else few:
            report.write_text("")
            run, out = self.quantize("cuda:0", *args, REPORT=report, **{setting: n})
            if "refused" not in report.read_text():  # there are fewer
                self.assertEqual(run.returncode, 0, run.stderr)
                break
            if not run.returncode:  # what is asked for twice may be had the second time
                continue
            ended += 1
            self.assertRegex(run.stderr, says)
            self.assertEqual(len(ERROR.findall(run.stderr)), 1, run.stderr)
            self.assertFalse(out.exists())
        if EVERY:
            print(f"{setting}: {n - 1} runs, {ended} ended", file=sys.stderr)
        self.assertGreater(ended, 2)

    def test_memory(self):
        self.refused(r"memory of cuda:0: needs \d+ MB, found 2 MB available", MEMORY=1 << 21)
        says = r"eqat: .*out of memory on cuda:0: \d+ bytes"
        self.refuse_in_turn("FULL_AT", range(1, 400, 37), says)
        for n in 1, 100, 200:  # asked for again, behind what was given back
            run, _ = self.quantize("cuda:0", FAIL_ALLOC=n)
            self.assertEqual(run.returncode, 0, run.stderr)

    def test_pinned_memory(self):
        says = r"eqat: .*out of memory: \d+ bytes of the host's, pinned"
        self.refuse_in_turn("FAIL_PIN", range(3, 60, 8), says, "--e2e-host-state", "on")


if __name__ == "__main__":
    unittest.main()
