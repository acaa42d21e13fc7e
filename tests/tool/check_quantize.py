"""Quantize, train and evaluate: results, and what they depend on."""

import json, os, re, shutil, signal, subprocess, sys, time, unittest

from case import (
    Case,
    BLOCK_AP,
    DATA,
    E2E,
    EQAT,
    FEW,
    eqat,
    files_of,
    linears_of,
    log_of,
    nibbles_of,
)


class Quantize(Case):
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
        """Of one text Block-AP takes 24 windows of 64 tokens, and E2E-QP begins behind them."""
        copy = os.path.join(self.tmp, "copy" + os.path.splitext(self.train)[1])
        shutil.copyfile(self.train, copy)
        both, blocks, apart = (os.path.join(self.tmp, n) for n in ("both", "blocks", "apart"))
        self.quantize(blocks, "--calib", self.train, *FEW)
        e2e = [*E2E, "--e2e-train-size", 16]
        drawn = ["--sampling", "consecutive", "--shuffle", "off"]
        for text, skipped, held in (self.train, 24 * 64, 16 * 64), (copy, 0, 0):
            self.quantize(both, "--calib", self.train, "--e2e", text, *FEW, *e2e, "--force")
            skip = ["--skip-tokens", skipped, "--held-tokens", held, "--force"]
            self.ok("e2e-qp", blocks, "--out", apart, "--data", self.train, *drawn, *e2e, *skip)
            self.assertEqual(files_of(both), files_of(apart))

    def test_a_phase_that_changes_nothing_says_so(self):
        packed = os.path.join(self.tmp, "packed")
        self.quantize(packed, "--method", "rtn")
        z = ["--data", self.train, *E2E, "--e2e-train-size", 64, "--e2e-params", "z", "--e2e-lr"]
        for rate, still in ((2e-5, True), (0.5, False)):
            r = self.ok("e2e-qp", packed, "--out", self.out, *z, rate, "--force")
            self.assertEqual("has changed none of" in r.stderr, still, r.stderr)
            self.assertEqual(files_of(packed) == files_of(self.out), still)

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

    def test_recipes(self):
        """What is given besides comes after a recipe, wherever it stands; the record has all."""
        few = ["--calib", self.train, *FEW[2:], "--method", "efficientqat", "--e2e-train-size", 4]
        few += ["--e2e-seq-len", 64, "--e2e-lr-unit", "absolute"]
        self.quantize(self.out, *few)
        run = log_of(self.out)[0]
        self.assertEqual((run["recipe"], run["teacher"]), ("best", self.model))
        options = run["options"]
        self.assertEqual(options["quantizer"]["init"], "descent")
        self.assertEqual(options["block_ap"]["lr_unit"], "relative")
        self.assertEqual(options["e2e_qp"]["lr_unit"], "absolute")
        self.assertIs(options["e2e_qp"]["train_norms"], True)
        own = os.path.join(self.tmp, "own")
        self.quantize(own, "--recipe=best", *few, "--teacher", "none")
        self.assertNotIn("teacher", log_of(own)[0])
        paper = os.path.join(self.tmp, "paper")
        self.quantize(paper, *few, "--recipe", "paper")
        run = log_of(paper)[0]
        self.assertEqual((run["recipe"], run["options"]["block_ap"]["decay_ratio"]), ("paper", 1))
        self.assertNotIn("teacher", run)
        quantize = ["quantize", self.model, "--out", self.tmp + "/no", "--calib", self.train]
        says = ['--recipe: found "worst", expected paper or best']
        self.refused(*quantize, "--recipe", "worst", code=2, says=says)
        self.refused(*quantize, "--method", "x", code=2, says=["rtn, block-ap or efficientqat"])

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

    def test_warning_of_a_context_longer_than_trained_for(self):
        with open(os.path.join(self.model, "config.json")) as f:
            most = json.load(f)["max_position_embeddings"]
        for length, warned in ((most, False), (most + 1, True)):
            r = self.ok(
                "eval", self.model, "--text", self.train, "--seq-len", length, "--max-windows", 1
            )
            self.assertEqual(f"trained for at most {most}" in r.stderr, warned)

    def test_bits_by_sensitivity(self):
        few = ["--group-size", 32, "--calib", self.train, *FEW[2:], "--bits-per-weight"]
        self.quantize(self.out, *few, 3.1)
        run, saved, judged = (
            next(e for e in log_of(self.out) if e["event"] == k) for k in ("run", "saved", "judged")
        )
        self.assertEqual(run["options"]["allocate"]["bits_per_weight"], 3.1)
        self.assertTrue(2.8 < saved["bits_per_linear_parameter"] <= 3.1)
        self.assertLess(judged["result"], judged["rtn"])
        # Judged by another run, as when one was ended before it had.
        log = os.path.join(self.out, "eqat_log.jsonl")
        lines = [line for line in open(log) if '"judged"' not in line]
        open(log, "w").writelines(lines)
        self.quantize(self.out, *few, 3.1)
        again = log_of(self.out)[-1]
        self.assertEqual([again[k] for k in ("event", "rtn")], ["judged", judged["rtn"]])
        rule = ["--rule", "*.down_proj=4"]
        r = eqat("quantize", self.model, "--out", self.out + "x", *few, 3, *rule)
        self.assertEqual(r.returncode, 2)
        self.assertIn('--rule: found "*.down_proj=4" with --bits-per-weight', r.stderr)
        r = eqat("quantize", self.model, "--out", self.out + "x", *few, 2.5)
        self.assertEqual(r.returncode, 1)
        self.assertIn("bits_per_weight: found 2.5, expected at least 2.563", r.stderr)
        r = eqat("quantize", self.model, "--out", self.out + "x", *few, 3, "--format", "awq")
        self.assertIn("expected 4", r.stderr)
        r = eqat("quantize", self.model, "--out", self.out, *few, 3, "--bits", 3)
        self.assertEqual(r.returncode, 2, r.stderr)
        self.assertIn("--bits: found 3 with --bits-per-weight", r.stderr)
        rtn = ["--method", "rtn", "--bits-per-weight", 3]
        self.assertEqual(eqat("quantize", self.model, "--out", self.out, *rtn).returncode, 2)

    def test_e2e_that_is_measured_first(self):
        self.quantize(self.out, "--method", "rtn", "--group-size", 32)
        many = ["--train-size", 256, "--val-size", 4, "--seq-len", 16, "--teacher", "none"]
        for i, options in enumerate((["--keep", "best"], ["--validate-steps", 100])):
            out = f"{self.out}{i}"
            r = eqat("e2e-qp", self.out, "--out", out, "--data", self.train, *many, *options)
            self.assertEqual(r.returncode, 0, r.stderr)
            needs = [e for e in log_of(out) if e["event"] == "need"]
            self.assertGreater(needs[-1]["seconds"], 0)

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

    def test_the_result_of_block_ap_outlives_e2e(self):
        stage, alone = self.out + ".block-ap", os.path.join(self.tmp, "alone")
        once = [*E2E, "--e2e-train-size", 64]
        taught = ["--teacher", self.model]
        self.quantize(alone, "--calib", self.train, *FEW)
        p = subprocess.Popen(
            [EQAT, "quantize", self.model, "--out", self.out, "--group-size", "32"]
            + ["--calib", self.train, "--e2e", self.train, *FEW, *E2E]
            + [*taught, "--e2e-epochs", "1000"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in p.stderr:
            if "e2e-qp: step" in line:
                break
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130, err)
        told = re.search(rf"{stage} holds the result of Block-AP; eqat (.*) goes on from it", err)
        self.assertTrue(told, err)
        self.assertEqual(sorted(os.listdir(self.tmp)), ["alone", "out.block-ap"])
        self.assertEqual(files_of(stage), files_of(alone))
        self.assertEqual(log_of(stage)[-1]["event"], "saved")
        whole = os.path.join(self.tmp, "whole")
        self.quantize(whole, "--calib", self.train, "--e2e", self.train, *FEW, *once, *taught)
        self.assertNotEqual(files_of(whole), files_of(stage))
        sampling = ["--sampling", "consecutive", "--shuffle", "off"]
        self.ok(*told.group(1).split(), *once[2:], *sampling, "--e2e-val-size", 0)
        self.assertEqual(files_of(self.out), files_of(whole))

    def test_nothing_of_block_ap_stays_when_both_are_done(self):
        few = ["--calib", self.train, "--e2e", self.train, *FEW, *E2E, "--e2e-train-size", 8]
        self.quantize(self.out + "/", *few)
        self.assertEqual(os.listdir(self.tmp), ["out"])
        self.assertEqual(
            [e["path"] for e in log_of(self.out) if e["event"] == "saved"][-1:], [self.out + "/"]
        )


if __name__ == "__main__":
    unittest.main(verbosity=2)
