"""Every op as a method: values against NumPy, and gradients of a few."""

import numpy as np
import pytest

import eqat


@pytest.fixture
def tape(context):
    return eqat.Tape(context)


@pytest.fixture
def make(context):
    rng = np.random.default_rng(3)

    def tensor(*shape, train=False, dtype=None):
        if dtype == "i32":
            return eqat.Tensor(rng.integers(0, shape[-1], shape[:-1]).astype(np.int32), context)
        made = eqat.Tensor(rng.standard_normal(shape).astype(np.float32), context)
        made.requires_grad = train
        return made

    return tensor


def near(tensor, expected, tolerance=1e-5):
    np.testing.assert_allclose(tensor.numpy(), expected, atol=tolerance, rtol=tolerance)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_simple_ops(tape, make):
    a, b, w, bias = make(4, 6), make(4, 6), make(5, 6), make(5)
    x, y = a.numpy(), b.numpy()
    near(tape.add(a, b), x + y)
    near(tape.mul(a, b), x * y)
    near(tape.scale(a, 3), 3 * x)
    near(tape.linear(a, w), x @ w.numpy().T)
    near(tape.linear(a, w, bias), x @ w.numpy().T + bias.numpy())
    near(tape.reshape(a, 2, 12), x.reshape(2, 12))
    near(tape.slice(a, 1, 2, 3), x[:, 2:5])
    near(tape.transpose(a, 0, 1), x.T)
    assert tape.cast(a, "bf16").dtype == "bf16"
    near(tape.cast(a, "bf16"), x, 1e-2)
    near(tape.gated(a, b), x / (1 + np.exp(-x)) * y)
    gelu = x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    near(tape.gated(a, b, "gelu_tanh"), gelu * y)
    with pytest.raises(ValueError, match="silu or gelu_tanh"):
        tape.gated(a, b, "relu")
    near(tape.mse(a, b), [((x - y) ** 2).mean()])


def test_norm_and_embedding(tape, make, context):
    x, gain = make(4, 6), make(6)
    size = np.sqrt((x.numpy() ** 2).mean(-1, keepdims=True) + 1e-5)
    near(tape.rmsnorm(x, gain, 1e-5), x.numpy() / size * gain.numpy())
    near(tape.rmsnorm(x, gain, 1e-5, offset=1), x.numpy() / size * (1 + gain.numpy()))
    table, ids = make(7, 3), eqat.Tensor(np.int32([2, 6, 0]), context)
    near(tape.embedding(ids, table), table.numpy()[[2, 6, 0]])


def test_attention_and_rope(tape, make):
    q, k, v = make(1, 5, 2, 4), make(1, 5, 1, 4), make(1, 5, 1, 4)

    def expected(mask, scale=0.5):
        scores = np.einsum("bqhd,bkgd->bhqk", q.numpy(), k.numpy()) * scale
        p = softmax(np.where(mask, scores, -np.inf))
        return np.einsum("bhqk,bkgd->bqhd", p, v.numpy())

    past = np.tril(np.ones((5, 5))) > 0
    near(tape.attention(q, k, v), expected(past))
    near(tape.attention(q, k, v, causal=False, scale=0.1), expected(np.ones((5, 5)) > 0, 0.1))
    near(tape.attention(q, k, v, window=2), expected(past & ~np.tril(np.ones((5, 5)) > 0, -2)))
    angle = np.arange(5)[:, None] * np.array([1.0, 0.1])
    cos, sin = (eqat.Tensor(f(angle).astype(np.float32), tape.context) for f in (np.cos, np.sin))
    a, b = q.numpy()[..., :2], q.numpy()[..., 2:]
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    near(tape.rope(q, cos, sin), np.concatenate([a * c - b * s, b * c + a * s], -1))


def test_quantized_linears(tape, make, context):
    quantizer = eqat.Quantizer(context, bits=3, group_size=32)
    w, x = make(8, 64), make(3, 64)
    s, z = quantizer.init(w)
    fake = tape.fakequant(w, s, z, quantizer)
    q = np.clip(np.rint(w.numpy().reshape(8, 2, 32) / s.numpy()[..., None]) + z.numpy()[..., None],
                0, 7)  # fmt: skip
    near(fake, ((q - z.numpy()[..., None]) * s.numpy()[..., None]).reshape(8, 64))
    near(tape.fakequant_linear(x, w, s, z, quantizer), x.numpy() @ fake.numpy().T, 1e-4)
    stored_s, stored_z, codes = quantizer.freeze(w, s, z)
    dense = quantizer.dequantize(codes, stored_s, stored_z).numpy()
    near(tape.packed_linear(x, codes, stored_s, stored_z), x.numpy() @ dense.T, 1e-4)
    again = quantizer.pack(w, stored_s, tape.cast(eqat.Tensor(
        stored_z.numpy().astype(np.float32), context), "f32"))  # fmt: skip
    assert np.array_equal(again.numpy(), codes.numpy())


