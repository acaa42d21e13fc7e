"""What a run tells: log, record, progress, report."""

import hashlib, json, os, re, subprocess, tempfile, unittest

from case import Case, E2E, EQAT, FEW, eqat, events_of, files_of, log_of


class Log(Case):
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

    def test_validations_of_e2e_qp(self):
        """What is reported, logged and kept; rates that do harm leave the start."""
        few = ["--e2e-val-size", 4, "--e2e-validate-steps", 3, "--e2e-train-size", 32]
        report = self.quantize(
            self.out, "--calib", self.train, *FEW, "--e2e", self.train, *E2E, *few
        )
        e2e, events = report["e2e"], log_of(self.out)
        self.assertEqual([v["step"] for v in e2e["validations"]], [3, 4])
        steps = [e for e in events if e["event"] == "step" and e["phase"] == "e2e-qp"]
        told = [{k: e[k] for k in ("step", "val_loss")} for e in steps if e["val_loss"]]
        self.assertEqual(told, e2e["validations"])
        (kept,) = [e for e in events if e["event"] == "kept"]
        self.assertEqual({k: kept[k] for k in e2e["kept"]}, e2e["kept"])
        self.assertEqual((kept["step"], kept["val_loss"]), (4, told[-1]["val_loss"]))
        self.assertLess(kept["val_loss"], kept["start_loss"])
        bad = os.path.join(self.tmp, "bad")
        given = ["--data", self.train, *E2E, *few, "--e2e-max-grad-norm", 0, "--e2e-lr", 10]
        r = self.ok("e2e-qp", self.out, "--out", bad, *given)
        self.assertRegex(r.stderr, "worse than its start.*kept: its start")
        self.assertEqual(files_of(bad), files_of(self.out))
        garbage = os.path.join(self.tmp, "garbage")
        self.ok("e2e-qp", self.out, "--out", garbage, *given, "--keep", "last")
        self.assertNotEqual(files_of(garbage), files_of(self.out))
        blind = [*E2E, "--keep", "best"]
        self.refused(
            "e2e-qp",
            self.out,
            "--out",
            bad + "2",
            "--data",
            self.train,
            *blind,
            says=["keep: found best"],
        )

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
        text = self.ok("quantize", "--recipe", "paper", "--help").stdout
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

    def test_record_of_a_run(self):
        packed, trained = (os.path.join(self.tmp, n) for n in "ab")
        given = ["--calib", self.train, *FEW, "--seed", 5, "--rule", "*.down_proj=4,16"]
        self.quantize(packed, *given, "--skip", "*.layers.1.mlp.up_proj")
        self.ok(
            "e2e-qp", packed, "--out", trained, "--data", self.valid, *E2E, "--e2e-train-size", 8
        )
        config = json.load(open(os.path.join(trained, "eqat_config.json")))
        run, second = config["runs"]
        self.assertRegex(run.pop("identity"), "^[0-9a-f]{64}$")
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
            self.assertEqual(sum(e["event"] == "step" for e in events_of(log)), (level + 1) * 2 * 4)

    def test_log_file_that_cannot_be_written(self):
        r = eqat("inspect", self.model, "--log-file", "/dev/full", "--log-level", 0)
        self.assertEqual(
            (r.returncode, r.stderr), (1, "eqat: /dev/full: cannot write the log file\n")
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
