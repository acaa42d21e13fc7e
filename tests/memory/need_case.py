"""A random model and tokens in a folder, and what a run of the tool told and took."""

import json
import os
import tempfile
import unittest

import check_memory as models


class NeedCase(unittest.TestCase):
    LAYERS, VOCAB, SAMPLES = 2, 2048, 16

    @classmethod
    def write_model(cls):
        models.write_model(cls.model, cls.LAYERS, cls.VOCAB)

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="eqat-need-")
        cls.model, cls.tokens = (os.path.join(cls.folder.name, n) for n in ("model", "t.u32"))
        cls.write_model()
        models.write_tokens(cls.tokens, cls.SAMPLES, cls.VOCAB)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def told_and_taken(self, out):
        """The events `need` and `saved` of the log in a folder."""
        with open(os.path.join(out, "eqat_log.jsonl")) as f:
            events = [json.loads(line) for line in f]
        return ([e for e in events if e["event"] == k][-1] for k in ("need", "saved"))
