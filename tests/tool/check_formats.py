"""The same model in every format."""

import json, os, shutil, unittest

import small_gguf

from case import Case, E2E, FEW, eqat, files_of


class Formats(Case):
    def test_source_of_few_bits(self):
        source = small_gguf.write(os.path.join(self.tmp, "source.gguf"))
        file = os.path.join(self.tmp, "out.gguf")
        rtn = ["quantize", source, "--method", "rtn"]
        wide = "larger than the input.*16-bit.*--format gguf --keep-ends"
        said = self.ok(*rtn, "--out", self.out).stderr
        self.assertIn("the input has 4.5 bits per parameter of the linears already", said)
        self.assertRegex(said, wide)
        shutil.rmtree(self.out)
        self.refused(*rtn, "--out", self.out, "--keep-ends", says=["--keep-ends", "--format gguf"])
        kept = ["--out", file, "--format", "gguf", "--keep-ends", "--force"]
        self.assertNotIn("larger", self.ok(*rtn, *kept).stderr)
        with open(file, "rb") as f:
            self.assertIn(small_gguf.embedding(source), f.read())
        said = self.ok(*rtn, *kept, "--bits", 7, "--group-size", 32).stderr
        self.assertRegex(said, r"(?m)larger than the input \([\d.]+ MB\)$")
        said = self.ok(
            "quantize", self.model, "--out", self.out, *rtn[2:], "--group-size", 32, "--keep-ends"
        ).stderr
        self.assertNotRegex(said, "larger|already")

    def test_convert_writes_the_same_model(self):
        again = os.path.join(self.tmp, "again")
        self.quantize(self.out, "--method", "rtn")
        r = json.loads(self.ok("convert", self.out, again, "--json").stdout)
        self.assertEqual((r["model"], r["out"]), (self.out, again))
        for name, digest in files_of(self.out).items():
            if not name.startswith("eqat_"):  # the record and the log tell of both runs
                self.assertEqual(files_of(again)[name], digest, name)
        self.refused("convert", self.out, again, says=["again", "not empty"])
        self.ok("convert", self.out, again, "--force")
        self.refused("convert", self.out + "x", again + "x", says=["no such file or folder"])
        for args in ([], [self.out], [self.out, ""], [self.out, again + "x", "more"]):
            self.assertEqual(eqat("convert", *args).returncode, 2, args)
        r = eqat("convert", self.out, again + "x", "--format", "marlin")
        self.assertEqual(r.returncode, 2)
        self.assertIn('format: found "marlin", expected gptq_v2', r.stderr)

    def test_convert_to_every_format_and_back(self):
        self.quantize(self.out, "--method", "rtn", "--bits", 4, "--zero-point", "fixed")
        weights = files_of(self.out)["model.safetensors"]
        perplexity = self.perplexity(self.out)
        for name in ("gptq", "compressed-tensors", "auto-round", "mlx", "awq", "fp16"):
            there, back = os.path.join(self.tmp, name), os.path.join(self.tmp, name + "-back")
            self.ok("convert", self.out, there, "--format", name, "--max-shard-size", 20000)
            self.assertIn("model.safetensors.index.json", os.listdir(there))
            self.assertAlmostEqual(self.perplexity(there), perplexity, 2 if name == "fp16" else 12)
            self.ok("convert", there, back)
            with open(os.path.join(there, "eqat_log.jsonl")) as f:
                saved = [e for e in map(json.loads, f) if e["event"] == "saved"][-1]
            shards = [n for n in os.listdir(there) if n.endswith(".safetensors")]
            size = sum(os.path.getsize(os.path.join(there, n)) for n in shards)
            self.assertEqual(saved["bytes"], size)
            self.assertEqual(saved["bits_per_linear_parameter"] == 16, name == "fp16")
            if name != "fp16":
                self.assertEqual(files_of(back)["model.safetensors"], weights, name)

    def test_gguf_of_quantize_e2e_qp_and_convert(self):
        """The file holds what the folder does; Q2_0 is read as codes, so logits are the same."""
        fixed = ["--bits", 2, "--zero-point", "fixed", "--group-size", 64]
        few = [*fixed, "--calib", self.train, *FEW]
        folder, gguf, again = (os.path.join(self.tmp, n) for n in ("model", "m.gguf", "again.gguf"))
        self.ok("quantize", self.model, "--out", folder, *few)
        self.ok("quantize", self.model, "--out", gguf, "--format", "gguf", *few)
        self.ok("convert", folder, again, "--format", "gguf")
        with open(gguf, "rb") as a, open(again, "rb") as b:
            data = a.read()
            self.assertEqual(data[:4], b"GGUF")
            self.assertEqual(data, b.read())
        self.assertAlmostEqual(self.perplexity(gguf), self.perplexity(folder), 12)
        trained, e2e = os.path.join(self.tmp, "t.gguf"), os.path.join(self.tmp, "e2e")
        data = ["--data", self.train, *E2E, "--e2e-train-size", 16]
        self.ok("e2e-qp", folder, "--out", trained, "--format", "gguf", *data)
        self.ok("e2e-qp", folder, "--out", e2e, *data)
        self.assertAlmostEqual(self.perplexity(trained), self.perplexity(e2e), 12)
        self.assertNotEqual(self.perplexity(trained), self.perplexity(gguf))
        odd = os.path.join(self.tmp, "odd.gguf")
        self.refused(
            "quantize", self.model, "--out", odd, "--format", "gguf", "--bits", 2,
            "--group-size", 16, "--method", "rtn", says=["groups of 16"]
        )  # fmt: skip
        self.refused(
            "convert", folder, odd, "--format", "gguf", "--gguf-type", "q9_0",
            code=2, says=['gguf_type: found "q9_0"']
        )  # fmt: skip

    def test_formats_that_cannot_hold_a_model(self):
        trained = ["--method", "rtn", "--bits", 3]
        for name, says in (
            ("gptq", "found zero_point trained, expected fixed for the format gptq"),
            ("awq", "found 3 bits, expected 4 for the format awq"),
        ):
            self.refused(
                "quantize", self.model, "--out", self.out, "--group-size", 32, "--format", name,
                *trained, says=[says]
            )  # fmt: skip
        self.quantize(self.out, *trained)
        other = os.path.join(self.tmp, "other")
        self.refused("convert", self.out, other, "--format", "gptq", says=["cannot be moved to 4"])
        self.ok("convert", self.out, other, "--format", "gptq", "--allow-asymmetric", "on")
        self.assertEqual(self.perplexity(other), self.perplexity(self.out))


if __name__ == "__main__":
    unittest.main(verbosity=2)
