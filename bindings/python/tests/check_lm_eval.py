"""eqat inside lm-evaluation-harness, held against the harness's own Hugging Face model.

    check_lm_eval.py                          a tiny random model, requests made here
    check_lm_eval.py MODEL FOLDER [--limit N] [--shots N] [--store STORE]
                                              a full-precision Hugging Face folder on the tasks that
                                              FOLDER has as TASK.SPLIT.jsonl: equal accuracies,
                                              log-likelihoods within 1e-3; every result is kept in
                                              the folder STORE as it comes, and not computed again

Exit code 77: lm-eval or what it needs is missing.
"""

import argparse
import os
import pathlib
import random
import sys
import tempfile
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
here = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent / "src")]
try:
    import lm_eval
    import torch  # noqa: F401
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

import tiny

import eqat
from eqat.integrations.lm_eval import EqatLM, local_tasks


def both(folder, **keywords):
    ours = EqatLM(str(folder), compute_dtype="f32", **keywords)
    # PyTorch's float32 log_softmax is off by some 8e-6 a token, always upwards: 9e-4 in an answer
    # of 110 tokens, ten times what the two models differ by.
    theirs = HFLM(
        pretrained=str(folder),
        dtype="float32",
        softmax_dtype="float64",
        device="cpu",
        **keywords,
    )
    return ours, theirs


def requests(kind, *arguments):
    return [Instance(kind, {}, a, i) for i, a in enumerate(arguments)]


def tiny_folder(path):
    folder = tiny.write(path)
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>",'
        ' "bos_token": "<|end|>", "pad_token": "<|end|>"}'
    )
    return folder


def words(rng, count):
    return " ".join(
        rng.choice("the cat sat on a mat and ran to the sea".split()) for _ in range(count)
    )


def check_loglikelihood(ours, theirs, rng):
    pairs = [(words(rng, 1 + i % 40), " " + words(rng, 1 + i % 3)) for i in range(30)]
    pairs += [("", "alone"), ("two spaces  ", "after"), (words(rng, 90), " too long")]
    got, want = (lm.loglikelihood(requests("loglikelihood", *pairs)) for lm in (ours, theirs))
    for pair, (a, greedy_a), (b, greedy_b) in zip(pairs, got, want):
        assert abs(a - b) < 1e-3 and greedy_a == greedy_b, (pair, a, b, greedy_a, greedy_b)
    assert len({round(a) for a, _ in got}) > 5


def check_shared_prefixes(ours, theirs, rng):
    """As few-shot tasks are: texts that begin with the same 55 words and go on by a question of
    which some have several answers; another such kind, and texts of their own."""
    pairs = [("alone", " then"), (words(rng, 20), " the cat")]
    for _ in range(2):
        shots = words(rng, 55)
        for i in range(4):
            question = shots + " " + words(rng, 3 + i)
            pairs += [(question, " " + words(rng, 1 + i)), (question, " " + words(rng, 2))]
    asked = requests("loglikelihood", *pairs)
    fed, feed = [], eqat.Generation.feed
    with mock.patch.object(
        eqat.Generation, "feed", lambda g, ids, n: fed.append(len(ids)) or feed(g, ids, n)
    ):
        got = ours.loglikelihood(asked)
    assert sorted(fed)[-2] > 200 and sorted(fed)[-3] < 30 and len(fed) == 16, fed
    ours.share_prefixes = False
    want = ours.loglikelihood(asked)
    ours.share_prefixes = True
    for others in (want, theirs.loglikelihood(asked)):
        for pair, (a, greedy_a), (b, greedy_b) in zip(pairs, got, others):
            assert abs(a - b) < 1e-3 and greedy_a == greedy_b, (pair, a, b, greedy_a, greedy_b)


def check_rolling(ours, theirs, rng):
    texts = [(words(rng, n),) for n in (1, 20, 150)]  # the last is several windows
    got, want = (
        lm.loglikelihood_rolling(requests("loglikelihood_rolling", *texts)) for lm in (ours, theirs)
    )
    for text, a, b in zip(texts, got, want):
        assert abs(a - b) < 1e-3 * max(1, abs(b) / 100), (text, a, b)


def check_generation(ours, theirs, rng):
    settings = {"until": ["q"], "max_gen_toks": 24, "do_sample": False}
    asked = [(words(rng, 1 + 7 * i), settings) for i in range(5)] + [
        (words(rng, 3), {"until": [], "max_gen_toks": 7})
    ]
    got, want = (lm.generate_until(requests("generate_until", *asked)) for lm in (ours, theirs))
    assert got == want, (got, want)
    assert all(got)


def check_tiny():
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = both(tiny_folder(os.path.join(scratch, "model")), batch_size=4)
        assert ours.max_length == theirs.max_length == 256
        for check in (
            check_loglikelihood,
            check_shared_prefixes,
            check_rolling,
            check_generation,
        ):
            check(ours, theirs, rng)
            print("ok", check.__name__)


def accuracies(results):
    return {
        task: {k: v for k, v in row.items() if k.startswith("acc") and "stderr" not in k}
        for task, row in results["results"].items()
    }


def scores(results):
    return {
        task: [[float(score) for score, _ in sample["filtered_resps"]] for sample in samples]
        for task, samples in results["samples"].items()
    }


def check_tasks(model, folder, limit, shots, store):
    with tempfile.TemporaryDirectory() as out:
        names = local_tasks(folder, out)
        manager = TaskManager(include_path=out)
        ours, theirs = (
            lm_eval.simple_evaluate(
                model=lm,
                tasks=names,
                task_manager=manager,
                limit=limit,
                num_fewshot=shots,
                log_samples=True,
                use_cache=store and os.path.join(store, side),
            )
            for side, lm in zip(("eqat", "hf"), both(model, batch_size=8))
        )
    got, want = scores(ours), scores(theirs)
    differences = [
        abs(a - b)
        for task in names
        for row, other in zip(got[task], want[task])
        for a, b in zip(row, other)
    ]
    worst = max(differences)
    print("eqat", accuracies(ours))
    print("hf  ", accuracies(theirs))
    print(f"largest difference of {len(differences)} log-likelihoods: {worst:.2e}")
    assert accuracies(ours) == accuracies(theirs) and worst < 1e-3


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--shots", type=int)
    parser.add_argument("--store")
    given = parser.parse_args()
    if given.folder:
        check_tasks(given.model, given.folder, given.limit, given.shots, given.store)
    else:
        check_tiny()
