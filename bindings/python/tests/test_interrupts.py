"""Interrupts, cancellation, exceptions of callbacks: the call ends soon, all stays consistent."""

import contextlib
import hashlib
import os
import signal
import threading
import time

import numpy as np
import pytest

import eqat

LONG = {"train_size": 64, "val_size": 0, "seq_len": 64, "group_size": 32, "epochs": 3000}
SHORT = {**LONG, "epochs": 2, "train_size": 8}


@contextlib.contextmanager
def soon():
    """The signal comes after 0.3 seconds, and the call ends within one; more only because tests
    run on busy machines.  It would have taken minutes."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 0.3 + float(os.environ.get("EQAT_PATIENCE", 3))


@contextlib.contextmanager
def signals(*delays, number=signal.SIGINT):
    timers = [threading.Timer(delay, os.kill, (os.getpid(), number)) for delay in delays]
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        while any(timer.is_alive() for timer in timers):
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(0.01)


def digest(model, folder):
    model.save(folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_ctrl_c_in_block_ap(model, text, ids):
    before = model.forward(ids).numpy().copy()
    with signals(0.3), soon(), pytest.raises(KeyboardInterrupt):
        eqat.block_ap(model, text, **LONG)
    assert np.array_equal(model.forward(ids).numpy(), before)
    assert not model.info.quantized
    assert threading.active_count() == 1


def test_ctrl_c_again_and_again(model, text):
    # Not pytest.raises, within which the second one may come.
    with soon(), contextlib.suppress(KeyboardInterrupt), signals(0.3, 0.301, 0.302, 0.303):
        eqat.block_ap(model, text, **LONG)
        pytest.fail("found no interrupt")
    eqat.block_ap(model, text, **SHORT)
    assert model.info.quantized


def interrupt_at(step):
    """A progress callback; the signal takes its own way to the main thread."""

    def progress(report):
        if report.step == step and not done:
            done.append(os.kill(os.getpid(), signal.SIGINT))
            time.sleep(0.1)

    done = []
    return progress


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(folder, text, tmp_path):
    found = []
    for step in (None, 5, 15):
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        quantizer = eqat.Quantizer(model.context, group_size=32)
        data = eqat.CalibrationData(text, model, train_size=8, val_size=0, seq_len=32)
        job = eqat.BlockAP(model, quantizer, data, epochs=2, progress=step and interrupt_at(step))
        if step:
            with pytest.raises(KeyboardInterrupt):
                job.run()
            assert job.block < model.info.blocks
        job.run()
        assert job.block == model.info.blocks
        found.append(digest(model, tmp_path / str(step)))
    assert len(set(found)) == 1


def test_ctrl_c_in_e2e_qp(model, text, ids):
    eqat.rtn(model, bits=2, group_size=32)
    before = model.forward(ids).numpy().copy()
    long = {"train_size": 64, "seq_len": 64, "epochs": 3000, "lr": 1e-3}
    with signals(0.3), soon(), pytest.raises(KeyboardInterrupt):
        eqat.e2e_qp(model, text, **long)
    assert np.array_equal(model.forward(ids).numpy(), before)


def test_ctrl_c_in_an_evaluation(model):
    ids = np.random.default_rng(0).integers(0, 256, 1_000_000)
    data = eqat.CalibrationData(
        ids, model, sampling="consecutive", train_size=0, val_size=0, seq_len=128, shuffle=False
    )
    with signals(0.3), soon(), pytest.raises(KeyboardInterrupt):
        model.perplexity(data)
    assert model.perplexity(data, max_windows=2) > 1


def test_a_handler_that_returns_runs_and_the_call_goes_on(model, text):
    heard = []
    old = signal.signal(signal.SIGUSR1, lambda *_: heard.append(time.monotonic()))
    try:
        with signals(0.05, number=signal.SIGUSR1):
            eqat.block_ap(model, text, **{**SHORT, "epochs": 100})
            ended = time.monotonic()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert len(heard) == 1 and heard[0] < ended
    assert model.info.quantized


def test_a_handler_that_raises_ends_the_call(model, text):
    def alarm(*_):
        raise TimeoutError("enough")

    old = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with soon(), pytest.raises(TimeoutError, match="enough"):
            eqat.block_ap(model, text, **LONG)
    finally:
        signal.signal(signal.SIGALRM, old)


def test_cancel_from_another_thread(model, text):
    timer = threading.Timer(0.3, model.context.cancel)
    timer.start()
    with soon(), pytest.raises(eqat.Cancelled):
        eqat.block_ap(model, text, **LONG)
    timer.join()
    model.context.cancel()
    model.context.reset_cancel()
    eqat.block_ap(model, text, **SHORT)


def test_cancel_by_progress(model, text):
    seen = []

    def third(report):
        seen.append(report)
        return len(seen) == 3

    with pytest.raises(eqat.Cancelled):
        eqat.block_ap(model, text, progress=third, **LONG)
    assert [report.step for report in seen] == [1, 2, 3]
    assert (seen[0].phase, seen[0].blocks) == ("block-ap", 2) and seen[0].loss > 0
    assert np.isnan(seen[0].val_loss)


@pytest.mark.parametrize("where", ["progress", "loss", "gradient", "reduce"])
@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_exceptions_of_callbacks_come_out(model, text, ids, where, kind):
    before = model.forward(ids).numpy().copy()

    def fails(*_):
        raise kind(where)

    with pytest.raises(kind, match=where):
        eqat.block_ap(model, text, **{**SHORT, where: fails})
    assert np.array_equal(model.forward(ids).numpy(), before)


def test_a_loss_that_is_no_tensor(model, text):
    with pytest.raises(TypeError, match="found float, expected a Tensor"):
        eqat.block_ap(model, text, loss=lambda tape, y, target: 1.5, **SHORT)


def test_interrupt_in_a_callback_of_the_main_threads_call(model, text):
    """Callbacks run beside the main thread, which hears the signal while they sleep."""
    with signals(0.3), pytest.raises(KeyboardInterrupt):
        eqat.block_ap(model, text, progress=lambda _: time.sleep(0.05), **LONG)


def test_calls_of_other_threads_are_direct(model, text):
    names = []

    def work():
        eqat.block_ap(
            model, text, progress=lambda _: names.append(threading.current_thread().name), **SHORT
        )

    thread = threading.Thread(target=work, name="mine")
    thread.start()
    thread.join()
    assert set(names) == {"mine"}


def test_context_variables_reach_callbacks(model, text):
    import contextvars

    variable = contextvars.ContextVar("variable", default=0)
    variable.set(42)
    seen = []
    eqat.block_ap(model, text, progress=lambda _: seen.append(variable.get()), **SHORT)
    assert set(seen) == {42}
