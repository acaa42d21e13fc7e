"""Where a result goes, and what is there already."""

import json, os, signal, subprocess, time, unittest

from case import Case, DATA, EQAT, FEW, files_of, linears_of


class Output(Case):
    def test_force_replaces_a_model(self):
        quantize = ["--method", "rtn", "--bits"]
        self.quantize(self.out, *quantize, 2)
        self.quantize(self.out, *quantize, 4, "--force")
        self.assertEqual({b for b, _ in linears_of(self.out).values()}, {4})
        self.quantize(self.out + "/", *quantize, 3, "--force")
        self.assertEqual({b for b, _ in linears_of(self.out).values()}, {3})
        self.quantize(os.path.join(self.tmp, "new"), *quantize, 3, "--force")
        self.assertEqual(sorted(os.listdir(self.tmp)), ["new", "out"])

    def test_force_keeps_what_is_there_until_the_end(self):
        self.quantize(self.out, "--method", "rtn")
        before = files_of(self.out)
        quantize = ["quantize", self.model, "--out", self.out, "--group-size", "32", "--force"]
        p = subprocess.Popen(
            [EQAT, *quantize, "--calib", self.train, *DATA, "--train-size", "2000"],
            stderr=subprocess.PIPE,
        )
        time.sleep(1)
        self.assertEqual(files_of(self.out), before)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130)
        self.assertEqual(files_of(self.out), before)
        self.assertEqual(os.listdir(self.tmp), ["out"])

    def test_force_replaces_nothing_else(self):
        quantize = ["quantize", self.model, "--group-size", 32, "--method", "rtn", "--force"]
        os.mkdir(self.out)
        keep = os.path.join(self.out, "keep")
        open(keep, "w").write("mine")
        self.refused(*quantize, "--out", self.out, says=["config.json"])
        open(os.path.join(self.out, "config.json"), "w").write("{}")
        os.mkdir(os.path.join(self.out, "folder"))
        self.refused(*quantize, "--out", self.out, says=["a folder folder"])
        self.refused(*quantize, "--out", keep, says=["not a folder"])
        self.refused(*quantize, "--out", self.model, says=["the input itself"])
        self.assertEqual(sorted(os.listdir(self.out)), ["config.json", "folder", "keep"])

    def test_unwritable_output(self):
        self.refused(
            "quantize",
            self.model,
            "--out",
            os.path.join(self.model, "config.json", "out"),
            "--group-size",
            32,
            "--method",
            "rtn",
            says=["config.json"],
        )

    def test_output_that_holds_something_else(self):
        os.mkdir(self.out)
        keep = os.path.join(self.out, "keep")
        open(keep, "w").write("mine")
        self.refused(
            "quantize",
            self.model,
            "--out",
            self.out,
            "--group-size",
            32,
            "--method",
            "rtn",
            says=["out", "empty"],
        )
        self.assertEqual(os.listdir(self.out), ["keep"])

    def test_output_on_a_mount_point(self):
        os.mkdir(self.out)
        command = 'mount -t tmpfs none "$1" || exit 77; shift; exec "$@"'
        quantize = [EQAT, "quantize", self.model, "--group-size", "32", "--method", "rtn"]
        sh = ["unshare", "-rm", "sh", "-c", command, "sh", self.out]
        try:
            r = subprocess.run([*sh, *quantize, "--out", self.out], capture_output=True, text=True)
        except FileNotFoundError:
            self.skipTest("no unshare")
        if r.returncode == 77 or "unshare" in r.stderr:
            self.skipTest("no mounts: " + r.stderr)
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertIn(f"{self.out}: found a mount point, expected a new folder", r.stderr)
        self.assertEqual(os.listdir(self.tmp), ["out"])

    def test_bits_that_no_engine_reads(self):
        self.refused(
            "quantize",
            self.model,
            "--out",
            self.out,
            "--bits",
            5,
            "--group-size",
            32,
            "--method",
            "rtn",
            says=["5"],
        )

    def test_what_cannot_be_saved_is_not_trained(self):
        quantize = ["quantize", self.model, "--group-size", 32, "--calib", self.train, *FEW]
        for out, more in (
            (self.model, []),
            (os.path.join(self.tmp, "missing", "out"), []),
            (os.path.join(self.model, "."), []),
            (self.out, ["--bits", 6]),
        ):
            self.refused(*quantize, "--out", out, *more)
            self.assertNotIn("step", self.last_stderr)
        os.mkdir(self.out)
        self.refused(*quantize, "--out", os.path.join(self.out, "."))
        self.assertNotIn("step", self.last_stderr)
        self.assertEqual(os.listdir(self.out), [])

    def test_shapes_that_cannot_be_saved_are_not_trained(self):
        model = self.broken_copy()
        path = os.path.join(model, "config.json")
        config = json.load(open(path))
        config.update(num_attention_heads=8, num_key_value_heads=2)
        json.dump(config, open(path, "w"))
        for layer in range(2):
            for part in "kv":
                self.halve(model, f"model.layers.{layer}.self_attn.{part}_proj.weight")
        self.refused(
            "quantize",
            model,
            "--out",
            self.out,
            "--bits",
            3,
            "--group-size",
            32,
            "--calib",
            self.train,
            *FEW,
            says=[
                "model.layers.0.self_attn.k_proj",
                "found 16 outputs, expected a multiple of 32 at 3 bits",
            ],
        )
        self.assertNotIn("step", self.last_stderr)

    def test_empty_output_folder_with_a_slash(self):
        os.mkdir(self.out)
        self.quantize(self.out + "/", "--method", "rtn")
        self.assertIn("model.safetensors", os.listdir(self.out))
        self.assertEqual(os.listdir(self.tmp), ["out"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
