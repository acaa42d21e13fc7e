"""What the tool shows on a terminal, and in a file, while it works.  The reference device is slow
enough for a small model to be seen."""

import json, os, pty, random, re, shutil, struct, subprocess, tempfile, unittest

EQAT = os.environ["EQAT_TOOL"]
SLOW = ["--recipe", "paper", "--group-size", "32", "--init", "mse", "--device", "ref"]
FEW = ["--seq-len", "32", "--train-size", "4", "--val-size", "2", "--epochs", "1", "--no-judge"]
HIDDEN, BLOCKS, VOCAB = 256, 2, 64


def write_model(folder):
    block = "model.layers.%d."
    shapes = {"model.embed_tokens.weight": [VOCAB, HIDDEN], "model.norm.weight": [HIDDEN]}
    for b in range(BLOCKS):
        for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"):
            shapes[f"{block % b}{name}_proj.weight"] = [HIDDEN, HIDDEN]
        for name in ("mlp.gate", "mlp.up", "mlp.down"):
            shapes[f"{block % b}{name}_proj.weight"] = [HIDDEN, HIDDEN]
        for name in ("input", "post_attention"):
            shapes[f"{block % b}{name}_layernorm.weight"] = [HIDDEN]
    rng, header, data = random.Random(0), {}, b""
    for name, shape in shapes.items():
        count = shape[0] * shape[-1] if len(shape) == 2 else shape[0]
        values = [rng.gauss(0, 0.1) if len(shape) == 2 else 1.0 for _ in range(count)]
        piece = struct.pack(f"<{count}f", *values)
        offsets = [len(data), len(data) + len(piece)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        data += piece
    text = json.dumps(header).encode()
    os.mkdir(folder)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)


def on_terminal(*args):
    """The lines that were drawn over one another."""
    ours, theirs = pty.openpty()
    command = [EQAT, *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    drawn = b""
    try:
        while piece := os.read(ours, 1 << 16):
            drawn += piece
    except OSError:
        pass  # how Linux tells that the other end is closed
    os.close(ours)
    assert process.wait() == 0, drawn
    return re.split(r"[\r\n]+", drawn.decode().replace("\033[K", ""))


class Progress(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="eqat-tool-")
        self.model, self.out = (os.path.join(self.dir, name) for name in ("model", "out"))
        self.tokens = os.path.join(self.dir, "tokens.u16")
        write_model(self.model)
        rng = random.Random(1)
        with open(self.tokens, "wb") as f:
            f.write(struct.pack("<1024H", *(rng.randrange(VOCAB) for _ in range(1024))))

    def tearDown(self):
        shutil.rmtree(self.dir)

    def test_rounding(self):
        lines = on_terminal("quantize", self.model, "--out", self.out, "--method", "rtn", *SLOW)
        rounding = [line for line in lines if line.startswith("rtn ")]
        self.assertRegex(
            rounding[0], r"^rtn \[[#.]{20}\] linear \d+ of 14, block \d of 2(, ETA \d+:\d\d)?$"
        )
        self.assertIn("linear 14 of 14, block 2 of 2", rounding[-1])

    def test_start_alone(self):
        """Without steps the blocks tell how far it is, and how long it takes on."""
        args = ["--calib", self.tokens, *SLOW, *FEW, "--epochs", "0"]
        lines = on_terminal("quantize", self.model, "--out", self.out, *args)
        shown = [line for line in lines if line.startswith("block-ap ")]
        for line in shown:
            self.assertRegex(line, r"^block-ap \[[#.]{20}\] block \d of 2, ")
        left = [int(m[1]) for line in shown if (m := re.search(r"ETA 0:(\d\d)$", line))]
        self.assertGreater(max(left), 0)

    def test_starts_of_a_block(self):
        args = ["--calib", self.tokens, "--weight-lr", "9", *SLOW, *FEW]  # ends worse than it began
        lines = on_terminal("quantize", self.model, "--out", self.out, *args)
        self.assertIn("kept: its initial rounding", "".join(lines))
        shown = [line for line in lines if line.startswith("block-ap ")]
        steps = [int(re.search(r"step (\d+) of 4", line)[1]) for line in shown]
        starts = {s for line, s in zip(shown, steps) if "start of linear" in line}
        self.assertLessEqual({0, 2}, starts)
        self.assertEqual(steps, sorted(steps))  # also where the start is made again, and kept

    def test_nothing_of_what_is_short(self):
        command = [EQAT, "quantize", self.model, "--out", self.out, "--method", "rtn"]
        told = subprocess.run([*command, "--group-size", "32"], capture_output=True, text=True)
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertNotIn("rtn:", told.stderr)
        self.assertNotIn("save:", told.stderr)


if __name__ == "__main__":
    unittest.main()
