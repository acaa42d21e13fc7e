"""Arrays in and out: shared memory where layouts allow, values where they do not."""

import ctypes
import gc
import weakref

import numpy as np
import pytest

import eqat


def same_memory(a, b):
    return a.__array_interface__["data"][0] == b.__array_interface__["data"][0]


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("f4", "f32"), ("f2", "f16"), ("i4", "i32"), ("u1", "u8"), ("u4", "u32")],
)
def test_round_trip(context, dtype, name):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    tensor = eqat.Tensor(array, context)
    assert (tensor.dtype, tensor.shape, tensor.ndim, tensor.count) == (name, (2, 3, 4), 3, 24)
    assert len(tensor) == 2 and name in repr(tensor)
    out = tensor.numpy()
    assert out.dtype == dtype and np.array_equal(out, array) and not same_memory(out, array)
    assert same_memory(np.asarray(tensor), out) and same_memory(tensor.memory(), out)
    out[1, 2, 3] = 77
    assert tensor.numpy()[1, 2, 3] == 77
    assert np.array(tensor, copy=True)[1, 2, 3] == 77
    assert not same_memory(np.array(tensor, copy=True), out)


def test_values_of_python(context):
    assert eqat.Tensor([0.5, 1], context).dtype == "f32"
    assert eqat.Tensor(2.5, context, "f32").item() == 2.5
    assert float(eqat.Tensor([3], context, "i32")) == 3.0
    assert eqat.Tensor.zeros((2, 2), context, "u8").numpy().tolist() == [[0, 0], [0, 0]]
    with pytest.raises(TypeError, match="found int64, expected"):
        eqat.Tensor(np.arange(3), context)
    with pytest.raises(ValueError, match="dtype: found f8"):
        eqat.Tensor([1.0], context, "f8")


def test_bf16_is_rounded_to_even(context):
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -2.5], np.float32)
    tensor = eqat.Tensor(values, context, "bf16")
    assert tensor.dtype == "bf16" and tensor.memory().dtype == np.uint16
    assert tensor.numpy().tolist() == [1.0, 1.0, 1 + 2**-6, -2.5]
    assert not same_memory(tensor.numpy(), tensor.memory())
    with pytest.raises(ValueError, match="copy"):
        tensor.__array__(copy=False)
    raw = np.array([0x3F80, 0xC000], np.uint16)
    wrapped = eqat.Tensor.wrap(raw, context, "bf16")
    assert wrapped.numpy().tolist() == [1.0, -2.0]


def test_wrapping_shares_and_keeps_the_memory(context):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = eqat.Tensor.wrap(array, context)
    columns = eqat.Tensor.wrap(array[:, ::2], context)
    array[2, 2] = 50
    assert tensor.numpy()[2, 2] == 50 and same_memory(tensor.numpy(), array)
    assert columns.strides == (4, 2) and columns.numpy().tolist() == array[:, ::2].tolist()
    gone = weakref.ref(array)
    del array
    gc.collect()
    assert gone() is not None and tensor.numpy()[2, 3] == 11
    view = tensor.reshape(12).slice(0, 10, 2)
    del tensor, columns
    gc.collect()
    assert gone() is not None and view.numpy().tolist() == [50, 11]
    del view
    gc.collect()
    assert gone() is None


def test_what_cannot_be_wrapped(context):
    locked = np.zeros(3, np.float32)
    locked.flags.writeable = False
    for array in (locked, np.zeros(6, np.float32)[::-1]):
        with pytest.raises(ValueError, match="expected a writable one"):
            eqat.Tensor.wrap(array, context)
    with pytest.raises(TypeError, match="for bf16"):
        eqat.Tensor.wrap(np.zeros(3, np.float32), context, "bf16")
    with pytest.raises(eqat.InvalidArgument):
        eqat.Tensor.wrap(np.zeros((1, 1, 1, 1, 1), np.float32), context)


def test_an_array_outlives_its_tensor(context):
    tensor = eqat.Tensor(np.arange(1000, dtype=np.float32), context)
    array = tensor.numpy()[10:]
    tensor.close()
    del tensor
    gc.collect()
    noise = [eqat.Tensor(np.full(1000, 7, np.float32), context) for _ in range(50)]
    assert array[0] == 10 and array[-1] == 999 and len(noise) == 50


def test_views_and_values(context):
    tensor = eqat.Tensor(np.arange(6, dtype=np.float32), context)
    grid = tensor.reshape(2, 3)
    assert grid.slice(1, 1, 2).numpy().tolist() == [[1, 2], [4, 5]]
    grid.fill(4)
    assert tensor.numpy().tolist() == [4] * 6
    grid.write([[1, 2, 3], [4, 5, 6.5]])
    assert tensor.numpy()[5] == 6.5
    half = eqat.Tensor.zeros((2, 3), context, "bf16")
    half.copy_from(grid)
    assert half.numpy()[1, 2] == 6.5


