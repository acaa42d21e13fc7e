"""Calibration data from everything it can be given as."""

import json

import numpy as np
import pytest
import tiny

import eqat

WINDOWS = dict(train_size=6, val_size=2, seq_len=16, sampling="consecutive")
WORDS = tiny.text(200)


def samples(data):
    return np.concatenate(
        [data.sample(i)["ids"] for i in range(data.train_size)]
        + [data.sample(i, validation=True)["ids"] for i in range(data.val_size)]
    )


@pytest.fixture
def stream(model):
    return model.tokenizer.encode(WORDS)


class Dataset:
    """As those of Hugging Face: indexed records, with a length."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __iter__(self):
        for i in range(len(self)):
            yield {name: column[i] for name, column in self.columns.items()}


def endless(pieces, read):
    while True:
        for piece in pieces:
            read.append(piece)
            yield piece


def test_streams(model, stream, tmp_path):
    halves = [WORDS[:300], WORDS[300:]]
    (tmp_path / "a.txt").write_text(WORDS)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": h}) + "\n" for h in halves))
    np.save(tmp_path / "a.npy", stream)
    read = []
    given = {
        "txt": tmp_path / "a.txt",
        "jsonl": str(tmp_path / "a.jsonl"),
        "npy": tmp_path / "a.npy",
        "strings": halves,
        "array": stream.astype(np.int64),
        "list": stream.tolist(),
        "generator": (half for half in halves),
        "endless": endless(halves, read),
        "dataset": Dataset(text=halves),
        "tokenized dataset": Dataset(input_ids=[stream[:300].tolist(), stream[300:].tolist()]),
    }
    for name, source in given.items():
        data = eqat.CalibrationData(source, model, **WINDOWS)
        assert (data.train_size, data.val_size, data.seq_len) == (6, 2, 16), name
        assert np.array_equal(samples(data), stream[:128]), name
        assert data.fields == ("ids",)
    assert len(read) == 2  # 320 tokens are enough: ten times the 2 * 16 of validation
    other = eqat.CalibrationData(Dataset(prose=halves), model, text_key="prose", **WINDOWS)
    assert np.array_equal(samples(other), stream[:128])


def test_rows(model):
    rows = np.arange(8 * 16).reshape(8, 16) % tiny.VOCAB
    data = eqat.CalibrationData(rows, model, val_size=2)
    assert (data.train_size, data.val_size, data.seq_len) == (6, 2, 16)
    assert np.array_equal(samples(data).reshape(8, 16), rows)
    labels = np.where(rows % 2, rows, -1)
    data = eqat.CalibrationData({"ids": rows, "labels": labels}, model)
    assert data.fields == ("ids", "labels")
    both = data.batch(2, 3, ("ids", "labels"))
    assert np.array_equal(both["ids"], rows[2:5]) and np.array_equal(both["labels"], labels[2:5])
    loss, count = model.loss(both)
    assert count.item() == (labels[2:5] >= 0).sum()


def test_embeddings_train(model):
    rng = np.random.default_rng(0)
    arrays = {
        "embeddings": rng.standard_normal((4, 8, tiny.HIDDEN)),
        "labels": rng.integers(0, tiny.VOCAB, (4, 8)),
    }
    report = model.evaluate(eqat.CalibrationData(arrays, model))
    assert report.tokens == 32


def test_records_of_a_function(model):
    def fill(validation, index):
        return {"ids": np.full(8, index + 100 * validation)}

    size = dict(train_size=3, val_size=2, seq_len=8)
    data = eqat.CalibrationData.from_records(fill, ["ids"], model, **size)
    assert data.sample(2)["ids"].tolist() == [2] * 8
    assert data.sample(1, validation=True)["ids"].tolist() == [101] * 8


def test_an_exception_in_the_function_comes_out(model):
    def fill(validation, index):
        raise RuntimeError("no record today")

    size = dict(train_size=3, val_size=0, seq_len=8)
    data = eqat.CalibrationData.from_records(fill, ["ids"], model, **size)
    with pytest.raises(RuntimeError, match="no record today"):
        data.sample(0)
    with pytest.raises(RuntimeError, match="no record today"):
        eqat.block_ap(model, data, group_size=32)
    assert not model.info.quantized


def test_refusals(model, context):
    with pytest.raises(eqat.NotFound, match="missing.txt"):
        eqat.CalibrationData("missing.txt", model)
    with pytest.raises(eqat.FormatError, match="expected"):
        eqat.CalibrationData([1, 2, tiny.VOCAB] * 100, model, **WINDOWS)
    with pytest.raises(KeyError, match="expected 'text'"):
        eqat.CalibrationData([{"prose": "a"}], model)
    with pytest.raises(TypeError, match="found float"):
        eqat.CalibrationData(3.5, model)
    with pytest.raises(TypeError, match="found bytes"):
        eqat.CalibrationData(b"text", model)
    with pytest.raises(TypeError, match="found a dict of train, test, .*give one part"):
        eqat.CalibrationData({"train": ["a"], "test": ["b"]}, model)
    with pytest.raises(ValueError, match="int32"):
        eqat.CalibrationData(np.array([2**40]), model)
    with pytest.raises(ValueError, match="no tokenizer"):
        eqat.CalibrationData(["some text"], context=context)
    with pytest.raises(TypeError, match="expected a model"):
        eqat.CalibrationData([1, 2, 3])
    with pytest.raises(eqat.FormatError):
        eqat.CalibrationData([1, 2, 3], model)


def test_tokenizer(model):
    tokenizer = model.tokenizer
    ids = tokenizer.encode("a é<|end|>")
    assert ids.dtype == np.int32 and ids[-1] == 256
    assert tokenizer.decode(ids) == "a é<|end|>"
    assert tokenizer.decode(ids, skip_special=True) == "a é"
    assert tokenizer.encode("<|end|>", parse_special=False).size > 1
    assert tokenizer.encode("").size == 0 and tokenizer.decode([]) == ""
    assert tokenizer.token_text(256) == "<|end|>" and tokenizer.token_id("<|end|>") == 256
    assert tokenizer.token_id("nothing") is None and tokenizer.is_special(256)
    assert tokenizer.vocab_size == 257
