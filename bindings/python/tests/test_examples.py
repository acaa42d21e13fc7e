"""The drivers of examples/, as their texts say, each on what another has made."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import eqat

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(lines, block=""):
    return [float(x) for x in re.findall(rf"{block}.*loss (\S+)", lines)]


def bits(folder):
    return eqat.open(folder, threads=1).linears(0)[0].bits


@pytest.fixture(scope="module")
def quantized(folder, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("driver") / "w2"
    return out, run("block_ap_loss.py", folder, text, out)


def test_they_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path


def test_block_ap_loss(quantized):
    out, lines = quantized
    for block in (0, 1):
        first, last = losses(lines, f"block {block}:")
        assert last < first < 1
    assert bits(out) == 2


def test_e2e_kl(folder, quantized, text, tmp_path):
    found = losses(run("e2e_kl.py", folder, quantized[0], text, tmp_path / "kl"))
    assert np.mean(found[-8:]) < 0.95 * np.mean(found[:8])
    assert bits(tmp_path / "kl") == 2


def test_two_processes(folder, text, tmp_path):
    run("two_processes.py", folder, text, tmp_path / "out")
    a, b = ((tmp_path / f"out-{rank}" / "model.safetensors").read_bytes() for rank in (0, 1))
    assert a == b


def test_torch_loss(folder, text, tmp_path):
    pytest.importorskip("torch")
    lines = run("torch_loss.py", folder, text, tmp_path / "out")
    for block in (0, 1):
        first, last = losses(lines, f"block {block}:")
        assert last < first
    assert bits(tmp_path / "out") == 2


def test_a_loss_in_torch_has_the_librarys_gradient(folder, text, monkeypatch):
    """The mean squared error, once of the library and once of torch."""
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from torch_loss import in_torch

    size = {"train_size": 8, "val_size": 0, "seq_len": 32, "group_size": 32, "quant_lr": 1e-3}
    results = []
    for loss in (None, in_torch(torch.nn.functional.mse_loss)):
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        eqat.block_ap(model, text, loss=loss, **size)
        results.append(model.parameter("model.layers.1.self_attn.q_proj.scales").numpy().copy())
    np.testing.assert_allclose(results[1], results[0], rtol=2e-3)
