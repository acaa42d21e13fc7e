"""The eqat tool from outside: what a user types, what comes back, what is left on disk."""

import hashlib, json, os, re, shutil, signal, struct, subprocess, sys, tempfile, time, unittest

import small_gguf

EQAT, TRAIN_TINY = os.environ["EQAT_TOOL"], os.environ["EQAT_TRAIN_TINY"]
DATA = ["--seq-len", "64", "--val-size", "16", "--sampling", "consecutive", "--shuffle", "off"]
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


class Tool(unittest.TestCase):
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

    # ---- the main job ----------------------------------------------------------------------------

    def test_perplexity_falls_from_stage_to_stage(self):
        full = self.perplexity(self.model)
        for bits in (2, 3):
            outs = [os.path.join(self.tmp, f"{m}{bits}") for m in ("rtn", "ap", "qat")]
            self.quantize(outs[0], "--bits", bits, "--method", "rtn")
            report = self.quantize(outs[1], "--bits", bits, "--calib", self.train, *BLOCK_AP)
            self.quantize(
                outs[2], "--bits", bits, "--calib", self.train, "--e2e", self.train, *BLOCK_AP, *E2E
            )
            rtn, ap, qat = (self.perplexity(o) for o in outs)
            print(
                f"{bits} bits: full {full:.4f} rtn {rtn:.4f} "
                f"block-ap {ap:.4f} efficientqat {qat:.4f}",
                file=sys.stderr,
            )
            self.assertGreater(rtn, ap)
            self.assertGreater(ap, qat)
            self.assertGreater(qat, full)
            self.assertEqual(len(report["blocks"]), 2)
            for block in report["blocks"]:
                self.assertEqual(len(block["epochs"]), 2)
                self.assertLess(block["epochs"][1]["train_loss"], block["epochs"][0]["train_loss"])
                self.assertLess(block["epochs"][1]["val_loss"], block["epochs"][0]["val_loss"])
            self.assertGreater(report["peak_rss_bytes"], 1 << 20)
            self.assertGreater(report["seconds"], 0)

    def test_e2e_command_equals_the_one_of_quantize(self):
        a, b, c = (os.path.join(self.tmp, n) for n in "abc")
        self.quantize(
            a, "--calib", self.train, "--e2e", self.train, *FEW, *E2E, "--e2e-train-size", 16
        )
        self.quantize(b, "--calib", self.train, *FEW)
        self.ok(
            "e2e-qp",
            b,
            "--out",
            c,
            "--data",
            self.train,
            "--sampling",
            "consecutive",
            "--shuffle",
            "off",
            *E2E,
            "--e2e-train-size",
            16,
        )
        self.assertEqual(files_of(a), files_of(c))

    def test_same_seed_same_files_whatever_the_threads(self):
        outs = [os.path.join(self.tmp, str(i)) for i in range(3)]
        args = [
            "--calib",
            self.train,
            "--e2e",
            self.train,
            *FEW,
            "--sampling",
            "random",
            "--shuffle",
            "on",
            "--e2e-train-size",
            8,
            "--e2e-seq-len",
            64,
            "--e2e-batch-size",
            4,
        ]
        for out, threads, seed in zip(outs, (1, 3, 3), (7, 7, 8)):
            self.quantize(out, *args, "--threads", threads, "--seed", seed)
        self.assertEqual(files_of(outs[0]), files_of(outs[1]))
        self.assertNotEqual(files_of(outs[0]), files_of(outs[2]))

    def test_offload_changes_nothing(self):
        a, b = (os.path.join(self.tmp, n) for n in "ab")
        cache = os.path.join(self.tmp, "cache")
        os.mkdir(cache)
        self.quantize(a, "--calib", self.train, *FEW)
        self.quantize(b, "--calib", self.train, *FEW, "--offload-dir", cache)
        self.assertEqual(files_of(a), files_of(b))
        self.assertEqual(os.listdir(cache), [])

    def test_fixed_zero_points(self):
        trained, fixed, rounded = (os.path.join(self.tmp, n) for n in "abc")
        few = ["--bits", 4, "--calib", self.train, *FEW]
        self.quantize(trained, *few)
        self.quantize(fixed, *few, "--zero-point", "fixed")
        self.quantize(rounded, "--bits", 4, "--method", "rtn", "--zero-point", "fixed")
        self.assertGreater(len(nibbles_of(trained, ".qzeros")), 2)
        self.assertEqual(nibbles_of(fixed, ".qzeros"), {8})
        self.assertEqual(nibbles_of(rounded, ".qzeros"), {8})
        self.assertLess(self.perplexity(fixed), 1.1 * self.perplexity(self.model))

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

    def test_inspect(self):
        self.quantize(self.out, "--bits", 3, "--method", "rtn")
        full, packed = (
            json.loads(self.ok("inspect", m, "--json").stdout) for m in (self.model, self.out)
        )
        self.assertEqual((full["family"], full["blocks"], full["quantized"]), ("llama", 2, False))
        self.assertEqual(full["linears"][0]["bits"], 0)
        self.assertEqual(packed["linears"][0]["bits"], 3)
        # 3 bits, and for 32 weights a scale of 16 bits and a zero point of 3
        self.assertAlmostEqual(packed["bits_per_linear_parameter"], 3 + (16 + 3) / 32, delta=0.01)
        self.assertLess(packed["bytes"], full["bytes"])
        self.assertIn("llama", self.ok("inspect", self.model).stdout)

    def test_page_is_made_by_the_python_package(self):
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, "PATH": folder}
            missing = eqat("report", "run", env=env)
            self.assertEqual(missing.returncode, 1)
            self.assertRegex(missing.stderr, r"^eqat: report: cannot run eqat-report: .*PATH.*\n$")
            program = os.path.join(folder, "eqat-report")
            with open(program, "w") as f:
                f.write('#!/bin/sh\necho "$#" "$@"\nexit 3\n')
            os.chmod(program, 0o755)
            made = eqat("report", "a run", "-o", "page", env=env)
            self.assertEqual((made.returncode, made.stdout), (3, "3 a run -o page\n"))

    def test_report_of_a_path_that_is_not_utf8(self):
        path = os.path.join(os.fsencode(self.tmp), b"m\xe9")
        os.symlink(self.model, path)
        r = subprocess.run([EQAT, b"inspect", path, b"--json"], capture_output=True)
        report = json.loads(r.stdout)
        self.assertEqual((report["model"][-3:], report["family"]), ("/m?", "llama"))

    def test_log_file_has_a_json_line_per_event(self):
        log = os.path.join(self.tmp, "log")
        self.quantize(self.out, "--calib", self.train, *FEW, "--log-file", log)
        events = events_of(log)
        self.assertEqual(events[0]["event"], "run")
        self.assertEqual((events[-1]["event"], events[-1]["status"]), ("end", "ok"))
        self.assertEqual(events[:-1], log_of(self.out))
        self.assertEqual([e["event"] for e in events[-3:-1]], ["saved", "judged"])
        self.assertEqual(events[-3]["path"], self.out)
        steps = [e for e in events if e["event"] == "step"]
        self.assertEqual(len(steps), 2 * 4)
        self.assertEqual(steps[-1]["step"], steps[-1]["steps"])

    def test_the_end_tells_whether_training_paid(self):
        """Four windows, a twentieth of two epochs of forty, are those that eval would take."""
        windows = os.path.join(self.tmp, "windows.u16")
        rounded = os.path.join(self.tmp, "rounded")
        with open(self.train, "rb") as f, open(windows, "wb") as to:
            to.write(f.read()[2 * 40 * 64 : 2 * 44 * 64])
        few = ("--train-size", 40, "--val-size", 5, "--seq-len", 64, "--sampling", "consecutive")
        args = ("--bits", 3, "--group-size", 32, "--calib", self.train, *few)
        self.quantize(rounded, "--bits", 3, "--method", "rtn")
        r = self.ok("quantize", self.model, "--out", self.out, *args, "--json")
        judged = json.loads(r.stdout)["judged"]
        self.assertEqual(judged.pop("windows"), 4)
        for name, model in (
            ("full_precision", self.model),
            ("rtn", rounded),
            ("result", self.out),
        ):
            evaluated = self.ok("eval", model, "--text", windows, "--seq-len", 64, "--json")
            wanted = json.loads(evaluated.stdout)["perplexity"]
            self.assertAlmostEqual(judged[name], wanted, 6, name)
        self.assertEqual(log_of(self.out)[-1]["event"], "judged")
        quiet = self.ok("quantize", self.model, "--out", self.out, "--force", *args, "--no-judge")
        self.assertNotIn("validation windows", quiet.stdout)

    def test_a_result_worse_than_rounding_exits_with_3_and_stays(self):
        args = ("--bits", 3, "--group-size", 32, "--calib", self.train, *FEW, "--quant-lr", 1e3)
        r = eqat("quantize", self.model, "--out", self.out, *args, "--keep", "last")
        self.assertEqual(r.returncode, 3, r.stderr)
        self.assertIn("worse than round to nearest", r.stderr)
        self.assertGreater(self.perplexity(self.out), 100)
        r = self.ok("quantize", self.model, "--out", self.out, "--force", *args)
        self.assertIn("kept: its initial rounding", r.stderr)
        for block in (e for e in log_of(self.out) if e["event"] == "block"):
            (kept,) = block["kept"]
            self.assertEqual((kept["epoch"], kept["val_loss"]), (-1, kept["start_loss"]))

    def test_log_has_losses_of_epochs_and_times_of_blocks(self):
        report = self.quantize(self.out, "--calib", self.train, *FEW, "--epochs", 2)
        events = log_of(self.out)
        for b, block in enumerate(report["blocks"]):
            epochs = [e for e in events if e["event"] == "epoch" and e["block"] == b]
            self.assertEqual(
                [(e["epoch"], e["train_loss"], e["val_loss"]) for e in epochs],
                [(i, e["train_loss"], e["val_loss"]) for i, e in enumerate(block["epochs"])],
            )
        blocks = [e for e in events if e["event"] == "block"]
        self.assertEqual([e["block"] for e in blocks], [0, 1])
        (phase,) = [e for e in events if e["event"] == "phase"]
        self.assertAlmostEqual(sum(e["seconds"] for e in blocks), phase["seconds"], delta=0.2)
        self.assertGreater(phase["peak_rss_bytes"], 1 << 20)

    def test_a_failure_ends_the_log(self):
        log = os.path.join(self.tmp, "log")
        eqat("eval", self.tmp, "--text", self.valid, "--log-file", log)
        events = events_of(log)
        self.assertEqual((events[0]["event"], events[-1]["event"]), ("run", "end"))
        self.assertNotEqual(events[-1]["status"], "ok")
        self.assertIn(self.tmp, events[-1]["message"])

    def check_options(self, options, struct):
        """Every flag of the section stands there with the value that --help calls the default,
        unless it was given."""
        text = self.ok("quantize", "--help").stdout
        for flag, default in re.findall(r"^  --([\w-]+) .*\(default (.*)\)$", text, re.M):
            name = flag.replace("-", "_")
            if name in options:
                value = options[name]
                shown = "none" if value is None else str(value)
                if isinstance(value, bool):
                    shown = "on" if value else "off"
                elif isinstance(value, float):
                    shown = f"{value:g}"
                self.assertEqual(shown, default, f"{struct}: {flag}")

    def test_a_teacher(self):
        packed, plain, taught, resumed = (os.path.join(self.tmp, n) for n in "abcd")
        self.quantize(packed, "--calib", self.train, *FEW)
        train = ["e2e-qp", packed, "--data", self.train, *E2E, "--e2e-train-size", 16]
        self.ok(*train, "--out", plain)
        self.ok(*train, "--out", taught, "--teacher", self.model)
        self.assertNotEqual(files_of(plain), files_of(taught))
        (*_, run) = json.load(open(os.path.join(taught, "eqat_config.json")))["runs"]
        self.assertEqual(run["teacher"], self.model)
        self.assertEqual(run["options"]["e2e_qp"]["teacher_share"], 1)
        self.ok(*train, "--out", resumed, "--teacher", self.model, "--teacher-share", 0)
        self.assertEqual(files_of(plain), files_of(resumed))
        missing = os.path.join(self.tmp, "missing")
        self.refused(*train, "--out", self.out, "--teacher", missing, says=[missing])
        quantize = ["quantize", self.model, "--out", self.out, "--calib", self.train]
        self.refused(*quantize, "--teacher", self.model, code=2, says=["--teacher", "efficientqat"])
        self.assertFalse(os.path.exists(missing))

    def test_record_of_a_run(self):
        packed, trained = (os.path.join(self.tmp, n) for n in "ab")
        given = ["--calib", self.train, *FEW, "--seed", 5, "--rule", "*.down_proj=4,16"]
        self.quantize(packed, *given, "--skip", "*.layers.1.mlp.up_proj")
        self.ok(
            "e2e-qp", packed, "--out", trained, "--data", self.valid, *E2E, "--e2e-train-size", 8
        )
        config = json.load(open(os.path.join(trained, "eqat_config.json")))
        run, second = config["runs"]
        self.assertEqual([run, second], [e for e in log_of(trained) if e["event"] == "run"])
        self.assertEqual((run["command"], second["command"]), ("quantize", "e2e-qp"))
        self.assertEqual((run["seed"], run["method"]), (5, "block-ap"))
        version = self.ok("--version").stdout.split()[1]
        self.assertEqual((run["version"], run["device"]), (version, "cpu"))
        self.assertTrue(run["processor"])
        self.assertGreaterEqual(run["threads"], 1)
        self.assertEqual((run["model"], run["out"]), (self.model, packed))
        for r, use, path in ((run, "calib", self.train), (second, "data", self.valid)):
            (file,) = r["files"]
            total = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
            self.assertEqual((file["use"], file["path"]), (use, path))
            self.assertEqual(file["sha256"], total.stdout.split()[0])
            self.assertEqual(file["bytes"], os.path.getsize(path))
        self.assertEqual(
            run["rules"],
            [
                {"pattern": "*.down_proj", "bits": 4, "group_size": 16},
                {"pattern": "*.layers.1.mlp.up_proj", "bits": 0, "group_size": 0},
            ],
        )
        options = run["options"]
        self.assertEqual(options["data"]["train_size"], 8)
        self.assertEqual(options["block_ap"].pop("batch_size"), 2)
        self.assertEqual(options["block_ap"].pop("epochs"), 1)
        self.assertEqual(options["quantizer"].pop("group_size"), 32)
        for section in ("quantizer", "block_ap", "model"):
            self.assertTrue(options[section])
            self.check_options(options[section], section)
        self.assertEqual(second["options"]["e2e_qp"]["lr"], 1e-3)
        self.assertEqual(second["options"]["e2e_data"]["seq_len"], 64)

    def test_sha256_of_every_length(self):
        log = os.path.join(self.tmp, "log")
        for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 65536, 65537 + 64):
            path = os.path.join(self.tmp, f"{size}.u16")
            data = os.urandom(size)
            open(path, "wb").write(data)
            eqat("eval", self.model, "--text", path, "--log-file", log)
            (run,) = [e for e in events_of(log) if e["event"] == "run"]
            self.assertEqual(run["files"][0]["sha256"], hashlib.sha256(data).hexdigest(), size)
            os.remove(log)

    def test_warning_of_a_context_longer_than_trained_for(self):
        with open(os.path.join(self.model, "config.json")) as f:
            most = json.load(f)["max_position_embeddings"]
        for length, warned in ((most, False), (most + 1, True)):
            r = self.ok(
                "eval", self.model, "--text", self.train, "--seq-len", length, "--max-windows", 1
            )
            self.assertEqual(f"trained for at most {most}" in r.stderr, warned)

    # ---- rules -----------------------------------------------------------------------------------

    def test_rules_and_skips(self):
        self.quantize(
            self.out,
            *["--method", "rtn", "--bits", 2, "--rule", "*.mlp.*=3", "--rule", "*.down_proj=4,64"],
            *["--skip", "*.layers.0.self_attn.*", "--rule=model.layers.0.self_attn.q_proj=8"],
        )
        linears = linears_of(self.out)
        for name, found in linears.items():
            expected = (2, 32)
            if ".mlp." in name:
                expected = (3, 32)
            if name.endswith("down_proj"):
                expected = (4, 64)
            if ".layers.0.self_attn." in name:
                expected = (0, 0)
            if name.endswith("layers.0.self_attn.q_proj"):
                expected = (8, 32)
            self.assertEqual(found, expected, name)
        self.assertGreater(self.perplexity(self.out), 1)

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

    # ---- where text comes from -------------------------------------------------------------------

    def with_tokenizer(self):
        """The model with a byte-level tokenizer of its 128 ids."""
        model = self.broken_copy()
        letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 196))]
        json.dump(
            {c: i for i, c in enumerate(letters)}, open(os.path.join(model, "vocab.json"), "w")
        )
        open(os.path.join(model, "merges.txt"), "w").write("#version: 0.2\n")
        return model

    def test_text_from_standard_input_or_under_another_key(self):
        model = self.with_tokenizer()
        text = "".join(chr(33 + i * i % 90) for i in range(4096))
        plain, records = (os.path.join(self.tmp, n) for n in ("a.txt", "a.jsonl"))
        open(plain, "w").write(text)
        with open(records, "w") as f:
            for i in range(0, len(text), 512):
                f.write(json.dumps({"text": "no", "content": text[i : i + 512]}) + "\n")
        evaluate = ["eval", model, "--seq-len", 64, "--json", "--text"]
        found = json.loads(self.ok(*evaluate, plain).stdout)
        by_key = json.loads(self.ok(*evaluate, records, "--text-key", "content").stdout)
        with open(plain) as f:
            r = subprocess.run(
                [EQAT, *map(str, evaluate), "-"], stdin=f, capture_output=True, text=True
            )
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(json.loads(r.stdout)["perplexity"], found["perplexity"])
        self.assertEqual(by_key["perplexity"], found["perplexity"])
        self.refused(*evaluate, records, "--text-key", "body", says=["line 1", '"body"'])
        a, b = (os.path.join(self.tmp, n) for n in "ab")
        quantize = ["quantize", model, "--group-size", "32", *FEW, *E2E, "--e2e-train-size", "8"]
        files = ["--method", "efficientqat", "--calib"]
        self.ok(*quantize, *files, plain, "--out", a)
        with open(plain) as f:
            subprocess.run(
                [EQAT, *quantize, *files, "-", "--out", b],
                stdin=f,
                capture_output=True,
                check=True,
            )
        self.assertEqual(files_of(a), files_of(b))
        files = [log_of(o)[0]["files"][0] for o in (a, b)]
        self.assertEqual([f["path"] for f in files], [plain, "-"])
        self.assertEqual(files[0]["sha256"], files[1]["sha256"])

    # ---- --force ---------------------------------------------------------------------------------

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

    def test_progress_is_information(self):
        log = os.path.join(self.tmp, "log")
        quantize = ["--group-size", 32, "--calib", self.train, *FEW, "--json"]
        for level in range(4):
            out = os.path.join(self.tmp, f"out{level}")
            r = self.ok(
                "quantize",
                self.model,
                "--out",
                out,
                *quantize,
                "--log-level",
                level,
                "--log-file",
                log,
            )
            evaluation = self.ok(
                "eval", out, "--text", self.valid, "--seq-len", 64, "--log-level", level
            )
            for stderr, phase in ((r.stderr, "block-ap"), (evaluation.stderr, "eval")):
                if level < 2:
                    self.assertEqual(stderr, "")
                else:
                    self.assertRegex(stderr, rf"{phase}: (step|window) \d+ of \d+.*, ETA \d")
            self.assertEqual(sum('"step"' in line for line in open(log)), (level + 1) * 2 * 4)

    def test_log_file_that_cannot_be_written(self):
        r = eqat("inspect", self.model, "--log-file", "/dev/full", "--log-level", 0)
        self.assertEqual(
            (r.returncode, r.stderr), (1, "eqat: /dev/full: cannot write the log file\n")
        )

    # ---- usage -----------------------------------------------------------------------------------

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

    def test_interrupt_exits_with_130_and_leaves_nothing(self):
        p = subprocess.Popen(
            [
                EQAT,
                "quantize",
                self.model,
                "--out",
                self.out,
                "--group-size",
                "32",
                "--calib",
                self.train,
                *DATA,
                "--train-size",
                "2000",
                "--epochs",
                "1000",
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        time.sleep(2)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130, err)
        self.assertIn(b"cancelled", err)
        self.assertEqual(os.listdir(self.tmp), [])

    # ---- bad input -------------------------------------------------------------------------------

    def test_model_that_is_not_there(self):
        self.refused(
            "eval", os.path.join(self.tmp, "nothing"), "--text", self.valid, says=["nothing"]
        )

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
        ):
            self.refused(*quantize, *more, says=says)
            self.assertNotIn("step", self.last_stderr)
        stage = self.out + ".block-ap"
        os.mkdir(stage)
        open(os.path.join(stage, "keep"), "w").write("mine")
        for force in ([], ["--force"]):
            self.refused(*quantize, *e2e, *force, says=["out.block-ap"])
            self.assertNotIn("step", self.last_stderr)

    def test_the_result_of_block_ap_outlives_e2e(self):
        stage, alone = self.out + ".block-ap", os.path.join(self.tmp, "alone")
        self.quantize(alone, "--calib", self.train, *FEW)
        p = subprocess.Popen(
            [EQAT, "quantize", self.model, "--out", self.out, "--group-size", "32"]
            + ["--calib", self.train, "--e2e", self.train, *FEW, *E2E, "--e2e-epochs", "1000"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in p.stderr:
            if "e2e-qp: step" in line:
                break
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130, err)
        self.assertIn(f"{stage} holds the result of Block-AP", err)
        self.assertEqual(sorted(os.listdir(self.tmp)), ["alone", "out.block-ap"])
        self.assertEqual(files_of(stage), files_of(alone))
        self.assertEqual(log_of(stage)[-1]["event"], "saved")

    def test_nothing_of_block_ap_stays_when_both_are_done(self):
        few = ["--calib", self.train, "--e2e", self.train, *FEW, *E2E, "--e2e-train-size", 8]
        self.quantize(self.out + "/", *few)
        self.assertEqual(os.listdir(self.tmp), ["out"])
        self.assertEqual(
            [e["path"] for e in log_of(self.out) if e["event"] == "saved"][-1:], [self.out + "/"]
        )

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

    def test_empty_output_folder_with_a_slash(self):
        os.mkdir(self.out)
        self.quantize(self.out + "/", "--method", "rtn")
        self.assertIn("model.safetensors", os.listdir(self.out))
        self.assertEqual(os.listdir(self.tmp), ["out"])

    def test_e2e_of_a_model_that_is_not_quantized(self):
        self.refused(
            "e2e-qp", self.model, "--out", self.out, "--data", self.train, says=["quantized"]
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
