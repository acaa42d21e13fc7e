"""The command from outside."""

import importlib.util
import os
import subprocess
import sys

import made
import pytest


def command(*arguments, **environment):
    """In a process of its own, where the library is not to be had."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-m", "eqat.report", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "EQAT_LIBRARY": "/nowhere.so", **environment},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    made.folders(path, blocks=2)
    return path


def test_a_page(run, tmp_path):
    out = tmp_path / "page.html"
    done = command(run / "out", "-o", out, "--title", "the title")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    assert "<title>the title</title>" in out.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_log_alone_and_a_source(run, tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_text((run / "out" / "eqat_log.jsonl").read_text())
    out = tmp_path / "page.html"
    assert command(log, "-o", out, "--source", run / "model").returncode == 0
    text = out.read_text(encoding="utf-8")
    assert 'id="r1-errors"' in text
    assert command(log, "-o", out, "--no-weights").returncode == 0
    text = out.read_text(encoding="utf-8")
    assert 'id="r1-errors"' not in text
    assert "--no-weights was given" in text


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["absent"], "absent: not found, expected the folder of a run, or a log file"),
        (["."], ".: found no eqat_log.jsonl, expected the folder of a run, or a log file"),
        (["empty"], "empty: found no event, expected the JSON lines of an eqat run"),
        (["log", "empty"], "empty: found no event, expected the JSON lines of an eqat run"),
        (["log", "-o", "absent/page"], "absent/page: cannot write it: No such file or directory"),
        (["log", "-o", "folder"], "folder: cannot write it: Is a directory"),
        (["log", "--source", "no"], "--source: no: not found, expected the folder of a model"),
        (["lo\ng"], "lo g: not found, expected the folder of a run, or a log file"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("")
    (tmp_path / "log").write_text(made.lines([made.run_event()]))
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir())
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"eqat-report: {line}\n"
    assert sorted(os.listdir()) == before


def test_wrong_command_lines():
    assert command().returncode == 2
    assert command("--nonsense").returncode == 2
    done = command("--help")
    assert done.returncode == 0
    assert "RUN_DIR" in done.stdout


def test_png_without_matplotlib(run, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = command(run / "out", "--png", tmp_path / "png", "-o", tmp_path / "p", PYTHONPATH=path)
    assert done.returncode == 1
    expected = "--png: found no matplotlib, expected it installed: pip install 'eqat[report]'"
    assert done.stderr == f"eqat-report: {expected}\n"
    assert os.listdir(tmp_path) == ["matplotlib.py"]


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="needs matplotlib")
def test_png_of_every_figure(run, tmp_path):
    done = command(run / "out", "--png", tmp_path / "png", "-o", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    names = sorted(os.listdir(tmp_path / "png"))
    assert len(names) == text.count("<figure")
    for name in names:
        assert (tmp_path / "png" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