# ---- DLPack ----


def test_dlpack_out_shares_memory(context):
    tensor = eqat.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), context)
    assert tensor.__dlpack_device__() == (1, 0)
    array = np.from_dlpack(tensor)
    assert same_memory(array, tensor.numpy()) and array.tolist() == tensor.numpy().tolist()
    tensor.close()
    gc.collect()
    assert array[1, 2] == 5


def test_dlpack_in_shares_and_keeps_memory(context):
    array = np.empty((4, 6), np.int32)
    array[...] = np.arange(24).reshape(4, 6)
    tensor = eqat.from_dlpack(array[1:, ::2], context)
    assert (tensor.dtype, tensor.shape, tensor.strides) == ("i32", (3, 3), (6, 2))
    array[1, 2] = -9
    assert tensor.numpy()[0].tolist() == [6, -9, 10]
    gone = weakref.ref(array)
    del array
    gc.collect()
    assert gone() is not None
    del tensor
    gc.collect()
    assert gone() is None


def test_dlpack_unused_capsules_leak_nothing(context):
    before = context.bytes
    for _ in range(100):
        tensor = eqat.Tensor(np.zeros(1000, np.float32), context)
        tensor.__dlpack__()
        del tensor
    context.trim()
    assert context.bytes == before


def test_dlpack_bf16_is_bf16(context):
    """Seen through the structure of the standard, as others see it."""
    tensor = eqat.Tensor(np.float32([1, 2, 3]), context, "bf16")
    capsule = tensor.__dlpack__()
    get = ctypes.pythonapi.PyCapsule_GetPointer
    address = get(ctypes.py_object(capsule), b"dltensor")
    code, bits, lanes = ctypes.string_at(address + 20, 4)[0], *ctypes.string_at(address + 21, 1), 1
    assert (code, bits, lanes) == (4, 16, 1)
    again = eqat.from_dlpack(tensor, context)
    assert again.dtype == "bf16" and again.numpy().tolist() == [1, 2, 3]


def test_dlpack_refusals(context):
    with pytest.raises(TypeError, match="found type 0 of 64 bits"):
        eqat.from_dlpack(np.arange(3), context)


def test_memory_of_a_device_is_not_touched(context, monkeypatch):
    """The name alone says that it is; what is copied goes through the library."""
    tensor = eqat.Tensor(np.float32([[1, 2], [3, 4]]), context)
    half = eqat.Tensor([1.5, 2.5], context, "bf16")
    monkeypatch.setattr(context, "device", "cuda:3")
    monkeypatch.setattr(eqat.Tensor, "memory", lambda self: pytest.fail("memory"))
    copy = tensor.numpy()
    assert copy.tolist() == [[1, 2], [3, 4]] and not copy.flags.writeable
    assert tensor.slice(1, 1, 1).numpy().tolist() == [[2], [4]]
    assert half.numpy().tolist() == [1.5, 2.5] and half.slice(0, 1, 1).item() == 2.5
    assert np.asarray(tensor).sum() == 10
    with pytest.raises(ValueError, match="copy=False"):
        tensor.__array__(copy=False)
    assert tensor.__dlpack_device__() == (2, 3)
    with pytest.raises(BufferError, match="DLPack: found a tensor on cuda:3"):
        tensor.__dlpack__()
    with pytest.raises(ValueError, match="DLPack: found a context on cuda:3"):
        eqat.from_dlpack(np.zeros(3, np.float32), context)
    monkeypatch.undo()
    monkeypatch.setattr(context, "device", "cuda")
    assert tensor.__dlpack_device__() == (2, 0)
    with pytest.raises(BufferError, match="memory: found a tensor on cuda"):
        tensor.memory()


def test_torch(context):
    torch = pytest.importorskip("torch")
    tensor = eqat.Tensor(np.float32([[1, 2], [3, 4]]), context)
    shared = torch.from_dlpack(tensor)
    shared[0, 0] = 9
    assert tensor.numpy()[0, 0] == 9
    half = torch.from_dlpack(eqat.Tensor([1.5, 2.5], context, "bf16"))
    assert half.dtype == torch.bfloat16 and half.tolist() == [1.5, 2.5]
    for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.uint8):
        there = torch.arange(6).reshape(2, 3).to(dtype)
        here = eqat.from_dlpack(there.T, context)
        there[1, 0] = 42
        assert here.numpy().tolist() == there.T.tolist()
    del there
    gc.collect()
    assert here.numpy()[0, 1] == 42
