"""Scales, zero points and errors of saved folders, against plain arithmetic on the same values."""

import json
import math

import made
import numpy as np
import pytest

from eqat.report import ReportError, linears


def numbers_of(exact, block, role, group):
    """(scales, zero points, relative squared error) of a linear, the long way."""
    weight, codes, zeros, scales = exact[f"model.layers.{block}.{role}"]
    error = square = 0.0
    for n in range(weight.shape[0]):
        s = np.repeat(scales[n].astype(float), group)
        z = np.repeat(zeros[n], group)
        error += float(((((codes[n] - z) * s) - weight[n]) ** 2).sum())
        square += float((weight[n].astype(float) ** 2).sum())
    return scales.astype(float), zeros, error / square


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_against_plain_arithmetic(tmp_path, bits, monkeypatch):
    monkeypatch.setattr(linears, "_CHUNK", 32 * 64)  # several chunks a linear
    exact = made.folders(tmp_path, blocks=2, bits=bits)
    found = linears.read(tmp_path / "out", tmp_path / "model")
    assert found.no_errors == ""
    assert found.blocks == [0, 1]
    assert found.roles == list(made.ROLES)
    assert len(found.linears) == 14
    for one in found.linears:
        scales, zeros, error = numbers_of(exact, one.block, one.role, 32)
        assert one.bits == bits
        assert one.groups == scales.size == one.scales.sum()
        for value in (scales.min(), scales.max()):
            at = np.flatnonzero((linears.SCALE_EDGES[:-1] <= value)
                                & (value < linears.SCALE_EDGES[1:]))  # fmt: skip
            assert one.scales[at[0]] >= 1
        below = (scales < linears.SCALE_EDGES[72]).sum()
        assert one.scales[:72].sum() == below
        assert [int(n) for n in one.zeros] == [(zeros == z).sum() for z in range(1 << bits)]
        assert one.error == pytest.approx(error, rel=1e-4)


def change_config(folder, **quantization):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"].update(quantization)
    path.write_text(json.dumps(config))


def test_the_classic_layout_stores_zero_points_less_one(tmp_path):
    made.folders(tmp_path, blocks=1)
    new = linears.read(tmp_path / "out", None)
    change_config(tmp_path / "out", checkpoint_format="gptq")
    old = linears.read(tmp_path / "out", None)
    for one, other in zip(new.linears, old.linears):
        assert list(np.roll(one.zeros, 1)) == list(other.zeros)


def test_a_source_in_bf16_and_in_shards(tmp_path):
    made.folders(tmp_path, blocks=2)
    plain = linears.read(tmp_path / "out", tmp_path / "model")
    from eqat.report.safetensors import Folder

    source = Folder(tmp_path / "model")
    tensors = {name: source.floats(name) for name in source.names()}
    shards = tmp_path / "shards"
    shards.mkdir()
    for block in (0, 1):
        part = {
            name: (array.view(np.uint32) >> 16).astype(np.uint16)
            for name, array in tensors.items()
            if f"layers.{block}." in name
        }
        made.safetensors(shards / f"model-0000{block + 1}-of-00002.safetensors", part)
    found = linears.read(tmp_path / "out", shards)
    for one, other in zip(plain.linears, found.linears):
        assert other.error == pytest.approx(one.error, rel=0.05)
        assert other.error != one.error


def test_experts_of_a_role_are_one_row(tmp_path):
    rng = np.random.default_rng(1)
    packed = {}
    for expert in range(3):
        name = f"model.layers.0.mlp.experts.{expert}.up_proj"
        _, *found = made.linear(rng, 32, 64, 4, 32)
        packed.update(made.stored(name, *found, 4, 32))
    made.safetensors(tmp_path / "model.safetensors", packed)
    config = {"quantization_config": {"checkpoint_format": "gptq_v2"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = linears.read(tmp_path, None)
    assert [(one.role, one.groups) for one in found.linears] == [("mlp.experts.*.up_proj", 192)]
    assert math.isnan(found.linears[0].error)


def test_errors_need_a_source(tmp_path):
    made.folders(tmp_path, blocks=1)
    out = tmp_path / "out"
    reasons = {
        None: "the log does not say",
        tmp_path / "absent": "found no safetensors file",
        out / "model.safetensors": "no folder of safetensors",
        out: "found no model.layers.0.",
    }
    for source, reason in reasons.items():
        found = linears.read(out, source)
        assert reason in found.no_errors
        assert len(found.linears) == 7


def damage(folder, how):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    how(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


FIRST = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"{{{{",
        (60000).to_bytes(8, "little") + b"[" * 60000,
    ],
)
def test_no_safetensors(tmp_path, content):
    made.folders(tmp_path, blocks=1)
    (tmp_path / "out" / "model.safetensors").write_bytes(content)
    with pytest.raises(ReportError, match="model.safetensors"):
        linears.read(tmp_path / "out", None)


@pytest.mark.parametrize(
    "how",
    [
        lambda h: h.update({FIRST + ".scales": 3}),
        lambda h: h[FIRST + ".scales"].update(dtype="I32"),
        lambda h: h[FIRST + ".scales"].update(dtype="F7"),
        lambda h: h[FIRST + ".scales"].update(shape=[1, 2]),
        lambda h: h[FIRST + ".qzeros"].update(shape=[4, 3]),
        lambda h: h[FIRST + ".qweight"].update(shape=[-6, -64]),
        lambda h: h[FIRST + ".qweight"].update(shape=["six"]),
        lambda h: h[FIRST + ".qweight"].update(shape=[10**400, 64]),
        lambda h: h[FIRST + ".qweight"].update(data_offsets=[0, 1 << 60]),
        lambda h: h[FIRST + ".qweight"].update(data_offsets=[-64, 0]),
        lambda h: h[FIRST + ".qweight"].update(data_offsets=None),
        lambda h: h[FIRST + ".g_idx"].update(shape=[0], data_offsets=[0, 0]),
        lambda h: h.pop(FIRST + ".qzeros"),
    ],
)
def test_damaged_folders(tmp_path, how):
    made.folders(tmp_path, blocks=1)
    damage(tmp_path / "out", how)
    with pytest.raises(ReportError, match=FIRST) as error:
        linears.read(tmp_path / "out", None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"quantization_config": 4}'])
def test_no_config(tmp_path, config):
    made.folders(tmp_path, blocks=1)
    (tmp_path / "out" / "config.json").write_text(config)
    with pytest.raises(ReportError, match="quantization_config"):
        linears.read(tmp_path / "out", None)
