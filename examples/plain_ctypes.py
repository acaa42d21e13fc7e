#!/usr/bin/env python3
"""libeqat from Python without a package: rounds a model to 2 bits and measures it.

    plain_ctypes.py MODEL TOKENS OUT        TOKENS: .npy, .u16, .u32, or text

Options are bytes of the size that the library says, filled by name; so is what it reports. The
library is found as ctypes finds any; EQAT_LIBRARY names another file.
"""

import ctypes, ctypes.util, os, sys

POINTER = ctypes.c_void_p
PATH = os.environ.get("EQAT_LIBRARY") or ctypes.util.find_library("eqat") or "libeqat.so.0"
lib = ctypes.CDLL(PATH)


class Error(Exception):
    pass


class Field(ctypes.Structure):  # eqat_field, up to its offset
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("help", ctypes.c_char_p),
        ("names", POINTER),
        ("type", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("offset", ctypes.c_size_t),
    ]


def call(context, name, *args):
    """A function that returns a status; the context has the line that tells what went wrong."""
    if getattr(lib, name)(*args) != 0:
        lib.eqat_context_error.restype = ctypes.c_char_p
        raise Error(lib.eqat_context_error(context).decode())


def make(context, name, *args):
    """A handle: what a call on the context stores behind it."""
    out = POINTER()
    call(context, name, context, ctypes.byref(out), *args)
    return out


def struct(name):
    """Bytes that begin with their number, as every options struct and report does."""
    lib.eqat_options_size.restype = ctypes.c_size_t
    size = lib.eqat_options_size(name.encode())
    return (ctypes.c_char * size).from_buffer_copy(
        size.to_bytes(ctypes.sizeof(ctypes.c_size_t), sys.byteorder).ljust(size, b"\0")
    )


def options(context, name, **values):
    s = struct(name)
    getattr(lib, f"eqat_{name}_options_init")(s, ctypes.c_size_t(len(s)))
    for field, value in values.items():
        text = str(value).lower().encode()
        call(context, "eqat_options_set", context, name.encode(), s, field.encode(), text)
    return s


def member(struct_name, s, name, kind):
    field = Field(ctypes.sizeof(Field))
    index = 0
    while field.name != name.encode():
        if lib.eqat_options_field(
            struct_name.encode(), ctypes.c_size_t(index), ctypes.byref(field)
        ):
            raise Error(f"{struct_name}: no member {name}")
        index += 1
    return kind.from_buffer(s, field.offset).value


def main(path, tokens, out):
    context = POINTER()
    line = ctypes.create_string_buffer(512)
    if lib.eqat_context_create(ctypes.byref(context), None, line, ctypes.c_size_t(len(line))):
        raise Error(line.value.decode())
    model = make(context, "eqat_model_open", path.encode(), None)
    quantizer = make(context, "eqat_quantizer_create", options(context, "quantizer", bits=2))
    call(context, "eqat_model_quantize_rtn", model, quantizer, None)
    call(context, "eqat_model_save", model, out.encode(), None)

    lib.eqat_model_tokenizer.restype = POINTER
    tokenizer = POINTER(lib.eqat_model_tokenizer(model))
    windows = options(
        context,
        "data",
        train_size=0,
        val_size=0,
        seq_len=64,
        sampling="consecutive",
        shuffle=False,
    )
    unchecked = ctypes.c_int64(0)
    data = make(context, "eqat_data_open", tokens.encode(), tokenizer, unchecked, windows)
    report = struct("perplexity")
    call(context, "eqat_eval_perplexity", model, data, None, report)
    print(f"{out}: perplexity {member('perplexity', report, 'perplexity', ctypes.c_double):.3f}")
    for kind, handle in (("data", data), ("quantizer", quantizer), ("model", model)):
        getattr(lib, f"eqat_{kind}_free")(handle)
    lib.eqat_context_free(context)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except Error as e:
        sys.exit(f"plain_ctypes.py: {e}")
