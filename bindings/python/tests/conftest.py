import gc
import signal

import numpy as np
import pytest
import tiny

import eqat
from eqat.handle import Handle

# A shell's background jobs ignore it, and then Python takes no KeyboardInterrupt from it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Of a model, with a text beside it."""
    path = tiny.write(tmp_path_factory.mktemp("tiny") / "model")
    (path.parent / "text.txt").write_text(tiny.text(4000))
    return path


@pytest.fixture(scope="session")
def text(folder):
    return folder.parent / "text.txt"


@pytest.fixture
def context():
    return eqat.Context(threads=1)


@pytest.fixture
def model(folder, context):
    return eqat.open(folder, context=context, compute_dtype="f32")


@pytest.fixture
def ids():
    return np.random.default_rng(5).integers(0, tiny.VOCAB, (2, 16)).astype(np.int32)


# A few steps over a few samples.
QUICK = dict(train_size=8, val_size=2, seq_len=32, batch_size=2, epochs=1, group_size=32)


@pytest.fixture
def quick():
    return dict(QUICK)


def pytest_unconfigure():
    """What pytest still holds of the last tests goes, so that the sanitizers' word for what is left
    (check_asan.py) is that of the library."""
    for handle in [o for o in gc.get_objects() if isinstance(o, Handle)]:
        handle.close()
    gc.collect()
