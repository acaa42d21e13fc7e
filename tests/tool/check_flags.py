"""The command line: help, words that are wrong, flags that do not belong."""

import os, subprocess, unittest

from case import Case, EQAT, eqat


class Flags(Case):
    def test_rules_that_match_nothing_or_say_nothing(self):
        quantize = [
            "quantize",
            self.model,
            "--out",
            self.out,
            "--group-size",
            32,
            "--method",
            "rtn",
        ]
        name = "model.layers.0.self_attn.q_proj"
        for flag, pattern, value in (
            ("rule", "*.gate", "*.gate=4"),
            ("skip", "q_proj", "q_proj"),
            ("skip", "*.layers.2.*", "*.layers.2.*"),
        ):
            self.refused(*quantize, f"--{flag}", value, says=[f"--{flag} {pattern}: ", name])
        for value in ("*", "=4", "*=", "*=9", "*=four", "*=4,", "*=4,x", "*=4,32,1"):
            self.refused(*quantize, "--rule", value, code=2, says=["--rule", f'"{value}"', "BITS"])
        self.refused(*quantize, "--rule", "*.up_proj=5", says=["up_proj", "5 bits"])
        self.refused(*quantize, "--rule", "*.up_proj=4,48", says=["up_proj", "48"])

    def test_help_has_every_flag_with_its_default(self):
        text = self.ok("quantize", "--help").stdout
        for flag in (
            "train-size",
            "val-size",
            "seq-len",
            "batch-size",
            "epochs",
            "quant-lr",
            "weight-lr",
            "min-lr-factor",
            "early-stop",
            "experts-at-a-time",
            "sampling",
            "shuffle",
            "e2e-train-size",
            "e2e-seq-len",
            "e2e-batch-size",
            "e2e-epochs",
            "e2e-lr",
            "e2e-params",
            "init",
            "zero-point",
            "compute-dtype",
            "offload-dir",
            "threads",
            "seed",
            "bits",
            "group-size",
        ):
            line = [l for l in text.splitlines() if l.startswith(f"  --{flag} ")]
            self.assertEqual(len(line), 1, flag)
            self.assertIn("(default ", line[0])
        self.assertIn("1e-5 at more, or as --e2e-lr-unit says", text)
        self.assertNotIn("lr_unit", text)

    def test_usage_errors_exit_with_2(self):
        for args in (
            [],
            ["frobnicate"],
            ["quantize"],
            ["quantize", self.model],
            ["quantize", self.model, "--out", self.out],
            ["quantize", self.model, "--out", self.out, "--frobnicate", "1"],
            ["eval", self.model],
            ["quantize", self.model, "--out", self.out, "--bits", "two"],
            ["quantize", self.model, "--out", self.out, "--bits", "9"],
            ["quantize", self.model, "--out", self.out, "--method", "rtm"],
            ["quantize", self.model, "--out", self.out, "--method", "rtn", "--e2e", self.train],
            ["eval", self.model, "--text"],
            ["quantize", self.model, "--out", "", "--method", "rtn"],
            ["e2e-qp", self.model, "--out", "", "--data", self.train],
            ["quantize", self.model, "--out", self.out, "--calib", self.train, "--world", "2"],
        ):
            r = eqat(*args)
            self.assertEqual((r.returncode, r.stdout), (2, ""), args)
            self.assertTrue(r.stderr)
        self.assertIn(
            "2 to 8", eqat("quantize", self.model, "--out", self.out, "--bits", "9").stderr
        )

    def test_a_flag_is_not_the_value_of_another(self):
        r = subprocess.run(
            [
                EQAT,
                "quantize",
                self.model,
                "--method",
                "rtn",
                "--group-size",
                "32",
                "--out",
                "--json",
            ],
            capture_output=True,
            text=True,
            cwd=self.tmp,
        )
        self.assertEqual((r.returncode, r.stdout, os.listdir(self.tmp)), (2, "", []))
        self.assertIn("--out: expected a value: DIR", r.stderr)
        self.ok("inspect", self.model, "--log-file=" + os.path.join(self.tmp, "--log"))

    def test_flags_that_the_method_does_not_use(self):
        quantize = ["quantize", self.model, "--out", self.out, "--group-size", 32]
        for flag, value in (
            ("calib", self.train),
            ("train-size", 8),
            ("shuffle", "off"),
            ("epochs", 1),
            ("offload-dir", self.tmp),
            ("offload-memory", 1000),
        ):
            self.refused(
                *quantize,
                "--method",
                "rtn",
                f"--{flag}",
                value,
                code=2,
                says=[f"--{flag}: found it with --method rtn, expected block-ap or efficientqat"],
            )
        for flag, value in (("e2e", self.train), ("e2e-train-size", 8), ("e2e-lr", 1e-3)):
            for method in (["rtn"], ["block-ap", "--calib", self.train]):
                self.refused(
                    *quantize,
                    "--method",
                    *method,
                    f"--{flag}={value}",
                    code=2,
                    says=[f"--{flag}: found it with --method {method[0]}, expected efficientqat"],
                )
        self.refused(
            *quantize,
            "--calib",
            self.train,
            "--e2e-epochs",
            2,
            code=2,
            says=["--e2e-epochs: found it with --method block-ap"],
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
