"""The examples, built by CMake outside the source tree, and run as their first lines say."""

import array, json, math, os, random, signal, struct, subprocess, sys, unittest

from installed import CLEAN, SOURCE, Installed, need, run, write


def write_model(path):
    """One random block, 64 wide, with a vocabulary of 128: a folder that opens."""
    config = dict(
        model_type="llama",
        architectures=["LlamaForCausalLM"],
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=128,
        rms_norm_eps=1e-5,
        torch_dtype="float32",
        tie_word_embeddings=True,
    )
    write(path + "/config.json", json.dumps(config))
    shapes = {"model.embed_tokens": (128, 64), "model.norm": (64,)}
    for name, shape in {
        "input_layernorm": (64,),
        "self_attn.q_proj": (64, 64),
        "self_attn.k_proj": (64, 64),
        "self_attn.v_proj": (64, 64),
        "self_attn.o_proj": (64, 64),
        "post_attention_layernorm": (64,),
        "mlp.gate_proj": (128, 64),
        "mlp.up_proj": (128, 64),
        "mlp.down_proj": (64, 128),
    }.items():
        shapes["model.layers.0." + name] = shape
    header, weights, draw = {}, array.array("f"), random.Random(1)
    for name, shape in shapes.items():
        start = 4 * len(weights)
        weights.extend(draw.gauss(0, 0.1) for _ in range(math.prod(shape)))
        header[name + ".weight"] = dict(
            dtype="F32", shape=shape, data_offsets=[start, 4 * len(weights)]
        )
    text = json.dumps(header).encode()
    with open(path + "/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + weights.tobytes())


class Examples(Installed):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.build = cls.examples()
        cls.model, cls.tokens = cls.dir + "/model", cls.dir + "/tokens.u16"
        write_model(cls.model)
        draw = random.Random(2)
        with open(cls.tokens, "wb") as f:
            array.array("H", (draw.randrange(128) for _ in range(8192))).tofile(f)

    def example(self, name, *arguments):
        return run(f"{self.build}/{name}", *arguments)

    def test_they_use_the_installed_library(self):
        linked = run("ldd", self.build + "/train_tiny")
        self.assertEqual(self.libs + "/libeqat.so.0" in linked, self.shared)

    def test_watch_and_compute(self):
        for bits in ("2", "3"):
            out = f"{self.dir}/watched-{bits}"
            few = ["train_size=8", "val_size=2", "seq_len=32", "group_size=32", "bits=" + bits]
            self.example("quantize_watch", self.model, self.tokens, out, *few)
            lines = self.example("inference_engine", out)
            self.assertEqual(lines.count(f" {bits} bits "), 7)
        with self.assertRaisesRegex(AssertionError, "colour"):
            self.example("quantize_watch", self.model, self.tokens, out + "-none", "colour=red")

    def test_interrupt(self):
        out = self.dir + "/interrupted"
        many = ["train_size=8", "val_size=2", "seq_len=32", "epochs=100000"]
        command = [self.build + "/quantize_watch", self.model, self.tokens, out, *many]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=CLEAN) as watched:
            told = ""
            while "step 2 " not in told:
                told += watched.stderr.read(1)
            watched.send_signal(signal.SIGINT)
            told += watched.stderr.read()
        self.assertEqual(watched.returncode, 130)
        self.assertIn("info: device cpu", told)
        self.assertRegex(told, "quantize_watch: .*cancelled")
        self.assertFalse(os.path.exists(out))

    def test_two_processes(self):
        out = self.dir + "/ranks"
        self.example("two_processes", self.model, self.tokens, out)
        weights = [open(f"{out}-{i}/model.safetensors", "rb").read() for i in (0, 1)]
        self.assertEqual(*weights)
        with self.assertRaisesRegex(AssertionError, "rank [01]: .*nowhere"):
            self.example("two_processes", self.dir + "/nowhere", self.tokens, out + "-none")

    def test_cpp(self):
        out = self.dir + "/cpp"
        arguments = [self.model, self.tokens, out, "32", "16"]
        self.assertIn("2.28125 bits", self.example("quantize", *arguments))
        with self.assertRaisesRegex(AssertionError, "quantize: .*/cpp"):
            self.example("quantize", *arguments)  # it is there already

    def test_ctypes(self):
        if not self.shared:
            self.skipTest("a static build")
        script = os.path.join(SOURCE, "examples", "plain_ctypes.py")
        arguments = [self.model, self.tokens, self.dir + "/ctypes"]
        library = dict(EQAT_LIBRARY=self.libs + "/libeqat.so.0")
        self.assertIn("perplexity", run(sys.executable, script, *arguments, **library))
        with self.assertRaisesRegex(AssertionError, "plain_ctypes.py: .*ctypes"):
            run(sys.executable, script, *arguments, **library)


if __name__ == "__main__":
    need("cmake")
    unittest.main()
