"""Handles go in any order, on any thread, at any time; nothing leaks and nothing is used after."""

import gc
import itertools
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest

import eqat
from eqat import handle, memory

SIZE = {"train_size": 4, "val_size": 1, "seq_len": 16}


@pytest.fixture
def alive(monkeypatch):
    """References on C handles that Python has not given up."""
    gc.collect()
    references = []
    own = handle.Reference.own.__func__

    def counted(cls, address, keep=None):
        reference = own(cls, address, keep)
        references.append(weakref.ref(reference))
        return reference

    monkeypatch.setattr(handle.Reference, "own", classmethod(counted))
    held = len(memory._held)
    yield references
    gc.collect()
    left = [reference() for reference in references if reference() is not None]
    assert not left and len(memory._held) == held


class Logged(list):
    """A cycle, so that the garbage collector has to find it."""

    def __init__(self, *things):
        super().__init__(things)
        self.append(self)


def everything(folder, context):
    """One of each, some in the middle of their work."""
    model = eqat.open(folder, context=context, compute_dtype="f32")
    rows = np.arange(5 * 16).reshape(5, 16) % 250
    data = eqat.CalibrationData(rows, model, val_size=1)
    quantizer = eqat.Quantizer(context, group_size=32)
    job = eqat.BlockAP(
        model, quantizer, data, progress=lambda _: None, gradient=lambda parameters: None
    )
    job.begin()
    job.step(0, 0)
    tape = eqat.Tape(context)
    y, target = job.forward(tape, 0, 1)
    yield from (y, target, tape, job.optimizer, job.parameter("self_attn.q_proj.scales"))
    yield from (model, data, quantizer, model.tokenizer, job)
    yield model.parameter("model.norm.weight").numpy()
    other = eqat.open(folder, context=context, compute_dtype="f32")
    eqat.rtn(other, bits=2, group_size=32)
    e2e = eqat.E2EQP(other, data, batch_size=2)
    e2e.accumulate(0, 0)
    tape = eqat.Tape(context)
    loss, count = other.loss(rows[:1], tape)
    yield from (other, e2e, e2e.optimizer, tape, loss, count)
    w = eqat.Tensor.wrap(np.ones((4, 8), np.float32), context)
    w.requires_grad = True
    tape = eqat.Tape(context)
    product = tape.linear(eqat.Tensor(np.ones((2, 8), np.float32), context), w)
    tape.custom([w], eqat.Tensor([1.0], context), lambda tape, grad, inputs: None)
    yield from (w, tape, product, product.numpy(), w.reshape(32), w.__dlpack__())
    adam = eqat.Optimizer(context)
    adam.add(adam.add_group(1e-3), w)
    adam.set_gradient(lambda parameters: None)
    yield adam


def drop_in_order(things, order):
    for i in order:
        things[i] = None


