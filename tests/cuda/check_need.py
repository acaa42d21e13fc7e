#!/usr/bin/env python3
"""What the tool says that a run needs of a device's memory, against what it takes there: within
15%. A run that would not fit is refused before it begins, in a line that names the option that
helps.

    check_need.py            $EQAT_TOOL, $EQAT_CUDA_FOLDER
"""

import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "memory"))
import check_memory as models
from need_case import NeedCase

EQAT = os.environ["EQAT_TOOL"]
models.HIDDEN, models.INTERMEDIATE, models.HEADS, models.KV_HEADS = 256, 768, 4, 2
models.TIME = TIME = 64
BLOCK_AP = ["--seq-len", TIME, "--val-size", 0, "--epochs", 1, "--sampling", "consecutive"]
BLOCK_AP += ["--batch-size", 2, "--train-size", 2]
E2E = ["--seq-len", TIME, "--train-size", 2, "--batch-size", 2, "--micro-batch-size", 1]
WORKSPACE = 32 << 20  # for products, whatever the model


class Need(NeedCase):
    runs = 0

    def run_tool(self, *args):
        type(self).runs += 1
        out = pathlib.Path(self.folder.name, f"out{self.runs}")
        env = {**os.environ, "LD_LIBRARY_PATH": os.environ["EQAT_CUDA_FOLDER"]}
        command = [EQAT, *map(str, args), "--out", out, "--device", "cuda:0"]
        return subprocess.run(command, env=env, capture_output=True, text=True), out

    def held(self, what, *args):
        run, out = self.run_tool(*args)
        self.assertEqual(run.returncode, 0, run.stderr)
        need, saved = self.told_and_taken(out)
        told, peak = need["device_bytes"], saved["peak_device_bytes"]
        print(f"{what}: told {told / 1e6:.1f} MB, peak {peak / 1e6:.1f} MB", file=sys.stderr)
        self.assertAlmostEqual((told - WORKSPACE) / (peak - WORKSPACE), 1, delta=0.15, msg=what)
        return told, out

    def refused(self, told, says, *args):
        """With a little less than what is told."""
        run, out = self.run_tool(*args, "--device-memory", int(told) - 1000)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertRegex(
            run.stderr.splitlines()[-1],
            rf"^eqat: memory of cuda:0: needs \d+ MB, found \d+ MB available; .*{says}",
        )
        self.assertFalse(out.exists())

    def test_told_and_taken(self):
        quantize = ["quantize", self.model, "--bits", 2, "--group-size", 64]
        block_ap = [*quantize, "--calib", self.tokens, *BLOCK_AP, "--recipe", "paper"]
        block_ap += ["--method", "block-ap"]
        told, _ = self.held("Block-AP", *block_ap)
        self.refused(told, "--batch-size", *block_ap)
        _, rtn = self.held("RTN", *quantize, "--method", "rtn")
        e2e = ["e2e-qp", rtn, "--data", self.tokens, *E2E]
        told, _ = self.held("E2E-QP", *e2e)
        self.refused(told, "--e2e-host-state on", *e2e)
        e2e += ["--host-state", "on"]
        told, _ = self.held("E2E-QP, host_state", *e2e)
        self.refused(told, "--e2e-micro-batch-size", *e2e)


if __name__ == "__main__":
    unittest.main(verbosity=2)
