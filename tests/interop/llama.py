"""llama.cpp by ctypes: libllama as wheels on PyPI carry it (xllamacpp, llama-cpp-python)."""

import ctypes as c
import glob
import importlib.util
import os

import numpy as np


class Defaults(c.Structure):
    """A struct of defaults with room for any version's; members are reached by their offset."""

    _fields_ = [("words", c.c_uint32 * 256)]


class Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    ]


LOG = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
quiet = LOG(lambda level, text, user: None)


def find_library():
    for package, pattern in (("xllamacpp", "*.so"), ("llama_cpp", "lib/libllama.so")):
        spec = importlib.util.find_spec(package)
        if not spec:
            continue
        for path in glob.glob(os.path.join(os.path.dirname(spec.origin), pattern)):
            return declare(c.CDLL(path))
    return None


def declare(lib):
    pointer, integer = c.c_void_p, c.c_int32
    for name, result, arguments in (
        ("llama_log_set", None, [LOG, pointer]),
        ("llama_model_default_params", Defaults, []),
        ("llama_context_default_params", Defaults, []),
        ("llama_model_load_from_file", pointer, [c.c_char_p, Defaults]),
        ("llama_model_free", None, [pointer]),
        ("llama_init_from_model", pointer, [pointer, Defaults]),
        ("llama_free", None, [pointer]),
        ("llama_batch_init", Batch, [integer] * 3),
        ("llama_decode", integer, [pointer, Batch]),
        ("llama_get_logits_ith", c.POINTER(c.c_float), [pointer, integer]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_clear", None, [pointer, c.c_bool]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", integer, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.llama_log_set(quiet, None)
    return lib


class Llama:
    def __init__(self, lib, path, length):
        self.lib = lib
        self.model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        assert self.model, f"{path}: llama.cpp cannot load it"
        params = lib.llama_context_default_params()
        params.words[0] = params.words[1] = params.words[2] = length  # n_ctx, n_batch, n_ubatch
        self.context = lib.llama_init_from_model(self.model, params)
        assert self.context, f"{path}: llama.cpp cannot make a context of {length} tokens"
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.batch = lib.llama_batch_init(length, 0, 1)

    def logits(self, ids):
        """Of every position, [ids, vocabulary]."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        b = self.batch
        b.n_tokens = len(ids)
        for i, token in enumerate(ids):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = int(token), i, 1, 1
            b.seq_id[i][0] = 0
        assert self.lib.llama_decode(self.context, b) == 0, "llama_decode failed"
        rows = (self.lib.llama_get_logits_ith(self.context, i) for i in range(len(ids)))
        return np.array([np.ctypeslib.as_array(row, (self.vocab,)) for row in rows])

    def close(self):
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)


def dequantize(lib, name, data, rows, width):
    """ggml's own values of the rows of one tensor, F32 [rows, width]."""
    out = np.empty((rows, width), np.float32)
    function = getattr(lib, f"dequantize_row_{name.lower()}")
    function.restype, function.argtypes = None, [c.c_void_p, c.c_void_p, c.c_int64]
    data = np.ascontiguousarray(data)
    function(data.ctypes.data, out.ctypes.data, rows * width)
    return out