def drop_in_threads(things, order):
    def drop(part):
        drop_in_order(things, part)

    threads = [threading.Thread(target=drop, args=(order[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def drop_by_collector(things, order):
    for i in order:
        Logged(things[i])
        things[i] = None
    gc.collect()


@pytest.mark.parametrize("drop", [drop_in_order, drop_in_threads, drop_by_collector])
def test_any_order(folder, alive, drop):
    context = eqat.Context(threads=2)
    left = set()
    for seed in range(4):
        things = list(everything(folder, context))
        order = list(range(len(things)))
        random.Random(seed).shuffle(order)
        drop(things, order)
        del things
        gc.collect()
        context.trim()
        left.add(context.bytes)
    assert len(left) == 1  # what a context keeps to work with, however often


def test_the_context_first(folder, alive):
    context = eqat.Context(threads=2)
    things = list(everything(folder, context))
    context.close()
    del context
    gc.collect()
    model = next(thing for thing in things if isinstance(thing, eqat.Model))
    assert model.forward([[1, 2, 3]]).numpy().shape == (1, 3, 260)
    with pytest.raises(eqat.NotFound, match="nothing"):
        model.parameter("nothing")
    with pytest.raises(ValueError, match="Context is closed"):
        model.context.trim()


def test_closed_while_a_call_runs(folder, text, alive):
    """Every handle that the call uses, and the callbacks with them, in the midst of it."""
    context = eqat.Context(threads=1)
    model = eqat.open(folder, context=context, compute_dtype="f32")
    quantizer = eqat.Quantizer(context, group_size=32)
    data = eqat.CalibrationData(text, model, **SIZE)
    steps = []

    def progress(report):
        steps.append(report.step)
        for thing in (job, quantizer, data, context):
            thing.close()
        gc.collect()

    job = eqat.BlockAP(model, quantizer, data, progress=progress)
    job.run()
    assert len(steps) == 8 and job.closed and model.info.quantized
    gc.collect()


def test_a_callback_that_replaces_itself(alive):
    context = eqat.Context(threads=1)
    adam = eqat.Optimizer(context)
    w = eqat.Tensor(np.ones(4, np.float32), context)
    w.requires_grad = True
    adam.add(adam.add_group(1e-3), w)
    calls = []

    def once(parameters):
        adam.set_gradient(None)
        gc.collect()
        calls.append(parameters[0].grad.numpy().tolist())

    adam.set_gradient(once)
    for _ in range(2):
        tape = eqat.Tape(context)
        adam.backward(tape, tape.mse(w, eqat.Tensor(np.zeros(4, np.float32), context)))
    assert len(calls) == 1 and calls[0] == [0.5] * 4 and adam.steps == 2


def test_a_lent_tape_ends_with_the_callback(folder, text, alive):
    kept = []

    def loss(tape, y, target):
        kept.extend((tape, y))
        return tape.mse(y, target)

    model = eqat.open(folder, threads=1, compute_dtype="f32")
    eqat.block_ap(model, text, group_size=32, epochs=1, loss=loss, **SIZE)
    with pytest.raises(ValueError, match="Tape is closed"):
        kept[0].clear()
    assert np.isfinite(kept[1].numpy()).all()


def test_the_optimizer_of_a_job_goes_with_the_block(folder, text, alive):
    model = eqat.open(folder, threads=1, compute_dtype="f32")
    data = eqat.CalibrationData(text, model, **SIZE)
    job = eqat.BlockAP(model, eqat.Quantizer(model.context, group_size=32), data)
    with pytest.raises(ValueError, match="nothing in work"):
        job.optimizer.steps  # noqa: B018
    job.begin()
    adam, scales = job.optimizer, job.parameter("self_attn.q_proj.scales")
    job.step(0, 0)
    assert adam.steps == 1 and job.parameter("no.such") is None
    values = scales.numpy().copy()
    job.finish()
    with pytest.raises(ValueError, match="nothing in work"):
        adam.steps  # noqa: B018
    assert scales.numpy().shape == values.shape
    job.begin()
    assert adam.steps == 0
    job.close()
    with pytest.raises(ValueError, match="closed"):
        adam.steps  # noqa: B018


def test_the_collector_on_another_thread_during_calls(folder, text, alive):
    context = eqat.Context(threads=1)
    model = eqat.open(folder, context=context, compute_dtype="f32")
    data = eqat.CalibrationData(text, model, **SIZE)
    stop = threading.Event()

    def litter():
        for i in itertools.count():
            if stop.is_set():
                return
            Logged(eqat.Tensor(np.zeros(100, np.float32), eqat.Context(threads=1)))
            if i % 4 == 0:
                gc.collect()

    thread = threading.Thread(target=litter)
    thread.start()
    try:
        for seed in range(4):
            junk = Logged(*everything(folder, context))
            del junk
            with eqat.BlockAP(model, eqat.Quantizer(context, group_size=32), data) as job:
                job.begin()
                job.step(0, seed % 2)
    finally:
        stop.set()
        thread.join()
    del model, data, job
    gc.collect()
    context.trim()
    assert context.bytes < 1 << 20


def test_two_contexts_work_at_the_same_time(folder, text):
    """While one is inside of C, the other's callbacks run, and plain Python runs."""
    spans, ticks = {}, []
    stop = threading.Event()

    def work(name):
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        marks = spans[name] = []
        eqat.block_ap(
            model, text, group_size=32, epochs=60,
            progress=lambda _: marks.append(time.monotonic()), **SIZE,
        )  # fmt: skip

    def tick():
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    ticker = threading.Thread(target=tick)
    for thread in (*threads, ticker):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    ticker.join()
    start, end = max(s[0] for s in spans.values()), min(s[-1] for s in spans.values())
    for marks in spans.values():
        assert sum(start <= mark <= end for mark in marks) > 20
    assert sum(start <= t <= end for t in ticks) > 20


def test_equal_seeds_give_equal_results_on_two_threads(folder, text, tmp_path):
    def work(name):
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        eqat.block_ap(model, text, group_size=32, **SIZE).save(tmp_path / name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


ENDINGS = {
    "with everything alive": "",
    "with a cycle": "cycle = [model]; cycle.append(cycle); del model, context",
    "in an exit handler": "import atexit; atexit.register(lambda: model.forward([[1, 2]]))",
    "with a call running": """
        import threading, time
        started = threading.Event()
        options = dict(train_size=4, val_size=0, seq_len=16, group_size=32, epochs=100000)
        threading.Thread(
            target=lambda: eqat.block_ap(
                model, list(range(200)), progress=lambda _: started.set(), **options
            ),
            daemon=True,
        ).start()
        started.wait()
    """,
    "in a child": """
        import os
        pid = os.fork()
        if pid:
            sys.exit(os.waitpid(pid, 0)[1])
        assert model.forward([[1, 2, 3]]).numpy().shape == (1, 3, 260)
        eqat.rtn(model, group_size=32)
        del model, context
    """,
}


@pytest.mark.parametrize("how", ENDINGS)
def test_the_interpreter_ends(folder, how):
    text = f"""
        import sys
        import eqat
        context = eqat.Context(threads=2)
        model = eqat.open({str(folder)!r}, context=context, compute_dtype="f32")
    """
    code = textwrap.dedent(text) + textwrap.dedent(ENDINGS[how])
    # What is alive at the end goes with the process, which is no leak.
    sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env={**os.environ, "ASAN_OPTIONS": sanitizer},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")
