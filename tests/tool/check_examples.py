"""The drivers of examples/, as their comments say, one on the output of the other."""

import os, re, shutil, subprocess, tempfile, unittest

EQAT, TRAIN_TINY, BLOCK_AP_LOSS, E2E_KL = (
    os.environ[n] for n in ("EQAT_TOOL", "EQAT_TRAIN_TINY", "EQAT_BLOCK_AP_LOSS", "EQAT_E2E_KL")
)


def run(*args):
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout


def losses(lines):
    return [float(x) for x in re.findall(r"loss (\S+)", lines)]


def mean(values):
    return sum(values) / len(values)


class Examples(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="eqat-examples-")
        self.addCleanup(shutil.rmtree, self.dir)

    def inside(self, name):
        return os.path.join(self.dir, name)

    def test_losses_fall(self):
        run(TRAIN_TINY, self.dir)
        model, tokens, w2, kl = map(self.inside, ("model", "train.u16", "w2", "kl"))
        lines = run(BLOCK_AP_LOSS, model, tokens, w2)
        for block in (0, 1):
            errors = losses("\n".join(re.findall(rf"block {block}: .*", lines)))
            self.assertEqual(len(errors), 32)  # 2 epochs, 16 steps
            self.assertLess(mean(errors[-8:]), 0.9 * mean(errors[:8]))
        divergences = losses(run(E2E_KL, model, w2, tokens, kl))
        self.assertLess(mean(divergences[-8:]), 0.9 * mean(divergences[:8]))
        for folder in (w2, kl):
            self.assertIn("2", run(EQAT, "inspect", folder))


if __name__ == "__main__":
    unittest.main()
