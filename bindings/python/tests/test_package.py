"""Finding the library, versions, progress bars, types, and Python's older grammar."""

import ast
import ctypes.util
import os
import pathlib
import subprocess
import sys
import types

import pytest

import eqat
from eqat import library

SOURCES = pathlib.Path(eqat.__file__).parent


def imported(**environment):
    command = [sys.executable, "-c", "import eqat; print(eqat.library_version)"]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_the_library_that_the_environment_names():
    assert imported().stdout.strip() == eqat.library_version
    missing = imported(EQAT_LIBRARY="/nowhere/libeqat.so")
    assert missing.returncode and "ImportError: libeqat: not found (/nowhere" in missing.stderr
    other = imported(EQAT_LIBRARY=ctypes.util.find_library("m") or "libm.so.6")
    assert "found a library without eqat_version, expected libeqat" in other.stderr


@pytest.mark.parametrize("version", ["0.2.0", "1.1.0", "0.10.0"])
def test_other_versions_are_refused(version):
    fake = types.SimpleNamespace(eqat_version=lambda: version.encode())
    fake.eqat_version = type("F", (), {"__call__": lambda self: version.encode()})()
    with pytest.raises(ImportError, match=f"there: found libeqat {version}, expected 0.1.x"):
        library._check_version("there", fake)


def test_a_patch_does_not_matter():
    fake = types.SimpleNamespace(eqat_version=type("F", (), {"__call__": lambda s: b"0.1.9"})())
    assert library._check_version("there", fake) == "0.1.9"


def test_every_file_is_python_3_9():
    for path in SOURCES.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))


def test_types():
    pytest.importorskip("mypy")
    assert (SOURCES / "py.typed").exists()
    config = pathlib.Path(__file__).parent.parent / "pyproject.toml"
    command = [sys.executable, "-m", "mypy", "--config-file", str(config)]
    command += ["--cache-dir", os.devnull, str(SOURCES)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


class Bar:
    """What stands for tqdm."""

    made = []

    def __init__(self, total, desc, **_):
        self.total, self.desc, self.n, self.postfix, self.closed = total, desc, 0, {}, False
        self.between = []
        Bar.made.append(self)

    def update(self, n):
        self.n += n

    def set_postfix(self, figures, refresh):
        self.postfix = dict(figures)
        if refresh:
            self.between.append((self.n, figures["now"]))

    def close(self):
        self.closed = True


@pytest.fixture
def bars(monkeypatch):
    auto = types.ModuleType("tqdm.auto")
    auto.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", auto)
    monkeypatch.setattr(Bar, "made", [])
    return Bar.made


def test_progress_bars(model, text, quick, bars):
    eqat.block_ap(model, text, progress=True, keep="last", **quick)
    model.perplexity(text, seq_len=64, max_windows=4, progress=True)
    training, evaluation = bars
    assert (training.desc, training.total, training.n) == ("block-ap", 8, 8)
    assert training.closed and training.postfix["block"] == "2/2"
    assert float(training.postfix["loss"]) > 0 and float(training.postfix["val"]) > 0
    passed = [what for n, what in training.between if n == 0]
    assert passed[:2] == ["embed 0/2", "embed 1/2"] and "targets 1/2" in passed
    assert "load 0/7" in passed and "start 6/7" in passed
    assert "now" not in training.postfix and not evaluation.between
    assert evaluation.desc == "eval" and evaluation.n == evaluation.total and evaluation.closed


def test_bars_of_rounding_and_saving(model, bars, tmp_path):
    eqat.rtn(model, bits=2, group_size=32, progress=True)
    model.save(tmp_path / "out", progress=True)
    rounding, saving = bars
    assert (rounding.desc, rounding.total, rounding.n) == ("rtn", 14, 14)
    assert (saving.desc, saving.total, saving.n) == ("save", 4, 4)
    assert rounding.closed and saving.closed
    with pytest.raises(eqat.Cancelled):
        model.save(tmp_path / "not", progress=lambda told: told.step == 2)
    assert not (tmp_path / "not").exists()


def test_a_bar_is_closed_when_the_call_fails(model, text, quick, bars):
    def loss(tape, y, target):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        eqat.block_ap(model, text, progress=True, loss=loss, **quick)
    assert all(bar.closed for bar in bars)


def test_without_tqdm(model, text, quick, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    eqat.block_ap(model, text, progress=True, **quick)
    assert model.info.quantized and "tqdm is not installed" in caplog.text
