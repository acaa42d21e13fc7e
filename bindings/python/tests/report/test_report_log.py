"""The reader of logs: what it takes, and what it leaves alone."""

import json
import math

import made
import pytest

from eqat.report import ReportError, log


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return log.read(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def test_a_whole_run(path):
    events = list(made.events(blocks=2, epochs=3, steps=5, e2e=7))
    found = read(path, made.lines(events))
    run = found.runs[0]
    assert [r.command for r in found.runs] == ["quantize", "eval", "eval"]
    assert found.unread == 0
    steps = [e for e in events if e["event"] == "step" and e["phase"] == "block-ap"]
    for block in (0, 1):
        assert run.blocks[block].steps.loss == [e["loss"] for e in steps if e["block"] == block]
        assert run.blocks[block].steps.step == [e["step"] for e in steps if e["block"] == block]
    epochs = [e for e in events if e["event"] == "epoch"]
    assert [
        (block, number, epoch.train_loss, epoch.val_loss, epoch.seconds)
        for block, found_block in run.blocks.items()
        for number, epoch in found_block.epochs.items()
    ] == [(e["block"], e["epoch"], e["train_loss"], e["val_loss"], e["seconds"]) for e in epochs]
    e2e = [e for e in events if e["event"] == "step" and e["phase"] == "e2e-qp"]
    assert run.e2e.loss == [e["loss"] for e in e2e]
    assert run.e2e.grad_norm == [e["grad_norm"] for e in e2e]
    assert run.saved["bytes"] == 87_600_000
    assert run.need["memory_bytes"] == 2.1e9
    assert run.seconds == 2000.5
    assert run.peak_rss == 2 * 10**9
    assert run.options("quantizer")["bits"] == 2
    assert found.runs[2].evals[0]["perplexity"] == 9.25


def test_a_run_that_was_killed(path):
    lines = made.lines(made.events(blocks=1, epochs=1, steps=4)).splitlines()
    found = read(path, "\n".join(lines[:6]) + '\n{"event": "step", "phase": "blo')
    run = found.runs[0]
    assert found.unread == 1
    assert not run.end
    assert len(run.blocks[0].steps) == 3
    assert run.seconds == json.loads(lines[5])["t"]


def test_epochs_are_made_of_steps_where_the_log_has_none(path):
    events = [e for e in made.events(blocks=1, epochs=2, steps=4) if e["event"] != "epoch"]
    block = read(path, made.lines(events)).runs[0].blocks[0]
    steps = [e for e in events if e["event"] == "step" and e["phase"] == "block-ap"]
    for number in (0, 1):
        of_epoch = [e for e in steps if e["epoch"] == number]
        mean = sum(e["loss"] for e in of_epoch) / 4
        assert block.epochs[number].train_loss == pytest.approx(mean)
        assert block.epochs[number].val_loss == of_epoch[-1]["val_loss"]


@pytest.mark.parametrize(
    "value",
    ["null", "NaN", "Infinity", "1e999", "1" + "0" * 400, '"2"', "true", "[]", "{}"],
)
def test_what_is_no_number_is_missing(path, value):
    line = f'{{"event": "step", "phase": "e2e-qp", "step": 1, "loss": {value}}}\n'
    run = read(path, line).runs[0]
    assert math.isnan(run.e2e.loss[0])
    assert run.e2e.step == [1.0]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"17",
        b"{}",
        b'{"event": 3}',
        b"[" * 100_000,
        b'{"event": "step"',
        b"\x00\x01\x02",
    ],
)
def test_lines_that_are_no_events_are_counted(path, line):
    found = read(path, b'{"event": "run", "command": "eval"}\n' + line + b"\n")
    assert found.unread == 1
    assert len(found.runs) == 1


def test_what_is_not_known_is_ignored(path):
    lines = [
        {"event": "run", "command": "quantize", "model": 3, "options": [], "later": {"a": 1}},
        {"event": "comet", "tail": True},
        {"event": "step", "phase": "third-phase", "loss": 1.0},
        {"event": "step", "phase": "block-ap", "block": -4, "epoch": 1e300, "loss": 2.0},
        {"event": "log", "level": 3, "text": None},
        {"event": "epoch"},
    ]
    run = read(path, made.lines(lines)).runs[0]
    assert list(run.blocks) == [0]
    assert run.options("quantizer") == {}
    assert run.messages == [("", "")]


@pytest.mark.parametrize("content", ["", "\n\n", "not a log\nat all\n", "{}\n"])
def test_a_file_without_events(path, content):
    with pytest.raises(ReportError) as error:
        read(path, content)
    expected = "found no event, expected the JSON lines of an eqat run"
    assert str(error.value) == f"{path}: {expected}"


def test_a_file_that_is_not_there(path):
    with pytest.raises(ReportError, match="cannot read it: No such file"):
        log.read(path)
