"""lm-evaluation-harness on libeqat's models.

    python -m eqat.integrations.lm_eval --model eqat --model_args path=MODEL --tasks piqa

is the harness's own command with one model more; in a program, importing this module registers
"eqat" with the harness, and EqatLM is the class.  MODEL is whatever eqat.open takes: a Hugging Face
folder, full precision or quantized, or a GGUF file.
"""

import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

import numpy as np
import yaml
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from tqdm import tqdm

import eqat

Row = tuple[list[int], int]  # ids, and how many of the last positions are asked for
Chain = list[tuple[int, int]]  # indices of rows, and how many tokens each has from the one before

# A shared beginning of fewer tokens saves less than rows one by one cost.
SHARED_AT_LEAST = 128


def _common(a: list[int], b: list[int]) -> int:
    """Tokens with which both begin."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _chains(rows: Sequence[Row]) -> list[Chain]:
    """All rows, in chains: each but a chain's first has at least half of its tokens from the one
    before it, and those asked for are not among them."""
    chains: list[Chain] = []
    before: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: rows[i][0]):
        ids, last = rows[i]
        kept = min(_common(before, ids), len(ids) - last)
        if kept >= max(SHARED_AT_LEAST, len(ids) / 2):
            chains[-1].append((i, kept))
        else:
            chains.append([(i, 0)])
        before = ids
    return chains


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@register_model("eqat")
class EqatLM(TemplateLM):
    """path: what eqat.open takes.  max_length: of context and continuation together, at most what
    the model was trained for (the default).  add_bos_token: whether texts begin as the tokenizer's
    rule says; the default leaves that to the rule.  share_prefixes: what several texts begin with
    (the examples of few-shot tasks) is computed once, for which the model's weights stay in memory;
    False takes one block into memory at a time.  Other arguments are eqat.open's
    (compute_dtype=f32, threads=4, ...)."""

    def __init__(
        self,
        path: str,
        *,
        batch_size: Union[int, str, None] = None,
        max_length: Optional[int] = None,
        max_gen_toks: int = 256,
        add_bos_token: bool = True,
        prefix_token_id: Optional[int] = None,
        share_prefixes: bool = True,
        device: Optional[str] = None,
        max_batch_size: Optional[int] = None,
        trust_remote_code: Optional[bool] = None,
        **keywords: Any,
    ):
        super().__init__()
        del max_batch_size, trust_remote_code  # the harness gives them to every model
        if device is not None:
            keywords["device"] = device
        self.model = eqat.open(path, **keywords)
        self.path = str(path)
        tokens = self.model.tokenizer
        if tokens is None:
            raise eqat.NotFound(f"{path}: found no tokenizer, expected one beside the model")
        self.tokens = tokens
        trained = int(self.model.info.max_positions)
        self.max_length = trained if max_length is None else int(max_length)
        self.max_gen_toks = int(max_gen_toks)
        self.add_bos_token = add_bos_token
        self._prefix = prefix_token_id
        self.share_prefixes = share_prefixes
        self.batch_size = 8 if batch_size in (None, "auto") else int(str(batch_size))
        self._tape = eqat.Tape(self.model.context)
        self._tape.set_recording(False)

    # ---- text ----

    @property
    def eot_token_id(self) -> int:
        if self.tokens.eos is None:
            raise eqat.NotFound(f"{self.path}: found no end-of-text token in its tokenizer")
        return self.tokens.eos

    @property
    def prefix_token_id(self) -> int:
        if self._prefix is not None:
            return int(self._prefix)
        return self.eot_token_id if self.tokens.bos is None else self.tokens.bos

    @property
    def tokenizer_name(self) -> str:
        return self.path.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: Optional[bool] = None, **_: Any
    ) -> list[int]:
        special = self.add_bos_token if add_special_tokens is None else add_special_tokens
        if add_special_tokens is None and string.startswith(self._text(self.prefix_token_id)):
            special = False  # it is there already
        return self.tokens.encode(string, add_special=special).tolist()

    def _text(self, id: int) -> str:
        return self.tokens.decode([id])

    # ---- passes ----

    def _logits(self, rows: Sequence[list[int]], last: int) -> np.ndarray:
        """Logits [B, last, V] of the last positions.  Shorter rows are padded in front, in a
        segment of its own, so that every row ends at the end."""
        time = max(map(len, rows))
        ids, positions = (np.zeros((len(rows), time), np.int32) for _ in range(2))
        segments = np.ones((len(rows), time), np.int32)
        for i, row in enumerate(rows):
            ids[i, time - len(row) :] = row
            positions[i, time - len(row) :] = np.arange(len(row))
            segments[i, time - len(row) :] = 0
        batch = eqat.Batch(ids, positions=positions, segments=segments, keep_activations=True)
        x = self.model.embed(self._tape, batch)
        for block in range(self.model.info.blocks):
            x = self.model.block(self._tape, block, x, batch)
        return self.model.logits(self._tape, x, last).numpy()

    def _passes(self, rows: Sequence[Row], title: str, quiet: bool) -> Iterator[tuple[list, Any]]:
        """Indices of rows with their logits, every row once."""
        chains = _chains(rows) if self.share_prefixes else [[(i, 0)] for i in range(len(rows))]
        alone = [chain[0][0] for chain in chains if len(chain) == 1]
        with tqdm(total=len(rows), desc=title, disable=quiet) as bar:
            for work in (
                self._batches(rows, alone),
                self._shared(rows, [chain for chain in chains if len(chain) > 1]),
            ):
                for chosen, logits in work:
                    yield chosen, logits
                    bar.update(len(chosen))

    def _batches(self, rows: Sequence[Row], indices: list[int]) -> Iterator[tuple[list, Any]]:
        """By rows of about equal length, longest first."""
        order = sorted(indices, key=lambda i: (-len(rows[i][0]), rows[i][0]))
        for at in range(0, len(order), self.batch_size):
            chosen = order[at : at + self.batch_size]
            last = max(rows[i][1] for i in chosen)
            yield chosen, self._logits([rows[i][0] for i in chosen], last)

    def _shared(self, rows: Sequence[Row], chains: list[Chain]) -> Iterator[tuple[list, Any]]:
        """One by one, without the tokens that are there from the row before."""
        if chains:
            with eqat.Generation(self.model) as generation:
                for i, kept in (link for chain in chains for link in chain):
                    ids, last = rows[i]
                    generation.rewind(kept)
                    yield [i], generation.feed(ids[kept:], last).numpy()

    # ---- log-likelihoods ----

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        # Answers of one token share their row: the context without it.
        asked: dict[tuple[int, ...], list[int]] = {}
        for i, (_texts, context, continuation) in enumerate(requests):
            if not continuation or len(continuation) > self.max_length:
                raise ValueError(
                    f"continuation: found {len(continuation)} tokens, expected 1 to "
                    f"{self.max_length}"
                )
            ids = (list(context) + list(continuation))[-(self.max_length + 1) :][:-1]
            asked.setdefault(tuple(ids), []).append(i)
        rows = [(list(ids), max(len(requests[i][2]) for i in by)) for ids, by in asked.items()]
        owners = list(asked.values())
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for chosen, logits in self._passes(rows, "Log-likelihoods", disable_tqdm):
            for i, row in ((i, row) for k, row in zip(chosen, logits) for i in owners[k]):
                texts, _context, continuation = requests[i]
                scores = _log_softmax(row[-len(continuation) :])
                each = scores[np.arange(len(continuation)), continuation]
                greedy = bool((scores.argmax(-1) == continuation).all())
                found[i] = float(each.sum()), greedy
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, found[i])
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        windows, owners = [], []
        for owner, (string,) in enumerate(request.args for request in requests):
            rolling = utils.get_rolling_token_windows(
                token_list=self.tok_encode(string),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for pair in map(utils.make_disjoint_window, rolling):
                windows.append((None, *pair))
                owners.append(owner)
        sums = np.zeros(len(requests))
        np.add.at(sums, owners, [p for p, _ in self._loglikelihood_tokens(windows, disable_tqdm)])
        return sums.tolist()

    # ---- text from a model ----

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        texts = []
        # One for all of them: the weights stay in memory as long.
        with eqat.Generation(self.model) as generation:
            for request in tqdm(requests, desc="Texts", disable=disable_tqdm):
                texts.append(self._continue(generation, *self._asked(*request.args)))
                self.cache_hook.add_partial("generate_until", request.args, texts[-1])
        return texts

    def _asked(self, context: str, given: dict) -> tuple[list[int], int, list[str]]:
        """Ids of the context, cut to leave room; tokens at most; stop sequences."""
        settings: dict = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        if settings.pop("do_sample", False) or settings.pop("temperature", 0.0):
            raise eqat.Unsupported(
                "generation: found sampling, expected greedy decoding (do_sample false)"
            )
        count = int(settings["max_gen_toks"])
        room = self.max_length - count
        if room < 1:
            raise ValueError(
                f"max_gen_toks: found {count}, expected less than max_length {self.max_length}"
            )
        until = handle_stop_sequences(settings["until"], eos=None)
        return self.tok_encode(context)[-room:] or [self.prefix_token_id], count, until

    def _continue(
        self, generation: eqat.Generation, ids: list[int], count: int, until: list[str]
    ) -> str:
        """The greedy continuation, up to its first stop sequence."""
        made: list[int] = []
        generation.rewind(0)
        while len(made) < count:
            logits = generation.feed(made[-1:] or ids)
            made.append(int(logits.numpy()[0, -1].argmax()))
            text = self.tokens.decode(made)
            if made[-1] == self.eot_token_id or any(s in text for s in until if s):
                break
        return self._finish(made, until)

    def _finish(self, ids: list[int], until: list[str]) -> str:
        if ids and ids[-1] == self.eot_token_id:
            ids = ids[:-1]
        return postprocess_generated_text(self.tokens.decode(ids, skip_special=True), until, None)


# ---- tasks from local files ----


class _Loader(yaml.SafeLoader):
    """Of what a definition says, with its functions left out."""


_Loader.add_multi_constructor("!function", lambda *_: None)


def _settings(path: str) -> dict[str, Any]:
    """A task definition together with those that it includes."""
    with open(path, encoding="utf-8") as f:
        own = yaml.load(f, _Loader)  # noqa: S506
    settings: dict[str, Any] = {}
    included = own.pop("include", None) or []
    for name in [included] if isinstance(included, str) else included:
        settings.update(_settings(os.path.join(os.path.dirname(path), name)))
    return {**settings, **own}


def local_tasks(folder: str, out: str) -> list[str]:
    """Task definitions for the harness's --include_path, written into the folder `out`, which read
    their data from local files in place of the hub.  `folder` holds TASK.SPLIT.jsonl, such as
    piqa.validation.jsonl or mmlu_anatomy.dev.jsonl beside mmlu_anatomy.test.jsonl, with the fields
    of the task's dataset; TASK is a name of the harness's.  Returns the names of the tasks, which
    end in _local."""
    from lm_eval.tasks import TaskManager

    split_keys = ("training_split", "validation_split", "test_split", "fewshot_split")
    files: dict[str, dict[str, str]] = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.jsonl"))):
        parts = os.path.basename(path).split(".")
        if len(parts) != 3:
            raise eqat.InvalidArgument(f"{path}: expected a name of the form TASK.SPLIT.jsonl")
        files.setdefault(parts[0], {})[parts[1]] = os.path.abspath(path)
    if not files:
        raise eqat.NotFound(f"{folder}: found no .jsonl file, expected TASK.SPLIT.jsonl")
    manager = TaskManager()
    os.makedirs(out, exist_ok=True)
    for task, splits in files.items():
        if task not in manager.task_index:
            raise eqat.NotFound(f"{folder}: {task}: the harness has no task of this name")
        harness = str(manager.task_index[task].yaml_path)
        given = _settings(harness)
        lines = {
            **{key: None for key in split_keys if key in given and given[key] not in splits},
            "include": harness,
            "task": f"{task}_local",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": splits},
        }
        with open(os.path.join(out, f"{task}_local.yaml"), "w", encoding="utf-8") as f:
            f.writelines(f"{key}: {json.dumps(value)}\n" for key, value in lines.items())
    return [f"{task}_local" for task in files]


def main() -> Any:
    from lm_eval.__main__ import cli_evaluate

    return cli_evaluate()


if __name__ == "__main__":
    # As a script this module has another name; the harness must see one class.
    from eqat.integrations import lm_eval as registered

    sys.exit(registered.main())
