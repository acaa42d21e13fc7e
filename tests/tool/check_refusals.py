"""Models, data and text that cannot be used."""

import json, os, shutil, signal, struct, subprocess, time, unittest

from case import Case, E2E, EQAT, FEW


class Refusals(Case):
    def test_model_that_is_not_there(self):
        self.refused(
            "eval", os.path.join(self.tmp, "nothing"), "--text", self.valid, says=["nothing"]
        )

    def test_the_name_of_a_file_for_a_folder(self):
        out = self.out + ".gguf"
        rtn = ["quantize", self.model, "--method", "rtn", "--group-size", 32, "--out", out]
        self.refused(*rtn, says=[out, "expected --format gguf"])
        self.refused("convert", self.model, out, says=[out, "expected --format gguf"])

    def test_what_is_quantized_already(self):
        """Told before the data is read; what is skipped may be."""
        first = ["--skip", "*.layers.0.*", "--method", "rtn"]
        self.quantize(self.out, *first)
        again = ["quantize", self.out, "--group-size", 32, "--out", self.out + "2"]
        says = [self.out, "model.layers.1.", "of 2 bits, expected full precision"]
        self.refused(*again, "--calib", self.train, "--train-size", 10**9, says=says)
        self.ok(*again, "--method", "rtn", "--skip", "*.layers.1.*")

    def test_what_stands_in_the_place_of_a_folder(self):
        """What to give instead is in the line, whatever the command."""
        weights = os.path.join(self.model, "model.safetensors")
        pickled = os.path.join(self.tmp, "pytorch_model.bin")
        open(pickled, "wb").write(b"PK")
        old, bare = self.broken_copy(), self.tokenizer()
        os.rename(os.path.join(old, "model.safetensors"), os.path.join(old, "pytorch_model.bin"))
        weights_alone = os.path.join(self.tmp, "alone")
        os.mkdir(weights_alone)
        shutil.copy(weights, weights_alone)
        for model, says in (
            (weights, ["found a file of a model's folder", "expected the folder"]),
            (pickled, ["found a file of a model's folder", "expected the folder"]),
            (os.path.join(self.model, "config.json"), ["expected the folder"]),
            (old, ["found pytorch_model.bin", "expected model.safetensors"]),
            (weights_alone, ["found no config.json"]),
            (bare, ["found a tokenizer without a model", "config.json"]),
        ):
            self.refused("inspect", model, says=[model, *says])
            self.refused("eval", model, "--text", self.valid, says=[model, *says])
            quantize = ["quantize", model, "--out", self.out, "--calib", self.train]
            self.refused(*quantize, *FEW, says=[model, *says])
            self.refused(
                "e2e-qp", model, "--out", self.out, "--data", self.train, says=[model, *says]
            )

    def test_blocks_beyond_those_of_the_configuration(self):
        """They would change the function; what stands beside it is told."""
        model = self.broken_copy()
        path = os.path.join(model, "config.json")
        config = json.load(open(path))
        config["num_hidden_layers"] = 1
        json.dump(config, open(path, "w"))
        says = ["model.layers.1.", "a block beyond the 1 of num_hidden_layers"]
        self.refused("inspect", model, says=says)
        self.refused("eval", model, "--text", self.valid, says=says)
        beside = os.path.join(self.tmp, "beside")
        shutil.copytree(self.model, beside)
        self.halve(beside, "model.embed_tokens.weight")
        self.edit_header(
            beside, lambda h: h.__setitem__("mtp.0.weight", h.pop("rest.model.embed_tokens.weight"))
        )
        path = os.path.join(beside, "config.json")
        config.update(num_hidden_layers=2, vocab_size=config["vocab_size"] // 2)
        json.dump(config, open(path, "w"))
        told = self.ok("inspect", beside).stderr
        self.assertIn("tensors that the model does not use: mtp.*.weight (1)", told)

    def test_truncated_shard(self):
        model = self.broken_copy()
        shard = os.path.join(model, "model.safetensors")
        os.truncate(shard, os.path.getsize(shard) - 100)
        self.refused(
            "quantize",
            model,
            "--out",
            self.out,
            "--group-size",
            32,
            "--method",
            "rtn",
            says=["model.safetensors"],
        )

    def test_missing_tensor(self):
        model = self.broken_copy()
        name = "model.layers.1.mlp.up_proj.weight"
        self.edit_header(model, lambda h: h.__setitem__("other", h.pop(name)))
        self.refused("eval", model, "--text", self.valid, says=["broken", name, "[192, 64]"])

    def test_wrong_shape(self):
        model = self.broken_copy()
        name = "model.layers.0.self_attn.k_proj.weight"
        self.edit_header(model, lambda h: h[name].__setitem__("shape", h[name]["shape"][::-1]))
        self.refused("eval", model, "--text", self.valid, says=[name, "[64, 32]", "[32, 64]"])

    def test_unknown_architecture(self):
        model = self.broken_copy()
        path = os.path.join(model, "config.json")
        config = json.load(open(path))
        config.update(model_type="mamba", architectures=["MambaForCausalLM"])
        json.dump(config, open(path, "w"))
        self.refused("inspect", model, says=["amba"])

    def test_weight_that_is_not_finite(self):
        model = self.broken_copy()
        path = os.path.join(model, "model.safetensors")
        raw = bytearray(open(path, "rb").read())
        (n,) = struct.unpack("<Q", raw[:8])
        name = "model.layers.1.mlp.down_proj.weight"
        start = 8 + n + json.loads(raw[8 : 8 + n])[name]["data_offsets"][0]
        raw[start : start + 4] = struct.pack("<f", float("nan"))
        open(path, "wb").write(raw)
        for method in (["rtn"], ["block-ap", "--calib", self.train, *FEW]):
            self.refused(
                "quantize",
                model,
                "--out",
                self.out,
                "--group-size",
                32,
                "--method",
                *method,
                says=[name],
            )

    def test_group_that_does_not_divide_the_row(self):
        self.refused(
            "quantize",
            self.model,
            "--out",
            self.out,
            "--group-size",
            256,
            "--method",
            "rtn",
            says=["q_proj", "256", "64"],
        )

    def test_id_out_of_range(self):
        bad = os.path.join(self.tmp, "bad.u16")
        with open(self.valid, "rb") as f:
            ids = bytearray(f.read(4096))
        ids[20:22] = struct.pack("<H", 128)
        open(bad, "wb").write(ids)
        self.refused(
            "eval", self.model, "--text", bad, "--seq-len", 64, says=["bad.u16", "128", "10"]
        )

    def test_empty_calibration(self):
        empty = os.path.join(self.tmp, "empty.u16")
        open(empty, "w").close()
        self.refused(
            "quantize",
            self.model,
            "--out",
            self.out,
            "--group-size",
            32,
            "--calib",
            empty,
            *FEW,
            says=["empty.u16"],
        )

    def test_text_without_tokenizer(self):
        text = os.path.join(self.tmp, "a.txt")
        open(text, "w").write("a text")
        self.refused("eval", self.model, "--text", text, says=["tokenizer"])

    def tokenizer(self):
        """A byte-level tokenizer of four letters."""
        folder = os.path.join(self.tmp, "tokenizer")
        os.mkdir(folder)
        json.dump(
            {c: i for i, c in enumerate("abcd")}, open(os.path.join(folder, "vocab.json"), "w")
        )
        open(os.path.join(folder, "merges.txt"), "w").write("#version: 0.2\n")
        return folder

    def test_tokenize_what_cannot_be_read(self):
        tokenizer = self.tokenizer()
        text = os.path.join(self.tmp, "a")
        open(text, "w").write("abc\n\ndd")
        self.assertEqual(self.ok("tokenize", tokenizer, "--text", text).stdout, "0 1 2\n\n3 3\n")
        self.refused("tokenize", tokenizer, "--text", self.tmp, says=[self.tmp, "directory"])

    def test_interrupt_while_tokenize_waits_for_text(self):
        log = os.path.join(self.tmp, "log")
        p = subprocess.Popen(
            [EQAT, "tokenize", self.tokenizer(), "--text", "-", "--log-file", log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while not os.path.exists(log) or not os.path.getsize(log):
            time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130, err)
        self.assertIn(b"cancelled", err)

    def test_what_e2e_cannot_train_is_found_before_block_ap(self):
        def file(name, content):
            path = os.path.join(self.tmp, name)
            open(path, "wb").write(content)
            return path

        ids = struct.pack("<H", 5)
        short, empty = file("short.u16", ids * 63), file("empty.u16", b"")
        beyond = file("beyond.u16", ids * 200 + struct.pack("<H", 128))
        odd, words = file("odd.u16", ids * 200 + b"x"), file("words.txt", b"a text")
        broken, other = file("broken.npy", b"\x93NUMPY"), file("tokens.bin", ids * 200)
        quantize = ["quantize", self.model, "--out", self.out, "--group-size", 32]
        quantize += ["--calib", self.train, *FEW]
        e2e = ["--e2e", self.train, *E2E]
        gguf = ["--format", "gguf", "--bits", 8, "--zero-point", "fixed"]
        for says, *more in (
            (["none.u16"], "--e2e", os.path.join(self.tmp, "none.u16"), *E2E),
            ([self.tmp], "--e2e", self.tmp, *E2E),
            (["short.u16", "63 tokens"], "--e2e", short, *E2E),
            (["empty.u16", "0 tokens"], "--e2e", empty, *E2E),
            (["beyond.u16", "token 200", "128"], "--e2e", beyond, *E2E),
            (["odd.u16", "multiple of 2"], "--e2e", odd, *E2E),
            (["words.txt", "no tokenizer"], "--e2e", words, *E2E),
            (["broken.npy", "header"], "--e2e", broken, *E2E),
            (["tokens.bin", "ending"], "--e2e", other, *E2E),
            (["micro_batch_size", "found 3", "divisor"], *e2e, "--e2e-micro-batch-size", 3),
            (["seq_len", "found 1"], *e2e, "--e2e-seq-len", 1),
            (["train_size", "found 0"], *e2e, "--e2e-train-size", 0, "--sampling", "random"),
            (["quantized"], *e2e, "--skip", "*"),
            (["zero points that train"], *e2e, *gguf, "--e2e-params", "sz"),
        ):
            self.refused(*quantize, *more, says=says)
            self.assertNotIn("step", self.last_stderr)
        stage = self.out + ".block-ap"
        os.mkdir(stage)
        open(os.path.join(stage, "keep"), "w").write("mine")
        for force in ([], ["--force"]):
            self.refused(*quantize, *e2e, *force, says=["out.block-ap"])
            self.assertNotIn("step", self.last_stderr)

    def test_e2e_of_a_model_that_is_not_quantized(self):
        self.refused(
            "e2e-qp", self.model, "--out", self.out, "--data", self.train, says=["quantized"]
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
