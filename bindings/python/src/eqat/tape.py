"""The tape: ops, gradients, and ops of one's own."""

import ctypes
from collections.abc import Sequence
from typing import Any, Callable, Optional

from . import callbacks, dtypes, memory, options, prototypes
from .calls import call, call_long, create
from .handle import Handle
from .library import lib
from .tensor import Tensor, _int64s

ATTENTION = options.Group("attention")
ACTIVATIONS = ("silu", "gelu_tanh")  # eqat_activation


class Tape(Handle):
    """Records operations on trainable tensors and computes gradients.  Every op is a method that
    gives a new tensor; contracts of shapes and types stand in eqat/tape.h."""

    _kind = "tape"

    def __init__(self, context: Any):
        self._take(context, create(context, lib.eqat_tape_create, context))

    def clear(self) -> None:
        """Forgets what was recorded."""
        lib.eqat_tape_clear(self._reference)

    def set_recording(self, on: bool) -> None:
        """While off, ops compute and record nothing (inference).  On after creation."""
        lib.eqat_tape_set_recording(self._reference, on)

    def backward(self, loss: Tensor, scale: float = 1.0) -> None:
        """Adds scale * d loss / d tensor to the gradient of every trainable tensor, and clears."""
        call_long(self.context, lib.eqat_tape_backward, self, loss, scale)

    def backward_from(self, out: Tensor, grad: Tensor) -> None:
        """The same from a gradient of `out`."""
        call_long(self.context, lib.eqat_tape_backward_from, self, out, grad)

    def add_grad(self, tensor: Tensor, grad: Tensor) -> None:
        """Adds to a tensor's gradient, in the backward of a custom op."""
        call(self.context, lib.eqat_tape_add_grad, self, tensor, grad)

    def _op(self, name: str, *arguments: Any) -> Tensor:
        out = ctypes.c_void_p()
        call(self.context, getattr(lib, f"eqat_op_{name}"), self, *arguments, ctypes.byref(out))
        return Tensor._adopt(self.context, out.value)

    def _op2(self, name: str, *arguments: Any) -> tuple[Tensor, Tensor]:
        a, b = ctypes.c_void_p(), ctypes.c_void_p()
        function = getattr(lib, f"eqat_op_{name}")
        call(self.context, function, self, *arguments, ctypes.byref(a), ctypes.byref(b))
        return Tensor._adopt(self.context, a.value), Tensor._adopt(self.context, b.value)

    # ---- products ----

    def linear(self, x: Tensor, w: Tensor, bias: Optional[Tensor] = None) -> Tensor:
        """x [.., K] w [N, K]^T + bias [N]."""
        return self._op("linear", x, w, bias)

    def fakequant_linear(
        self,
        x: Tensor,
        w: Tensor,
        s: Tensor,
        z: Tensor,
        quantizer: Any,
        bias: Optional[Tensor] = None,
    ) -> Tensor:
        """`linear` through fake-quantized weights, as Block-AP trains them."""
        return self._op("fakequant_linear", x, w, s, z, bias, quantizer)

    def packed_linear(
        self, x: Tensor, codes: Tensor, s: Tensor, z: Tensor, bias: Optional[Tensor] = None
    ) -> Tensor:
        """`linear` from packed codes, as E2E-QP trains scales."""
        return self._op("packed_linear", x, codes, s, z, bias)

    def fakequant(
        self, w: Tensor, s: Tensor, z: Tensor, quantizer: Any, dtype: str = "f32"
    ) -> Tensor:
        """The fake-quantized weight itself."""
        return self._op("fakequant", w, s, z, quantizer, dtypes.named(dtype).value)

    # ---- parts of a model ----

    def embedding(self, ids: Tensor, table: Tensor, dtype: str = "f32") -> Tensor:
        """Rows of table [V, H] at ids I32."""
        return self._op("embedding", ids, table, dtypes.named(dtype).value)

    def rmsnorm(self, x: Tensor, gain: Tensor, eps: float, offset: float = 0.0) -> Tensor:
        """x / sqrt(mean(x^2) + eps) * (offset + gain) over the last dimension."""
        return self._op("rmsnorm", x, gain, eps, offset)

    def rope(
        self, x: Tensor, cos: Tensor, sin: Tensor, positions: Optional[Tensor] = None
    ) -> Tensor:
        """Rotary position embedding of x [B, T, heads, D]."""
        return self._op("rope", x, cos, sin, positions)

    @options.options(ATTENTION)
    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Optional[Tensor] = None, **keywords: Any
    ) -> Tensor:
        """Grouped-query attention: q [B, Tq, HQ, D], k and v [B, Tk, HK, D]."""
        struct = options.fill(self.context, "attention", ATTENTION.take(keywords)).struct
        return self._op("attention", q, k, v, segments, ctypes.byref(struct))

    def gated(self, gate: Tensor, up: Tensor, activation: str = "silu") -> Tensor:
        """activation(gate) * up; "silu" or "gelu_tanh"."""
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation: found {activation}, expected {' or '.join(ACTIVATIONS)}")
        return self._op("gated", gate, up, ACTIVATIONS.index(activation))

    def route(self, logits: Tensor, k: int, normalised: bool) -> tuple[Tensor, Tensor]:
        """Weights F32 [.., k] and numbers I32 [.., k] of the k experts chosen for each row."""
        return self._op2("route", logits, k, normalised)

    def gather_rows(self, x: Tensor, rows: Tensor) -> Tensor:
        """Rows of x [R, H] by number."""
        return self._op("gather_rows", x, rows)

    def scatter_rows(
        self, sum: Tensor, y: Tensor, weights: Tensor, rows: Tensor, slots: Tensor
    ) -> Tensor:
        """sum with weights[rows[i], slots[i]] * y[i] added to rows[i]; `sum` is used up."""
        mine = ctypes.c_void_p(sum._another_reference())
        sum.close()
        try:
            rest = (y, weights, rows, slots)
            call(self.context, lib.eqat_op_scatter_rows, self, ctypes.byref(mine), *rest)
        finally:
            result = Tensor._adopt(self.context, mine.value)
        return result

    # ---- element by element, and views ----

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self._op("add", a, b)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self._op("mul", a, b)

    def scale(self, a: Tensor, factor: float) -> Tensor:
        return self._op("scale", a, factor)

    def reshape(self, a: Tensor, *shape: int) -> Tensor:
        return self._op("reshape", a, len(shape), _int64s(shape))

    def slice(self, a: Tensor, dim: int, start: int, length: int) -> Tensor:
        """Elements [start, start + length) of a dimension: a view."""
        return self._op("slice", a, dim, start, length)

    def transpose(self, a: Tensor, dim0: int, dim1: int) -> Tensor:
        """Two dimensions swapped: a view."""
        return self._op("transpose", a, dim0, dim1)

    def cast(self, a: Tensor, dtype: str) -> Tensor:
        """A contiguous copy in "f32" or "bf16"."""
        return self._op("cast", a, dtypes.named(dtype).value)

    # ---- losses ----

    def mse(self, x: Tensor, target: Tensor) -> Tensor:
        """Mean of (x - target)^2, F32 [1]; no gradient for target."""
        return self._op("mse", x, target)

    def kl_divergence(
        self, logits: Tensor, target: Tensor, labels: Optional[Tensor] = None
    ) -> Tensor:
        """Mean over rows of the divergence of softmax(logits) from softmax(target), F32 [.., V]; no
        gradient for target; rows with a negative label do not count."""
        return self._op("kl_divergence", logits, target, labels)

    def linear_cross_entropy(self, x: Tensor, w: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of -ln softmax(x w^T)[label] over labels that are not negative, and their number."""
        return self._op2("linear_cross_entropy", x, w, labels)

    # ---- of the caller's ----

    def custom(
        self,
        inputs: Sequence[Tensor],
        out: Tensor,
        backward: Callable[["Tape", Tensor, list[Tensor]], None],
        name: str = "custom",
    ) -> None:
        """Records an op whose `out` the caller has computed from inputs: backward(tape, grad of
        out, inputs) adds to the gradients of the inputs with `tape.add_grad`."""
        number = memory.hold((self.context, backward))
        call(
            self.context,
            lib.eqat_op_custom,
            self,
            name.encode(),
            _pointers(inputs),
            len(inputs),
            out,
            _BACKWARD,
            memory.release,
            number,
        )

    def checkpoint(self, segment: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """segment(tape, *inputs) -> Tensor, run without recording now and again, recorded, in
        backward: memory for one segment at a time.  It must be a pure function."""
        number = memory.hold((self.context, segment))
        out = ctypes.c_void_p()
        call_long(
            self.context,
            lib.eqat_tape_checkpoint,
            self,
            _SEGMENT,
            number,
            memory.release,
            _pointers(inputs),
            len(inputs),
            ctypes.byref(out),
        )
        return Tensor._adopt(self.context, out.value)


def _pointers(tensors: Sequence[Tensor]) -> Any:
    """The array keeps the references, as ctypes does for each element."""
    array = (ctypes.c_void_p * len(tensors))(*[t._reference.value for t in tensors])
    array.keep = list(tensors)  # type: ignore[attr-defined]
    return array


@callbacks.guarded
def _backward(number: int, tape: Any, grad: Any, inputs: Any, count: int) -> None:
    context, function = memory.held(number)
    grad = Tensor._borrow(context, grad)
    borrowed = callbacks.tensors(context, inputs, count)
    callbacks.with_tape(context, tape, lambda lent: function(lent, grad, borrowed))


@callbacks.guarded
def _segment(tape: Any, number: int, inputs: Any, count: int, out: Any) -> None:
    context, function = memory.held(number)
    borrowed = callbacks.tensors(context, inputs, count)
    callbacks.give(out, callbacks.with_tape(context, tape, lambda lent: function(lent, *borrowed)))


_BACKWARD = prototypes.backward_fn(_backward)
_SEGMENT = prototypes.segment_fn(_segment)
