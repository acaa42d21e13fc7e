"""What the tool says that a run needs, against what it takes: peak memory within 15%, and the bytes
of the saved folder within 10%. A refusal names the option that helps."""

import json, os, subprocess, sys, unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "memory"))
import check_memory as models
from need_case import NeedCase

EQAT = os.environ["EQAT_TOOL"]
models.HIDDEN, models.INTERMEDIATE, models.HEADS, models.KV_HEADS = 1024, 2816, 16, 4
models.TIME = TIME = 256
EXPERTS, EXPERT, TOGETHER = 16, 512, 8  # in a block, their width, of a token
BLOCK_AP = ["--seq-len", TIME, "--val-size", 0, "--epochs", 1, "--sampling", "consecutive"]


def eqat(*args):
    return subprocess.run([EQAT, *map(str, args)], capture_output=True, text=True)


def sparse(layers, vocab):
    """What models.shapes names, with experts in place of every MLP."""
    for name, shape in models.shapes(layers, vocab):
        block, mlp, linear = name.partition(".mlp.")
        if not mlp:
            yield name, shape
            continue
        narrow = [n if n == models.HIDDEN else EXPERT for n in shape]
        for e in range(EXPERTS):
            yield f"{block}.mlp.experts.{e}.{linear}", narrow
        if linear.startswith("gate"):
            yield block + ".mlp.gate.weight", (EXPERTS, models.HIDDEN)
            for norm in ("q_norm", "k_norm"):
                yield f"{block}.self_attn.{norm}.weight", (models.HEAD_DIM,)


class Held(NeedCase):
    def held(self, what, out, *args):
        r = eqat(*args, "--out", out)
        self.assertEqual(r.returncode, 0, r.stderr)
        need, saved = self.told_and_taken(out)
        told, peak = need["memory_bytes"], saved["peak_rss_bytes"]
        print(f"{what}: told {told / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB", file=sys.stderr)
        self.assertAlmostEqual(told / peak, 1, delta=0.15, msg=what)
        self.assertAlmostEqual(need["out_bytes"] / saved["bytes"], 1, delta=0.1, msg=what)
        return need

    def path(self, name):
        return os.path.join(self.folder.name, name)


class Need(Held):
    VOCAB, SAMPLES = 16384, 64

    def test_memory_and_disk(self):
        quantize = ["quantize", self.model, "--group-size", 64]
        few = ["--calib", self.tokens, *BLOCK_AP, "--train-size"]
        self.held("RTN", self.path("rtn"), *quantize, "--method", "rtn", "--bits", 4)
        self.held("4 samples", self.path("a"), *quantize, *few, 4)
        few = ["--recipe", "paper", *few]  # sooner, without second moments
        self.held("batches of 8", self.path("b"), *quantize, *few, 8, "--batch-size", 8)
        self.held("f32", self.path("c"), *quantize, *few, 4, "--compute-dtype", "f32")
        n = self.held("files", self.path("d"), *quantize, *few, 12, "--offload-dir", self.path("."))
        streams = 2 * 12 * TIME * models.HIDDEN * 2
        self.assertEqual(n["disk_bytes"], streams)
        few = [*few, 12, "--offload-dir", self.path("."), "--offload-memory", streams // 3]
        m = self.held("files and memory", self.path("m"), *quantize, *few)
        self.assertEqual(m["disk_bytes"], streams - streams // 3)
        self.assertAlmostEqual(m["memory_bytes"] - n["memory_bytes"], streams / 3, delta=2e6)
        for options in ([], ["--keep-activations", "on"]):
            e2e = ["e2e-qp", self.path("rtn"), "--data", self.tokens, "--seq-len", TIME]
            few = ["--train-size", 4, "--batch-size", 4, "--micro-batch-size", 4, *options]
            self.held("E2E-QP", self.path(f"e{len(options)}"), *e2e, *few)

    def test_the_best_state(self):
        best = ["--recipe", "paper", "--calib", self.tokens, *BLOCK_AP, "--train-size", 4]
        best += ["--epochs", 2, "--val-size", 4, "--keep", "best", "--weight-lr", 1e-5]
        best += ["--group-size", 64]
        self.held("the best state", self.path("k"), "quantize", self.model, *best)

    def test_blocks_that_are_not_alike(self):
        """The one that is not quantized comes first, and stays F32."""
        few = ["--calib", self.tokens, *BLOCK_AP, "--train-size", 4, "--group-size", -1]
        few += ["--skip", "*.layers.0.*"]
        self.held("all but a block", self.path("s"), "quantize", self.model, *few)

    def refused(self, says, *args):
        out = self.path("refused")
        r = eqat("quantize", self.model, "--out", out, "--calib", self.tokens, *args)
        self.assertEqual(r.returncode, 1, r.stderr)
        line = r.stderr.splitlines()[-1]
        for text in says:
            self.assertIn(text, line)
        self.assertNotIn("step", r.stderr)
        self.assertFalse(os.path.exists(out))

    def test_too_much_is_refused(self):
        many = ["--seq-len", TIME, "--train-size", 10**9, "--val-size", 0]
        self.refused(["memory: needs", "--offload-dir", "--train-size"], *many)
        many += ["--offload-dir", "."]
        self.refused([".: needs", "--train-size"], *many)
        self.refused(["memory: needs", "--offload-memory"], *many, "--offload-memory", 10**14)


class Experts(Held):
    VOCAB, SAMPLES = 2048, 256

    @classmethod
    def write_model(cls):
        config = dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"])
        config.update(num_experts=EXPERTS, num_experts_per_tok=TOGETHER, rope_scaling=None)
        config["moe_intermediate_size"] = EXPERT
        models.write_model(cls.model, cls.LAYERS, cls.VOCAB, sparse, **config)

    def test_stages(self):
        """Enough steps for a measurement, which must not take a block as a whole either."""
        few = ["--recipe", "paper", *BLOCK_AP, "--seq-len", 16, "--train-size", 13]
        few = ["--group-size", 64, "--calib", self.tokens, *few, "--batch-size", 1]
        few += ["--experts-at-a-time", 2]
        need = self.held("stages", self.path("a"), "quantize", self.model, *few)
        self.assertGreater(need["seconds"], 0)
        shown = json.loads(eqat("inspect", self.model, "--json").stdout)
        self.assertEqual(shown["experts_per_token"], TOGETHER)

    def test_activations(self):
        few = ["--recipe", "paper", *BLOCK_AP, "--train-size", 8, "--batch-size", 8]
        few = ["--group-size", 64, "--calib", self.tokens, *few]
        self.held("experts, batches of 8", self.path("b"), "quantize", self.model, *few)
        few = ["--seq-len", TIME, "--train-size", 4, "--batch-size", 4, "--micro-batch-size", 4]
        for more in ([], ["--keep-activations", "on"]):
            e2e = ["e2e-qp", self.path("b"), "--data", self.tokens, *few, *more]
            self.held("experts, E2E-QP", self.path(f"e{len(more)}"), *e2e)


if __name__ == "__main__":
    unittest.main(verbosity=2)
