"""Models from open to save."""

import numpy as np
import pytest
import tiny

import eqat


def test_four_lines(folder, text, tmp_path, quick):
    model = eqat.open(folder, threads=1, compute_dtype="f32")
    before = model.perplexity(text, seq_len=64, max_windows=8)
    eqat.efficientqat(
        model, bits=2, calib=text, e2e_train_size=8, e2e_seq_len=32, e2e_batch_size=4, **quick
    )
    model.save(tmp_path / "out")
    after = model.perplexity(text, seq_len=64, max_windows=8)
    assert after != before and np.isfinite([before, after]).all()
    again = eqat.open(tmp_path / "out", threads=1, compute_dtype="f32")
    assert again.perplexity(text, seq_len=64, max_windows=8) == after
    assert again.info.quantized and "bits" in repr(again)


def reference_logits(folder, ids):
    """A Llama in NumPy, in double."""
    w = {name: array.astype(np.float64) for name, array in tiny.weights()}

    def norm(x, gain):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain

    def softmax(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    time, dim = ids.shape[1], tiny.HIDDEN // tiny.HEADS
    angles = np.outer(np.arange(time), 10000.0 ** (-np.arange(0, dim, 2) / dim))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rotate(x):
        a, b = x[..., : dim // 2], x[..., dim // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def attend(x, p):
        q, k, v = (
            (x @ w[f"{p}{name}_proj.weight"].T).reshape(*ids.shape, -1, dim) for name in "qkv"
        )
        q, k = rotate(q), rotate(k)
        k, v = (np.repeat(a, tiny.HEADS // tiny.KV_HEADS, 2) for a in (k, v))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / dim**0.5
        scores = np.where(np.tril(np.ones((time, time))) > 0, scores, -np.inf)
        y = np.einsum("bhqk,bkhd->bqhd", softmax(scores), v).reshape(*ids.shape, -1)
        return y @ w[p + "o_proj.weight"].T

    x = w["model.embed_tokens.weight"][ids]
    for block in range(tiny.BLOCKS):
        p = f"model.layers.{block}."
        x = x + attend(norm(x, w[p + "input_layernorm.weight"]), p + "self_attn.")
        y = norm(x, w[p + "post_attention_layernorm.weight"])
        gate, up = (y @ w[f"{p}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


def test_logits_loss_and_pieces(folder, model, ids):
    logits = model.forward(ids)
    expected = reference_logits(folder, ids)
    assert logits.shape == (2, 16, tiny.VOCAB)
    np.testing.assert_allclose(logits.numpy(), expected, atol=2e-4)

    top = expected.max(-1, keepdims=True)
    nll = (top[..., 0] + np.log(np.exp(expected - top).sum(-1)))[:, :-1]
    nll -= np.take_along_axis(expected[:, :-1], ids[:, 1:, None], -1)[..., 0]
    loss, count = model.loss(ids)
    assert count.item() == 30 and loss.item() == pytest.approx(nll.mean(), rel=1e-4)

    tape = eqat.Tape(model.context)
    tape.set_recording(False)
    x = model.embed(tape, ids)
    for block in range(model.info.blocks):
        x = model.block(tape, block, x)
    assert np.array_equal(model.logits(tape, x).numpy(), logits.numpy())
    last = model.logits(tape, x, 1).numpy()  # so few rows are summed in another order
    np.testing.assert_allclose(last, logits.numpy()[:, -1:], rtol=1e-5, atol=1e-6)


def test_a_text_grows(model, ids):
    whole = model.forward(ids).numpy()
    with eqat.Generation(model, batch_size=2) as generation:
        assert generation and len(generation) == 0
        first = generation.feed(ids[:, :9]).numpy()
        np.testing.assert_allclose(first, whole[:, 8:9], atol=1e-5)
        later = [generation.feed(ids[:, i : i + 1]).numpy()[:, 0] for i in range(9, 16)]
        np.testing.assert_allclose(np.stack(later, 1), whole[:, 9:], atol=1e-5)
        logits = eqat.Tensor(whole, model.context)
        assert np.array_equal(generation.choose(logits), whole[:, -1].argmax(-1))
        drawn = [generation.choose(logits, temperature=50.0) for _ in range(2)]
        assert np.array_equal(*drawn) and drawn[0].dtype == np.int32
        first_of_all = generation.choose(logits, temperature=50.0, top_k=1)
        assert np.array_equal(first_of_all, whole[:, -1].argmax(-1))
        with pytest.raises(eqat.InvalidArgument, match='top_k: found "-1", expected a whole'):
            generation.choose(logits, top_k=-1)
        with pytest.raises(TypeError, match="did you mean temperature"):
            generation.choose(logits, temprature=1)
        generation.rewind(3)
        assert len(generation) == 3
        rest = generation.feed(ids[:, 3:], last_n=13).numpy()
        np.testing.assert_allclose(rest, whole[:, 3:], atol=1e-5)
        with pytest.raises(ValueError, match=r"shape \[1, 1\], expected \[2, T\]"):
            generation.feed([3])
        with pytest.raises(eqat.InvalidArgument, match="length: found 17"):
            generation.rewind(17)
    with pytest.raises(ValueError, match="closed"):
        len(generation)
    one = eqat.Generation(model)
    np.testing.assert_allclose(one.feed(ids[0]).numpy()[0, 0], whole[0, -1], atol=1e-5)


def test_labels_positions_and_segments(model, ids):
    labels = np.full_like(ids, -1)
    labels[:, 3] = 7
    loss, count = model.loss(eqat.Batch(ids, labels=labels))
    assert count.item() == 2
    segments = np.repeat([[0] * 8 + [1] * 8], 2, 0)
    positions = np.repeat([[*range(8), *range(8)]], 2, 0)
    both = model.forward({"ids": ids, "segments": segments, "positions": positions}).numpy()
    apart = model.forward(ids[:, 8:]).numpy()
    np.testing.assert_allclose(both[:, 8:], apart, atol=1e-5)


def test_what_it_is(model):
    assert model.info.family == "llama" and model.info.blocks == tiny.BLOCKS
    linears = model.linears(0)
    assert len(linears) == 7 and linears[0].bits == 0
    names = list(model.parameter_names())
    assert names[0] == "model.embed_tokens.weight"
    expected = dict(tiny.weights())
    gate = "model.layers.1.mlp.gate_proj.weight"
    assert np.array_equal(model.parameter(gate).numpy(), expected[gate])
    assert "llama" in repr(model)


def test_gradients_reach_parameters(model, ids):
    norm = model.parameter("model.norm.weight")
    norm.requires_grad = True
    tape = eqat.Tape(model.context)
    loss, _ = model.loss(ids, tape)
    tape.backward(loss)
    gradient = norm.grad.numpy().copy()
    value, step = norm.numpy(), 1e-2
    value[3] += step
    above = model.loss(ids)[0].item()
    value[3] -= 2 * step
    below = model.loss(ids)[0].item()
    assert gradient[3] == pytest.approx((above - below) / (2 * step), rel=0.05, abs=1e-4)


def test_rtn_with_rules(model, tmp_path):
    eqat.rtn(model, bits=3, group_size=32, rules={"*.down_proj": dict(bits=4), "*.v_proj": None})
    bits = {linear.name.split(".")[-1]: linear.bits for linear in model.linears(0)}
    assert bits == {
        "q_proj": 3, "k_proj": 3, "v_proj": 0, "o_proj": 3,
        "gate_proj": 3, "up_proj": 3, "down_proj": 4,
    }  # fmt: skip
    model.check_save()
    with pytest.raises(eqat.Unsupported, match="k_proj: found 5 bits"):
        rules = {"*": None, "*.k_proj": dict(bits=5)}
        fresh = eqat.open(tiny.write(tmp_path / "fresh"), context=model.context)
        fresh.check_save(eqat.Quantizer(model.context, rules, group_size=32))
    model.save(tmp_path / "out")
    with pytest.raises(eqat.Exists):
        model.save(tmp_path / "out")


def test_set_linear(model, context, ids):
    """Codes made by hand are what the model computes with."""
    quantizer = eqat.Quantizer(context, bits=4, group_size=32)
    w = model.parameter("model.layers.0.self_attn.q_proj.weight")
    s, z, codes = quantizer.quantize(w)
    dense = quantizer.dequantize(codes, s, z).numpy()
    other = model.forward(ids).numpy()
    model.set_linear(0, 0, codes, s, z)
    packed = model.forward(ids).numpy()
    assert model.linears(0)[0].bits == 4 and not np.array_equal(packed, other)
    assert (
        dense.shape == w.shape
        and abs(dense - dict(tiny.weights())["model.layers.0.self_attn.q_proj.weight"]).max() < 0.1
    )


def test_evaluation_reports(model, text):
    report = model.evaluate(text, seq_len=32, max_windows=4)
    assert (report.tokens, report.windows) == (124, 4)
    assert report.perplexity == pytest.approx(np.exp(report.nll / report.tokens))
    whole = dict(sampling="consecutive", train_size=4, val_size=0, seq_len=32, shuffle=False)
    data = eqat.CalibrationData(text, model, **whole)
    assert model.perplexity(data) == report.perplexity
