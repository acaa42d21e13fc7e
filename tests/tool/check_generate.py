"""eqat generate: the likeliest continuation, and drawn ones."""

import json, os, subprocess, unittest

from case import EQAT, Case, eqat

PROMPT = "(8<A+"  # a name of the grammar, and words behind it


class Generate(Case):
    def generate(self, model, prompt, tokens, *more):
        flags = ["--prompt", prompt, "--tokens", tokens, "--compute-dtype", "f32", "--json", *more]
        return json.loads(self.ok("generate", model, *flags).stdout)

    def test_it_continues_and_the_way_does_not_matter(self):
        model = self.with_tokenizer()
        made = self.generate(model, PROMPT, 40)
        self.assertEqual((made["prompt"], made["prompt_tokens"]), (PROMPT, 5))
        self.assertEqual((made["tokens"], len(made["ids"])), (40, 40))
        self.assertGreater(len(set(made["ids"])), 5)
        # A pass over all that stands before it gives every later token, too.
        for at in (1, 7, 30):
            again = self.generate(model, PROMPT + made["text"][:at], 40 - at)
            self.assertEqual(again["ids"], made["ids"][at:])
        self.assertEqual(self.generate(model, PROMPT, 3)["ids"], made["ids"][:3])
        flags = ["generate", model, "--tokens", 40, "--compute-dtype", "f32", "--prompt"]
        whole = (PROMPT + made["text"] + "\n").encode()
        r = subprocess.run([EQAT, *map(str, flags), PROMPT], capture_output=True)
        self.assertEqual((r.returncode, r.stdout), (0, whole))
        self.assertIn(b"5 tokens of prompt", r.stderr)
        flags += ["-", "--log-level", 0]
        r = subprocess.run([EQAT, *map(str, flags)], input=PROMPT.encode(), capture_output=True)
        self.assertEqual((r.stdout, r.stderr), (whole, b""))

    def test_draws_follow_from_the_seed(self):
        model = self.with_tokenizer()
        flags = "--temperature 5 --seed".split()
        drawn = [self.generate(model, PROMPT, 30, *flags, seed)["ids"] for seed in (1, 1, 2)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])
        likeliest = self.generate(model, PROMPT, 30)["ids"]
        self.assertNotEqual(drawn[0], likeliest)
        for narrow in ("--top-k=1", "--top-p=0"):
            self.assertEqual(self.generate(model, PROMPT, 30, *flags, 1, narrow)["ids"], likeliest)

    def test_a_quantized_model_continues(self):
        model = self.with_tokenizer()
        self.ok("quantize", model, "--out", self.out, "--method", "rtn", *"--bits 4".split())
        self.assertEqual(self.generate(self.out, PROMPT, 9)["tokens"], 9)

    def test_it_ends_where_the_model_ends(self):
        model = self.with_tokenizer()
        whole = self.generate(model, PROMPT, 20)
        last = next(i for i in whole["ids"][3:] if i < 94)  # which the vocabulary writes as it is
        first = whole["ids"].index(last)
        self.assertGreater(first, 0)
        with open(os.path.join(model, "tokenizer_config.json"), "w") as f:
            json.dump({"eos_token": chr(33 + last)}, f)
        made = self.generate(model, PROMPT, 20)
        self.assertEqual(made["ids"], whole["ids"][:first])
        log = os.path.join(self.tmp, "log")
        self.generate(model, PROMPT, 20, "--log-file", log)
        events = {e["event"]: e for e in map(json.loads, open(log))}
        self.assertEqual(events["generate"]["tokens"], first)

    def test_it_stays_within_the_positions_of_the_model(self):
        model = self.with_tokenizer()
        config = os.path.join(model, "config.json")
        edited = json.load(open(config))
        edited["max_position_embeddings"] = 12
        json.dump(edited, open(config, "w"))
        r = eqat("generate", model, "--prompt", PROMPT, "--tokens", 9, "--json")
        self.assertEqual(json.loads(r.stdout)["tokens"], 8)
        self.assertIn("found 9 behind a prompt of 5, the model has 12 positions", r.stderr)
        self.refused(
            *("generate", model, "--prompt", "a" * 13),
            says=["found 13 tokens, expected at most the model's 12 positions"],
        )

    def test_what_is_refused(self):
        model = self.with_tokenizer()
        for tokens in ("0", "-1", "x", "", "3.5", "99999999999"):
            said = [f'--tokens: found "{tokens}", expected a number from 1']
            flags = ["--prompt", "a", f"--tokens={tokens}"]
            self.refused("generate", model, *flags, code=2, says=said)
        self.refused("generate", model, code=2, says=["expected a MODEL and --prompt TEXT"])
        self.refused("generate", "--prompt", "a", code=2, says=["expected a MODEL"])
        self.refused("generate", model, "--prompt=", says=["--prompt: found no token"])
        self.refused("generate", self.model, "--prompt", "a", says=["found no tokenizer"])
        self.refused("generate", self.tmp, "--prompt", "a", says=["config.json"])


if __name__ == "__main__":
    unittest.main()