def test_experts(tape, make, context):
    logits, x = make(4, 5), make(4, 6)
    weights, index = tape.route(logits, 2, True)
    order = np.argsort(-logits.numpy(), -1, kind="stable")[:, :2]
    assert np.array_equal(index.numpy(), order)
    near(weights, softmax(np.take_along_axis(logits.numpy(), order, -1)))
    rows = eqat.Tensor(np.int32([2, 0, 2]), context)
    slots = eqat.Tensor(np.int32([1, 0, 0]), context)
    y = tape.gather_rows(x, rows)
    near(y, x.numpy()[[2, 0, 2]])
    start = eqat.Tensor.zeros((4, 6), context)
    total = tape.scatter_rows(start, y, weights, rows, slots)
    expected = np.zeros((4, 6))
    for i, (r, j) in enumerate([(2, 1), (0, 0), (2, 0)]):
        expected[r] += weights.numpy()[r, j] * y.numpy()[i]
    near(total, expected)
    assert start.closed
    with pytest.raises(eqat.InvalidArgument):
        tape.scatter_rows(total, y, weights, rows, make(3))


def test_losses(tape, make, context):
    x, w = make(6, 4), make(9, 4)
    labels = eqat.Tensor(np.int32([1, -1, 3, 8, 0, -1]), context)
    logits = x.numpy() @ w.numpy().T
    rows = [0, 2, 3, 4]
    nll = -np.log(softmax(logits)[rows, [1, 3, 8, 0]])
    loss, count = tape.linear_cross_entropy(x, w, labels)
    assert count.item() == 4
    near(loss, [nll.mean()])
    a, b = make(6, 9), make(6, 9)
    p, q = softmax(b.numpy()), softmax(a.numpy())
    each = (p * np.log(p / q)).sum(-1)
    near(tape.kl_divergence(a, b), [each.mean()])
    near(tape.kl_divergence(a, b, labels), [each[rows].mean()])


def test_gradients(tape, make):
    x, w = make(3, 4), make(2, 4, train=True)
    target = make(3, 2)
    y = tape.linear(x, w)
    tape.backward(tape.mse(y, target), 2)
    difference = y.numpy() - target.numpy()
    near(w.grad, 2 * 2 * difference.T @ x.numpy() / 6)
    w.zero_grad()
    assert w.grad is None
    ones = eqat.Tensor(np.ones((3, 2), np.float32), tape.context)
    tape.backward_from(tape.linear(x, w), ones)
    near(w.grad, np.tile(x.numpy().sum(0), (2, 1)))
    tape.set_recording(False)
    tape.linear(x, w)
    tape.clear()


def test_custom_op(tape, make, context):
    x = make(5, train=True)
    cubes = eqat.Tensor(x.numpy() ** 3, context)

    def backward(tape, grad, inputs):
        tape.add_grad(inputs[0], eqat.Tensor(grad.numpy() * 3 * inputs[0].numpy() ** 2, context))

    tape.custom([x], cubes, backward, "cube")
    zeros = eqat.Tensor.zeros((5,), context)
    tape.backward(tape.mse(cubes, zeros))
    near(x.grad, 6 * x.numpy() ** 5 / 5, 1e-4)


def test_a_custom_op_that_raises(tape, make, context):
    x = make(5, train=True)
    out = eqat.Tensor([1.0], context)

    def backward(tape, grad, inputs):
        raise LookupError("no gradient")

    tape.custom([x], out, backward)
    with pytest.raises(LookupError, match="no gradient"):
        tape.backward(out)


def test_checkpoint(tape, make):
    x, w = make(3, 4, train=True), make(4, 4, train=True)
    calls = []

    def segment(tape, x):
        calls.append(1)
        return tape.linear(tape.linear(x, w), w)

    target = make(3, 4)
    tape.backward(tape.mse(tape.checkpoint(segment, [x]), target))
    recomputed = x.grad.numpy().copy()
    x.zero_grad()
    w.zero_grad()
    tape.backward(tape.mse(segment(tape, x), target))
    assert len(calls) == 3
    assert np.array_equal(x.grad.numpy(), recomputed)


def test_an_optimizer(tape, make, context):
    w = make(4, train=True)
    start = w.numpy().copy()
    adam = eqat.Optimizer(context, max_grad_norm=1.0)
    adam.add(adam.add_group(0.1), w)
    adam.zero_grad()
    tape.backward(tape.mse(w, eqat.Tensor.zeros((4,), context)))
    norm = np.linalg.norm(w.grad.numpy())
    adam.step()
    assert adam.steps == 1 and adam.grad_norm == pytest.approx(norm, rel=1e-5)
    near(w, start - 0.1 * np.sign(start), 1e-4)
