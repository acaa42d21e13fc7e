"""Text to token ids and back."""

import ctypes
import os
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np

from .calls import call, create
from .handle import Handle
from .library import lib

ADD_SPECIAL, PARSE_SPECIAL, SKIP_SPECIAL = 1, 2, 4  # eqat_tokenize_flags


def _or_none(id: int) -> Optional[int]:
    return None if id < 0 else id


class Tokenizer(Handle):
    """A byte-pair-encoding tokenizer; ids equal those of Hugging Face `tokenizers`."""

    _kind = "tokenizer"

    def __init__(self, path: Union[str, "os.PathLike[str]"], context: Any):
        """Opens a folder, a tokenizer.json or a GGUF file."""
        make = lib.eqat_tokenizer_open
        self._take(context, create(context, make, context, os.fsencode(path)))

    def encode(self, text: str, add_special: bool = True, parse_special: bool = True) -> np.ndarray:
        """Ids, int32.  add_special: what the tokenizer's rule says around a text, such as a BOS;
        parse_special: text that spells a special token becomes that token."""
        data = text.encode("utf-8", "surrogatepass")
        flags = ADD_SPECIAL * add_special | PARSE_SPECIAL * parse_special
        ids, count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        outs = (ctypes.byref(ids), ctypes.byref(count))
        call(self.context, lib.eqat_tokenizer_encode, self, data, len(data), flags, *outs)
        if not count.value:
            return np.zeros(0, np.int32)
        return np.ctypeslib.as_array(ids, (count.value,)).copy()

    def decode(self, ids: Union[Sequence[int], np.ndarray], skip_special: bool = False) -> str:
        """The text of ids; what is no whole character becomes U+FFFD."""
        return self.decode_bytes(ids, skip_special).decode("utf-8", "replace")

    def decode_bytes(
        self, ids: Union[Sequence[int], np.ndarray], skip_special: bool = False
    ) -> bytes:
        array = np.ascontiguousarray(ids, np.int32)
        text, length = ctypes.c_void_p(), ctypes.c_size_t()
        pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        flags = SKIP_SPECIAL * skip_special
        outs = (ctypes.byref(text), ctypes.byref(length))
        call(self.context, lib.eqat_tokenizer_decode, self, pointer, array.size, flags, *outs)
        return ctypes.string_at(text.value or 0, length.value) if text.value else b""

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return lib.eqat_tokenizer_vocab_size(self._reference)

    def token_text(self, id: int) -> Optional[str]:
        """As the vocabulary writes it; None when no token has this id."""
        text = lib.eqat_tokenizer_token_text(self._reference, id, None)
        return None if text is None else text.decode("utf-8", "replace")

    def token_id(self, text: str) -> Optional[int]:
        data = text.encode()
        return _or_none(lib.eqat_tokenizer_token_id(self._reference, data, len(data)))

    def is_special(self, id: int) -> bool:
        return lib.eqat_tokenizer_is_special(self._reference, id)

    @property
    def bos(self) -> Optional[int]:
        """Beginning of text; None when the tokenizer names none."""
        return _or_none(lib.eqat_tokenizer_bos(self._reference))

    @property
    def eos(self) -> Optional[int]:
        return _or_none(lib.eqat_tokenizer_eos(self._reference))

    @property
    def unk(self) -> Optional[int]:
        return _or_none(lib.eqat_tokenizer_unk(self._reference))

    def save(self, folder: Union[str, "os.PathLike[str]"]) -> None:
        """Writes the tokenizer's files into an existing folder."""
        call(self.context, lib.eqat_tokenizer_save, self, os.fsencode(folder))

    def release_buffers(self) -> None:
        """Gives working memory back, which grows with the longest text so far."""
        lib.eqat_tokenizer_release_buffers(self._reference)
