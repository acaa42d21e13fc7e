"""A run that is killed and started again ends with the bytes of one that was left alone.

RESUME_SEED=N repeats a run of this suite, RESUME_ROUNDS=N makes it longer."""

import array, hashlib, json, os, random, shutil, signal, subprocess, sys, tempfile, time, unittest
from pathlib import Path

EQAT, KILL_AT = os.environ["EQAT_TOOL"], os.environ["EQAT_KILL_AT"]
SEED = int(os.environ.get("RESUME_SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("RESUME_ROUNDS", 6))
HIDDEN, WIDE, VOCAB, BLOCKS = 64, 128, 64, 2
DATA = "--seq-len 32 --val-size 8 --train-size 96 --batch-size 4 --epochs 2".split()
RATES = []  # those of the default recipe, which depend on how everything began
E2E = "--e2e-seq-len 32 --e2e-train-size 240 --e2e-batch-size 4 --e2e-micro-batch-size 2".split()
E2E += "--e2e-val-size 4 --e2e-validate-steps 9 --e2e-keep best".split()
OFTEN = ["--checkpoint-steps", "7", "--checkpoint-seconds", "0"]
SELDOM = ["--checkpoint-seconds", "0"]
STEPS = {"block-ap": 96, "e2e-qp": 60}


def write_model(folder, rng):
    shapes = {"model.embed_tokens.weight": [VOCAB, HIDDEN], "model.norm.weight": [HIDDEN]}
    for b in range(BLOCKS):
        prefix = f"model.layers.{b}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}{name}.weight"] = [HIDDEN]
        for name in "qkvo":
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = [HIDDEN, HIDDEN]
        for name in ("gate", "up"):
            shapes[f"{prefix}mlp.{name}_proj.weight"] = [WIDE, HIDDEN]
        shapes[f"{prefix}mlp.down_proj.weight"] = [HIDDEN, WIDE]
    header, data = {}, array.array("f")
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [1.0] * n if len(shape) == 1 else [rng.gauss(0, 0.15) for _ in range(n)]
        offsets = [4 * len(data), 4 * (len(data) + n)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        data.extend(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.mkdir(folder)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data.tobytes())
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    Path(folder, "config.json").write_text(json.dumps(config))


def files_of(folder):
    """Of the model: records tell of times."""
    return {
        name: hashlib.sha256(Path(folder, name).read_bytes()).hexdigest()
        for name in sorted(os.listdir(folder))
        if not name.startswith("eqat_")
    }


def events_of(path):
    lines = Path(path).read_text().split("\n") if os.path.exists(path) else []
    return [json.loads(line) for line in lines[:-1]]


class Resume(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print(f"RESUME_SEED={SEED}", file=sys.stderr)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where all of this runs under nohup
        cls.dir = tempfile.mkdtemp(prefix="eqat-resume-")
        rng = random.Random(7)
        cls.model = os.path.join(cls.dir, "model")
        write_model(cls.model, rng)
        for name in ("train", "other"):
            ids = array.array("H", (rng.randrange(VOCAB) for _ in range(8192)))
            Path(cls.dir, name + ".u16").write_bytes(ids.tobytes())
        cls.train = os.path.join(cls.dir, "train.u16")
        cls.whole = os.path.join(cls.dir, "whole")
        subprocess.run(cls.quantize(cls.whole), check=True, capture_output=True)
        cls.scales = os.path.join(cls.dir, "scales")
        subprocess.run(cls.e2e(cls.scales), check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir)

    def setUp(self):
        self.rng = random.Random(f"{SEED} {self.id()}")
        self.tmp = tempfile.mkdtemp(dir=self.dir)
        self.out, self.kept, self.log = (os.path.join(self.tmp, n) for n in ("out", "kept", "log"))

    @classmethod
    def quantize(cls, out, *more):
        command = [EQAT, "quantize", cls.model, "--out", out, "--bits", "2", "--group-size", "32"]
        return [*command, "--calib", cls.train, *DATA, "--e2e", cls.train, *E2E, *RATES, *more]

    @classmethod
    def e2e(cls, out, *more):
        command = [EQAT, "e2e-qp", cls.whole, "--out", out, "--data", cls.train]
        return [*command, *E2E, "--e2e-lr", "1e-3", *more]

    def start(self, command, **env):
        if env:
            env = {"LD_PRELOAD": KILL_AT, "ASAN_OPTIONS": "verify_asan_link_order=0", **env}
        if os.path.exists(self.log):
            os.remove(self.log)
        return subprocess.Popen(
            [*command, "--log-file", self.log],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def end(self, command):
        p = self.start(command)
        _, err = p.communicate(timeout=120)
        self.assertEqual(p.returncode, 0, err)
        return err.decode()

    def steps(self, phase):
        return [e for e in events_of(self.log) if e["event"] == "step" and e["phase"] == phase]

    def wait_for(self, p, phase, number):
        """Until so many steps of a phase are in the log; False when the process ended before."""
        while p.poll() is None:
            if len(self.steps(phase)) >= number:
                return True
            time.sleep(0.002)
        return False

    def same(self, whole=None):
        """The result is whole, and nothing else is left."""
        self.assertEqual(files_of(self.out), files_of(whole or self.whole))
        left = sorted(n for n in os.listdir(self.tmp) if n != "offload")
        self.assertEqual(left, ["log", "out"])

    # ---- kills -----------------------------------------------------------------------------------

    def kill_in(self, command, phase):
        """SIGKILL at a random moment of a training phase; False when it came too late."""
        p = self.start(command)
        late = not self.wait_for(p, phase, self.rng.randint(1, STEPS[phase] // 4))
        time.sleep(self.rng.uniform(0, 0.02))
        p.kill()
        p.communicate()
        return not late and p.returncode == -signal.SIGKILL

    def kill_behind_block(self, command):
        """Where a block that is trained is rounded and packed, and the next one begins."""
        p = self.start(command)
        while p.poll() is None:
            if any(e["step"] % (STEPS["block-ap"] // BLOCKS) == 0 for e in self.steps("block-ap")):
                break
            time.sleep(0.0005)
        time.sleep(self.rng.uniform(0, 0.01))
        p.kill()
        p.communicate()
        return p.returncode == -signal.SIGKILL

    def kill_at(self, command, call, path, most):
        side = self.rng.choice(["before", "after"])
        spec = f"{call} {path} {self.rng.randint(1, most)} {side}"
        p = self.start(command, KILL_AT=spec)
        _, err = p.communicate(timeout=120)
        self.assertIn(p.returncode, (0, -signal.SIGKILL), err)
        return p.returncode == -signal.SIGKILL

    def calls(self, command):
        """How often an undisturbed run makes the calls that kills are put at."""
        trace = os.path.join(self.tmp, "trace")
        p = self.start(command, KILL_TRACE=trace)
        _, err = p.communicate(timeout=120)
        self.assertEqual(p.returncode, 0, err)
        lines = Path(trace).read_text().splitlines()
        os.remove(trace)
        self.same()
        shutil.rmtree(self.out)
        return lines

    def test_killed_anywhere_a_run_ends_with_the_same_bytes(self):
        options = ["--checkpoint-dir", self.kept, *OFTEN]
        lines = self.calls(self.quantize(self.out, *options))
        places = {  # in the order of a run
            "checkpoints": ("any", "/kept/block-ap-"),
            "Block-AP's result": ("any", "/out.block-ap.partial-"),
            "checkpoints of scales": ("any", "/kept/e2e-qp-"),
            "saving": ("any", "/out.partial-"),
            "renaming": ("rename", "/out"),
            "removing": ("unlink", "/kept/"),
        }
        most = {
            name: sum(path in l and call in ("any", l.split()[0]) for l in lines)
            for name, (call, path) in places.items()
        }
        self.assertTrue(all(most.values()), most)
        offload = os.path.join(self.tmp, "offload")
        os.mkdir(offload)
        kills = dict.fromkeys(["block-ap", "packing", "e2e-qp", *places], 0)

        def hit(name, killed):
            kills[name] += killed

        def at(name, command, limit=None):
            call, path = places[name]
            hit(name, self.kill_at(command, call, path, min(most[name], limit or most[name])))

        for round in range(ROUNDS):
            more = ["--offload-dir", offload] if round % 2 else []
            command = self.quantize(self.out, *options, *more)
            hit("block-ap", self.kill_in(command, "block-ap"))
            at("checkpoints", command, 12)
            hit("block-ap", self.kill_in(command, "block-ap"))
            hit("packing", self.kill_behind_block(command))
            at("Block-AP's result", command)
            hit("e2e-qp", self.kill_in(command, "e2e-qp"))
            at("checkpoints of scales", command, 10)
            hit("e2e-qp", self.kill_in(command, "e2e-qp"))
            at("saving", command, most["saving"] - 1)  # the last one leaves nothing to rename
            at("renaming", command)
            at("removing", command, 4)
            self.end(command)
            self.same()
            shutil.rmtree(self.out)
        print(f"{sum(kills.values())} kills: {kills}", file=sys.stderr)
        if ROUNDS >= 6:
            self.assertGreaterEqual(sum(kills.values()), 40)
            self.assertGreaterEqual(min(kills.values()), 5, kills)

    def killed(self, command, spec):
        p = self.start(command, KILL_AT=spec)
        _, err = p.communicate(timeout=120)
        self.assertEqual(p.returncode, -signal.SIGKILL, err)

    def test_killed_between_the_result_and_the_end(self):
        command = self.quantize(self.out, "--checkpoint-dir", self.kept, *SELDOM)
        for spec in (
            "rename /out.partial- 2 after",
            "unlink /kept/e2e-qp- 1 after",
            "unlink /kept/checkpoint.json 1 before",
            "unlink /kept/checkpoint.json 1 after",
            "rmdir /kept 1 after",
        ):
            self.killed(command, spec)
            made = os.stat(os.path.join(self.out, "model.safetensors")).st_ino
            self.assertIn(
                "bits per parameter", subprocess.run(command, capture_output=True).stdout.decode()
            )
            self.assertEqual(os.stat(os.path.join(self.out, "model.safetensors")).st_ino, made)
            self.same()
            shutil.rmtree(self.out)
        # And a result is not made twice.
        self.end(command)
        self.end(command)
        self.same()
        self.refused(self.quantize(self.out), "not empty")
        self.refused(command[:-2] + ["--e2e-epochs", "2"], "not empty")

    def kill_while_judged(self, command, sig=signal.SIGKILL):
        """False when it came too late."""
        p = self.start(command)
        while p.poll() is None and not os.path.exists(self.out):
            time.sleep(0.0005)
        p.send_signal(sig)
        _, err = p.communicate()
        self.assertIn(p.returncode, (0, 3, -signal.SIGKILL), err)
        return not any(e["event"] == "judged" for e in events_of(self.log))

    def check_judged_by_the_next_run(self, sig, *kept):
        command = [EQAT, "quantize", self.model, "--out", self.out, "--group-size", "32"]
        command += ["--method", "block-ap", "--keep", "last", "--quant-lr", "1e3"]  # harm
        command += ["--calib", self.train, *DATA, *kept]
        for _ in range(8):
            if self.kill_while_judged(command, sig):
                break
            shutil.rmtree(self.out)
        made = files_of(self.out)
        if not kept:
            self.refused([*command, "--no-judge"], "not empty")
            self.refused([*command, "--seed", "3"], "not empty")
        p = self.start(command)
        _, err = p.communicate(timeout=120)
        self.assertEqual(p.returncode, 3, err)
        self.assertIn("worse than round to nearest", err.decode())
        log = events_of(os.path.join(self.out, "eqat_log.jsonl"))
        names = [e["event"] for e in log]
        self.assertLess(names.index("saved"), names.index("judged"))
        self.assertEqual((names.count("saved"), names.count("judged")), (1, 1))
        self.assertEqual(files_of(self.out), made)
        return command

    def test_a_result_is_judged_by_the_next_run(self):
        for sig in (signal.SIGKILL, signal.SIGTERM):
            command = self.check_judged_by_the_next_run(sig, "--checkpoint-dir", self.kept, *SELDOM)
            self.assertFalse(os.path.exists(self.kept))
            self.end(command)  # which has nothing left to do
            shutil.rmtree(self.out)
            command = self.check_judged_by_the_next_run(sig)
            self.refused(command, "not empty")  # which is judged, too
            shutil.rmtree(self.out)

    def test_a_folder_that_is_replaced_is_never_lost(self):
        shutil.copytree(self.whole, self.out)
        command = self.e2e(self.out, "--force", "--checkpoint-dir", self.kept, *SELDOM)
        self.killed(command, "rename /out.before- 1 after")
        self.assertFalse(os.path.exists(self.out))
        self.killed(command, "mkdir /out.partial- 1 before")
        self.assertEqual(files_of(self.out), files_of(self.whole))
        self.end(command)
        self.same(self.scales)

    def test_scales_alone(self):
        command = self.e2e(self.out, "--checkpoint-dir", self.kept, *OFTEN)
        for _ in range(2):
            self.kill_in(command, "e2e-qp")
        self.end(command)
        self.same(self.scales)

    # ---- calls that fail -------------------------------------------------------------------------

    def fails_at(self, command, spec, says):
        """The run ends with a line or a warning, leaves nothing partial, and can be repeated."""
        p = self.start(command, KILL_AT=spec)
        _, err = p.communicate(timeout=120)
        self.assertIn(p.returncode, (0, 1), (spec, err))
        names = set(os.listdir(self.tmp)) - {"log", "kept"}
        self.assertLessEqual(names, {"out", "out.block-ap"}, (spec, err))
        if p.returncode == 1:
            line = err.decode().splitlines()[-1]
            self.assertIn(says, err.decode(), spec)
            self.assertIn(self.tmp, line, spec)
        else:
            self.same_files(self.out, spec)
        return p.returncode

    def same_files(self, out, spec=None):
        self.assertEqual(files_of(out), files_of(self.whole), spec)

    def test_calls_that_fail(self):
        command = self.quantize(self.out, "--checkpoint-dir", self.kept, *OFTEN)
        lines = self.calls(command)
        here = [i + 1 for i, l in enumerate(l for l in lines if self.tmp in l)]
        ended = 0
        for error, says, rounds in (
            ("EIO", "Input/output error", 2 * ROUNDS),
            ("ENOSPC", "No space left on device", ROUNDS),
        ):
            for _ in range(rounds):
                spec = f"any {self.tmp} {self.rng.choice(here)} {error}"
                ended += self.fails_at(command, spec, says)
                self.end(command)
                self.same()
                shutil.rmtree(self.out)
        # What cannot be removed is removed by the next run.
        for call, part in (("unlink", "/kept/"), ("rmdir", "/kept"), ("unlink", "/out.block-ap/")):
            found = [l for l in lines if l.split()[0] == call and part in l]
            for i in range(max(0, len(found) - 6), len(found)):
                spec = f"{call} {part} {i + 1} EIO"
                self.assertEqual(self.fails_at(command, spec, ""), 0, found[i])
                self.end(command)
                self.same()
                shutil.rmtree(self.out)
        print(f"{3 * ROUNDS} calls failed, and {ended} runs with them", file=sys.stderr)

    # ---- a disk that is full ---------------------------------------------------------------------

    def small_disk(self, megabytes):
        disk = os.path.join(self.tmp, "disk")
        os.mkdir(disk)
        how = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk]
        try:
            mounted = subprocess.run(how, capture_output=True).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            os.rmdir(disk)
            self.skipTest("no filesystem of its own can be mounted here")
        self.addCleanup(lambda: (subprocess.run(["umount", disk], check=True), os.rmdir(disk)))
        return disk

    def fill(self, disk):
        ballast = os.path.join(disk, "ballast")
        try:
            with open(ballast, "wb", buffering=0) as f:
                while f.write(b"\0" * 4096) == 4096:
                    pass
        except OSError:
            pass
        return ballast

    def test_a_disk_that_fills_up_keeps_the_last_checkpoint(self):
        disk = self.small_disk(8)
        kept = os.path.join(disk, "kept")
        command = self.quantize(self.out, "--checkpoint-dir", kept, *OFTEN)
        p = self.start(command)
        self.assertTrue(self.wait_for(p, "block-ap", 20))
        ballast = self.fill(disk)
        reached = len(self.steps("block-ap"))
        self.assertTrue(self.wait_for(p, "block-ap", reached + 20))
        p.kill()
        _, err = p.communicate()
        self.assertIn(b"no checkpoint was saved, the one before stays", err)
        self.assertIn(b"No space left on device", err)
        os.remove(ballast)
        self.assertIn("goes on from the checkpoint", self.end(command))
        self.same_files(self.out)
        self.assertEqual(os.listdir(disk), [])

    def test_a_result_that_finds_no_room(self):
        disk = self.small_disk(8)
        out = os.path.join(disk, "out")
        command = self.quantize(out, "--checkpoint-dir", self.kept, *SELDOM)
        p = self.start(command)
        self.assertTrue(self.wait_for(p, "e2e-qp", 5))
        ballast = self.fill(disk)
        _, err = p.communicate(timeout=120)
        self.assertEqual(p.returncode, 1, err)
        self.assertIn("No space left on device", err.decode().splitlines()[-1])
        self.assertFalse(os.path.exists(out))
        os.remove(ballast)
        self.end(command)
        self.same_files(out)
        self.assertEqual(os.listdir(disk), ["out"])

    def test_room_is_checked_up_front(self):
        disk = self.small_disk(1)
        kept = os.path.join(disk, "kept")
        with open(os.path.join(disk, "other"), "wb") as f:
            f.write(b"x" * 900_000)
        r = subprocess.run(
            self.quantize(self.out, "--checkpoint-dir", kept), capture_output=True, text=True
        )
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertIn(f"{kept}: needs 1 MB, found 0 MB available", r.stderr)
        self.assertIn("--checkpoint-dir on another disk helps", r.stderr)

    # ---- signals ---------------------------------------------------------------------------------

    def test_signals_save_first(self):
        command = self.quantize(self.out, "--checkpoint-dir", self.kept, *SELDOM)
        for phase, number, sig in (
            ("block-ap", 20, signal.SIGTERM),
            ("block-ap", 10, signal.SIGHUP),
            ("e2e-qp", 15, signal.SIGINT),
            ("e2e-qp", 3, signal.SIGTERM),
        ):
            p = self.start(command)
            self.assertTrue(self.wait_for(p, phase, number))
            p.send_signal(sig)
            _, err = p.communicate(timeout=60)
            self.assertEqual(p.returncode, 128 + sig, err)
            self.assertIn(b"cancelled", err)
            self.assertIn(f"goes on from the checkpoint in {self.kept}".encode(), err)
            reached = self.steps(phase)[-1]["step"]
            p = self.start(command)
            self.assertTrue(self.wait_for(p, phase, 1))
            p.kill()
            p.communicate()
            self.assertEqual(self.steps(phase)[0]["step"], reached + 1)
        self.end(command)
        self.same()

    def test_signals_without_a_checkpoint(self):
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            p = self.start(self.quantize(self.out))
            self.assertTrue(self.wait_for(p, "block-ap", 3))
            p.send_signal(sig)
            p.communicate(timeout=60)
            self.assertEqual(p.returncode, 128 + sig)
            self.assertEqual(os.listdir(self.tmp), ["log"])

    def test_nohup_stays_nohup(self):
        handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        p = self.start(self.quantize(self.out))
        signal.signal(signal.SIGHUP, handler)
        self.assertTrue(self.wait_for(p, "block-ap", 1))
        p.send_signal(signal.SIGHUP)
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, 0)
        self.same()

    # ---- the log ---------------------------------------------------------------------------------

    def test_the_log_goes_on(self):
        command = self.quantize(self.out, "--checkpoint-dir", self.kept, *OFTEN)
        for phase in ("block-ap", "e2e-qp"):
            self.kill_in(command, phase)
        self.end(command)
        events = events_of(os.path.join(self.out, "eqat_log.jsonl"))
        for phase, steps in STEPS.items():
            seen = [e["step"] for e in events if e["event"] == "step" and e["phase"] == phase]
            self.assertEqual(seen, list(range(1, steps + 1)))
        self.assertEqual([e["event"] for e in events].count("run"), 3)
        runs = json.loads(Path(self.out, "eqat_config.json").read_text())["runs"]
        self.assertEqual(len(runs), 3)
        self.assertIn(
            {"block-ap", "e2e-qp"}, [{e["phase"] for e in events if e["event"] == "phase"}]
        )

    # ---- refused ---------------------------------------------------------------------------------

    def refused(self, command, *says):
        r = subprocess.run(command, capture_output=True)
        self.assertEqual(r.returncode, 1, r.stderr)
        for text in says:
            self.assertIn(text, r.stderr.decode())

    def test_what_differs_is_named(self):
        more = ["--checkpoint-dir", self.kept, *OFTEN]
        command = self.quantize(self.out, *more)
        self.assertTrue(self.kill_in(command, "block-ap"))
        self.refused(
            self.quantize(self.out, *more, "--epochs", "3"),
            "options.block_ap.epochs: found 2, expected 3",
        )
        self.refused(self.quantize(self.out, *more, "--seed", "1"), "options.context.seed")
        self.refused(
            self.quantize(self.out, *more, "--rule", "*.q_proj=4"), "rules.0: found none"
        )
        other = [a.replace("train.u16", "other.u16") for a in command]
        self.refused(other, "data.0.sha256")
        self.refused(self.e2e(self.out, *more), 'command: found "quantize", expected "e2e-qp"')
        other = self.quantize(self.out, *more, "--recipe", "paper")
        self.refused(other, 'options.quantizer.init: found "descent", expected "minmax"')
        other = self.quantize(self.out, *more, "--teacher", "none")
        self.refused(other, "teacher: found one, expected none of this command")
        model = os.path.join(self.tmp, "model")
        shutil.copytree(self.model, model)
        changed = [model if a == self.model else a for a in command]
        with open(os.path.join(model, "model.safetensors"), "r+b") as f:
            f.seek(-1000, os.SEEK_END)
            f.write(b"\0")
        self.refused(changed, "model.model.safetensors.sha256")
        # Where things are and how many threads there are is no difference.
        shutil.rmtree(model)
        shutil.copytree(self.model, model)
        self.end([*changed, "--threads", "1"])
        shutil.rmtree(model)
        self.same()

    def test_folders_that_are_no_checkpoint(self):
        command = self.quantize(self.out, "--checkpoint-dir", self.kept, *SELDOM)
        os.mkdir(self.kept)
        mine = Path(self.kept, "mine")
        mine.write_text("mine")
        self.refused(command, "found mine, expected a checkpoint's folder")
        self.assertEqual(mine.read_text(), "mine")
        os.remove(mine)
        p = self.start(command)
        self.assertTrue(self.wait_for(p, "block-ap", 1))
        self.refused(command, "in use by another run")
        p.communicate(timeout=60)
        self.same()
        os.mkdir(self.kept)
        Path(self.kept, "checkpoint.json").write_text("{")
        self.refused(self.quantize(self.out + "2", "--checkpoint-dir", self.kept), "no JSON")

    def test_manifests_of_strangers(self):
        command = self.quantize(self.out, "--checkpoint-dir", self.kept, *OFTEN)
        self.assertTrue(self.kill_in(command, "e2e-qp"))
        manifest = Path(self.kept, "checkpoint.json")
        sound = json.loads(manifest.read_text())
        mine = Path(self.tmp, "mine.safetensors")
        mine.write_text("mine")
        for change in (
            {"states": {"block-ap": "block-ap-/../../mine.safetensors"}},
            {"states": {"block-ap": str(mine)}},
            {"states": {"block-ap": 5}},
            {"states": {"block-ap": "log.jsonl"}},
            {"states": ["block-ap-1.safetensors"]},
            {"runs": 5},
            {"log_bytes": -1},
            {"number": -5},
            {"number": 1 << 60},
            {"eqat_checkpoint": 2},
        ):
            manifest.write_text(json.dumps({**sound, **change}))
            self.refused(command, "checkpoint.json: found", "damaged?")
            self.assertEqual(mine.read_text(), "mine")
        manifest.write_text(json.dumps(sound))
        log = Path(self.kept, "log.jsonl")
        log.rename(Path(self.tmp, "kept-log"))
        log.symlink_to(mine)
        self.refused(command, "log.jsonl: cannot read")
        self.assertEqual(mine.read_text(), "mine")
        Path(self.tmp, "kept-log").rename(log)
        mine.unlink()
        self.end(command)
        self.same()

    def test_flags(self):
        for flags in (
            ["--checkpoint-steps", "3"],
            ["--checkpoint-dir", self.kept, *OFTEN[:1], "x"],
        ):
            r = subprocess.run(self.quantize(self.out, *flags), capture_output=True)
            self.assertEqual(r.returncode, 2, r.stderr)
            self.assertIn(b"--checkpoint-steps: found", r.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
