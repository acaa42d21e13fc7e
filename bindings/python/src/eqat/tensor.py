"""Tensors, and the ways between them and arrays of others."""

import ctypes
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from . import dlpack, dtypes, memory
from .calls import call, create
from .handle import Handle, Reference
from .library import lib


class _View:
    """Makes NumPy see a tensor's memory; the array keeps this, and this the memory."""

    def __init__(self, reference: Reference, interface: Any):
        self.reference = reference
        self.__array_interface__ = interface


def _bytes_behind(shape: Sequence[int], strides: Optional[Sequence[int]], size: int) -> int:
    """From the first to behind the last element."""
    if strides is None:
        return int(np.prod(shape, dtype=np.int64)) * size
    if 0 in shape:
        return 0
    return (sum((n - 1) * step for n, step in zip(shape, strides)) + 1) * size


def _int64s(values: Optional[Sequence[int]]) -> Any:
    return None if values is None else (ctypes.c_int64 * len(values))(*values)


class Tensor(Handle):
    """An array of at most 4 dimensions on the context's device.

    `Tensor(array, context)` copies; `Tensor.wrap` and `eqat.from_dlpack` use the memory that is
    there.  `numpy.asarray(tensor)`, `tensor.numpy()` and `torch.from_dlpack(tensor)` share the
    tensor's memory, which stays as long as anybody uses it; NumPy has no bf16 and gets a copy in
    float32.  Of a tensor on a CUDA device NumPy gets a copy that is not writable, and the others
    are refused."""

    _kind = "tensor"

    def __init__(self, array: Any, context: Any, dtype: Optional[str] = None):
        """Copies array, or anything np.asarray takes, into a new tensor, of its own type or
        converted to dtype ("f32", "bf16", "f16", "f64", "i32", "u8", "u32")."""
        source = np.ascontiguousarray(array)
        if dtype is None and source.dtype == np.float64 and not hasattr(array, "dtype"):
            source = source.astype(np.float32)
        kind = dtypes.named(dtype) if dtype else dtypes.of_numpy(source.dtype)
        if kind is dtypes.BF16:
            self._take_bf16(source, context)
            return
        source = np.ascontiguousarray(source, kind.numpy)
        self._take(context, _create(context, kind, source.shape, source.ctypes.data))

    def _take_bf16(self, source: np.ndarray, context: Any) -> None:
        if str(source.dtype) == "bfloat16":
            data = source.ctypes.data
            self._take(context, _create(context, dtypes.BF16, source.shape, data))
            return
        self._take(context, _create(context, dtypes.BF16, source.shape, None))
        call(context, lib.eqat_tensor_copy, self, Tensor(source, context, "f32"))

    @classmethod
    def zeros(cls, shape: Sequence[int], context: Any, dtype: str = "f32") -> "Tensor":
        return cls._adopt(context, _create(context, dtypes.named(dtype), tuple(shape), None))

    @classmethod
    def wrap(cls, array: np.ndarray, context: Any, dtype: Optional[str] = None) -> "Tensor":
        """A tensor in the memory of a writable array, without copying; dtype "bf16" takes uint16.
        Strides must be whole elements, and not negative."""
        kind = dtypes.named(dtype) if dtype else dtypes.of_numpy(array.dtype)
        size = kind.numpy.itemsize
        if array.dtype.itemsize != size:
            raise TypeError(f"array: found {array.dtype}, expected {kind.numpy} for {kind.name}")
        if not array.flags.writeable or any(s < 0 or s % size for s in array.strides):
            raise ValueError(
                "array: found it read-only or with such strides, expected a writable one"
            )
        if array.ndim == 0:
            array = array.reshape(1)
        strides = [step // size for step in array.strides]
        return cls._in_place(context, kind, array.shape, strides, array.ctypes.data, array)

    @classmethod
    def _in_place(
        cls, context: Any, kind: Any, shape: Any, strides: Any, data: int, owner: Any
    ) -> "Tensor":
        size = _bytes_behind(shape, strides, kind.numpy.itemsize)
        number = memory.hold(owner)
        try:
            address = create(
                context,
                lib.eqat_tensor_wrap,
                context,
                kind.value,
                len(shape),
                _int64s(shape),
                _int64s(strides),
                data,
                size,
                memory.release_memory,
                number,
            )
        except BaseException:
            memory.drop(number)
            raise
        return cls._adopt(context, address)

    @classmethod
    def _borrow(cls, context: Any, address: Any) -> Optional["Tensor"]:
        """A reference of one's own on what the library lends; None of NULL."""
        if not address:
            return None
        lent = cls._lent(context, address)
        return cls._adopt(context, lib.eqat_tensor_ref(lent._reference))

    def _another_reference(self) -> int:
        return lib.eqat_tensor_ref(self._reference)

    @property
    def dtype(self) -> str:
        return self._kind_of_elements.name

    @property
    def _kind_of_elements(self) -> dtypes.DType:
        return dtypes.DTYPES[lib.eqat_tensor_dtype(self._reference)]

    @property
    def ndim(self) -> int:
        return lib.eqat_tensor_ndim(self._reference)

    @property
    def shape(self) -> tuple[int, ...]:
        reference = self._reference
        return tuple(lib.eqat_tensor_size(reference, i) for i in range(self.ndim))

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
        reference = self._reference
        return tuple(lib.eqat_tensor_stride(reference, i) for i in range(self.ndim))

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def count(self) -> int:
        """Number of elements."""
        return lib.eqat_tensor_count(self._reference)

    def __repr__(self) -> str:
        if self.closed:
            return "<eqat.Tensor, closed>"
        return f"<eqat.Tensor {self.dtype} {list(self.shape)}>"

    # ---- out ----

    @property
    def _on_host(self) -> bool:
        return not self.context.device.startswith("cuda")

    def _check_on_host(self, what: str) -> None:
        if not self._on_host:
            raise BufferError(
                f"{what}: found a tensor on {self.context.device}, expected one in the host's "
                "memory; numpy() copies it there"
            )

    def _copy_to_host(self) -> np.ndarray:
        array = np.empty(self.shape, self._kind_of_elements.numpy)
        source = self
        if self.strides != tuple(step // array.itemsize for step in array.strides):
            source = Tensor.zeros(self.shape, self.context, self.dtype)  # contiguous
            source.copy_from(self)
        call(self.context, lib.eqat_tensor_read, source, array.ctypes.data, array.nbytes)
        array.flags.writeable = False  # writing would not change the tensor
        return array

    def memory(self) -> np.ndarray:
        """The tensor's own memory as an array: writing changes the tensor.  bf16 is uint16."""
        self._check_on_host("memory")
        kind, size = self._kind_of_elements, self._kind_of_elements.numpy.itemsize
        interface = {
            "version": 3,
            "shape": self.shape,
            "strides": tuple(step * size for step in self.strides),
            "typestr": kind.numpy.str,
            "data": (lib.eqat_tensor_data(self._reference) or 0, False),
        }
        return np.asarray(_View(self._reference, interface))

    def numpy(self) -> np.ndarray:
        """An array of the tensor's memory, without a copy; of bf16 a copy in float32, and of a
        tensor on a CUDA device a copy that is not writable."""
        array = self.memory() if self._on_host else self._copy_to_host()
        if self._kind_of_elements is dtypes.BF16:
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        array = self.numpy()
        shared = self._on_host and self.dtype != "bf16" and dtype in (None, array.dtype)
        if copy is False and not shared:
            raise ValueError(f"{self.dtype} tensor: found copy=False, but NumPy needs a copy")
        return np.array(array, dtype, copy=True) if copy else np.asarray(array, dtype)

    def __dlpack__(self, **_request: Any) -> Any:
        """For from_dlpack of others: the tensor's memory, bf16 as such."""
        self._check_on_host("DLPack")
        return dlpack.export(self.memory(), self._kind_of_elements)

    def __dlpack_device__(self) -> tuple[int, int]:
        if self._on_host:
            return (dlpack.CPU, 0)
        return (dlpack.CUDA, int(self.context.device.partition(":")[2] or 0))

    def item(self) -> float:
        """The only element."""
        return self.numpy().item()

    def __float__(self) -> float:
        return float(self.item())

    # ---- in ----

    def write(self, array: Any) -> None:
        """Copies values of an array of this shape in, converted to the tensor's type."""
        self.copy_from(Tensor(array, self.context))

    def copy_from(self, source: "Tensor") -> None:
        """Copies elements with conversion (round to nearest even); same shape."""
        call(self.context, lib.eqat_tensor_copy, self, source)

    def fill(self, value: float) -> None:
        call(self.context, lib.eqat_tensor_fill, self, value)

    # ---- views ----

    def reshape(self, *shape: int) -> "Tensor":
        """A view of a contiguous tensor."""
        return self._view(lib.eqat_tensor_reshape, len(shape), _int64s(shape))

    def slice(self, dim: int, start: int, length: int) -> "Tensor":
        """A view of elements [start, start + length) of a dimension."""
        return self._view(lib.eqat_tensor_slice, dim, start, length)

    def _view(self, function: Any, *arguments: Any) -> "Tensor":
        out = ctypes.c_void_p()
        call(self.context, function, self, *arguments, ctypes.byref(out))
        return Tensor._adopt(self.context, out.value)

    # ---- gradients ----

    @property
    def requires_grad(self) -> bool:
        """Whether ops that use this leaf are recorded and backward fills its gradient."""
        return lib.eqat_tensor_requires_grad(self._reference)

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        call(self.context, lib.eqat_tensor_set_requires_grad, self, bool(on))

    @property
    def grad(self) -> Optional["Tensor"]:
        """The accumulated gradient; None when none was computed since it was cleared."""
        return Tensor._borrow(self.context, lib.eqat_tensor_grad(self._reference))

    def zero_grad(self) -> None:
        lib.eqat_tensor_zero_grad(self._reference)


def _create(context: Any, kind: dtypes.DType, shape: Sequence[int], data: Optional[int]) -> int:
    shape = tuple(shape) or (1,)
    return create(
        context, lib.eqat_tensor_create, context, kind.value, len(shape), _int64s(shape), data
    )


def from_dlpack(array: Any, context: Any) -> Tensor:
    """A tensor in the memory of another library's array (torch, NumPy, JAX), without copying; both
    in the host's memory."""
    if context.context.device.startswith("cuda"):
        raise ValueError(
            f"DLPack: found a context on {context.context.device}, expected one in the host's "
            "memory; Tensor(array, context) copies"
        )
    foreign = dlpack.receive(array)
    if foreign.device[0] != dlpack.CPU:
        raise ValueError(f"DLPack: found memory of device {foreign.device}, expected the CPU's")
    shape, strides = foreign.shape, foreign.strides
    if not shape:
        shape, strides = [1], None
    return Tensor._in_place(context, foreign.dtype, shape, strides, foreign.data, foreign.capsule)
