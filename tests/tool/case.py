"""What the checks of the tool share: a tiny model that was trained, and calls of the tool."""

import hashlib, json, os, shutil, struct, subprocess, tempfile, time, unittest

EQAT, TRAIN_TINY = os.environ["EQAT_TOOL"], os.environ["EQAT_TRAIN_TINY"]
DATA = ["--recipe", "paper", "--seq-len", "64", "--val-size", "16"]
DATA += ["--sampling", "consecutive", "--shuffle", "off"]
BLOCK_AP = DATA + [
    "--train-size",
    "512",
    "--batch-size",
    "8",
    "--epochs",
    "2",
    "--weight-lr",
    "1e-3",
    "--quant-lr",
    "1e-3",
]
E2E = [
    "--recipe",
    "paper",
    "--e2e-seq-len",
    "64",
    "--e2e-train-size",
    "2048",
    "--e2e-batch-size",
    "8",
    "--e2e-micro-batch-size",
    "8",
    "--e2e-lr",
    "1e-3",
]
FEW = DATA + ["--train-size", "8", "--batch-size", "2", "--epochs", "1"]


def eqat(*args, env=None):
    return subprocess.run([EQAT, *map(str, args)], capture_output=True, text=True, env=env)


def files_of(folder):
    """Of the model: what records the run tells of threads and times."""
    return {
        name: hashlib.sha256(open(os.path.join(folder, name), "rb").read()).hexdigest()
        for name in sorted(os.listdir(folder))
        if not name.startswith("eqat_")
    }


def events_of(path):
    return [json.loads(line) for line in open(path)]


def log_of(folder):
    return events_of(os.path.join(folder, "eqat_log.jsonl"))


def linears_of(model):
    listed = subprocess.run([EQAT, "inspect", model, "--all", "--json"], capture_output=True)
    return {l["name"]: (l["bits"], l["group_size"]) for l in json.loads(listed.stdout)["linears"]}


def nibbles_of(folder, ending):
    """The values of 4 bits in all tensors of a saved model whose names end so."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    found = [t["data_offsets"] for name, t in header.items() if name.endswith(ending)]
    return {n for a, b in found for byte in data[a:b] for n in (byte & 15, byte >> 4)}


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="eqat-tool-")
        started = time.monotonic()
        subprocess.run([TRAIN_TINY, cls.dir], check=True, capture_output=True)
        cls.trained_in = time.monotonic() - started
        cls.model = os.path.join(cls.dir, "model")
        cls.train, cls.valid = (os.path.join(cls.dir, n + ".u16") for n in ("train", "valid"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def setUp(self):
        self.tmp = tempfile.mkdtemp(dir=self.dir)
        self.out = os.path.join(self.tmp, "out")

    def ok(self, *args):
        r = eqat(*args)
        self.assertEqual(r.returncode, 0, r.stderr)
        return r

    def perplexity(self, model, *args):
        return json.loads(
            self.ok("eval", model, "--text", self.valid, "--seq-len", 64, "--json", *args).stdout
        )["perplexity"]

    def quantize(self, out, *args):
        return json.loads(
            self.ok(
                "quantize", self.model, "--out", out, "--group-size", 32, "--json", *args
            ).stdout
        )

    def refused(self, *args, code=1, says=()):
        """One line that says all of `says`, the exit code, and nothing left at --out."""
        before = sorted(os.listdir(self.tmp))
        r = eqat(*args)
        self.assertEqual(r.returncode, code, r.stderr)
        self.assertEqual(r.stdout, "")
        self.last_stderr = r.stderr
        lines = [
            line
            for line in r.stderr.splitlines()
            if not line.startswith(
                ("usage:", "eqat: warning", "eqat: info", "eqat: needs", "block-ap:")
            )
        ]
        self.assertEqual(len(lines), 1, r.stderr)
        for text in says:
            self.assertIn(text, lines[0])
        self.assertEqual(sorted(os.listdir(self.tmp)), before)
        return lines[0]

    def broken_copy(self):
        copy = os.path.join(self.tmp, "broken")
        shutil.copytree(self.model, copy)
        return copy

    def with_tokenizer(self):
        """The model with a byte-level tokenizer whose 128 ids are those of ASCII, NUL the last."""
        model = self.broken_copy()
        letters = [chr(c) for c in (*range(33, 127), *range(257, 290), 256)]
        json.dump(
            {c: i for i, c in enumerate(letters)}, open(os.path.join(model, "vocab.json"), "w")
        )
        open(os.path.join(model, "merges.txt"), "w").write("#version: 0.2\n")
        return model

    def edit_header(self, model, edit):
        path = os.path.join(model, "model.safetensors")
        raw = open(path, "rb").read()
        (n,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + n])
        edit(header)
        text = json.dumps(header).encode()
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text + raw[8 + n :])

    def halve(self, model, name):
        """Keeps half of a tensor's rows; the rest stays under a name that nobody asks for."""

        def edit(header):
            t = header[name]
            rows, (start, end) = t["shape"][0] // 2, t["data_offsets"]
            t["shape"] = [rows, t["shape"][1]]
            header["rest." + name] = dict(t, data_offsets=[(start + end) // 2, end])
            t["data_offsets"] = [start, (start + end) // 2]

        self.edit_header(model, edit)
