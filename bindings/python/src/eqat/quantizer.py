"""Uniform group-wise quantization."""

import ctypes
from collections.abc import Mapping
from typing import Any, Optional

from . import dtypes, options, progress, structs
from .calls import call, call_long, create
from .handle import Handle
from .library import lib
from .tensor import Tensor

OPTIONS = options.Group("quantizer")
ALLOCATE = options.Group("allocate")
Rules = Mapping[str, Optional[Mapping[str, Any]]]


class Quantizer(Handle):
    """How weights become codes.  `rules` maps shell wildcards of linears' names ("*.down_proj") to
    the options that differ there, or to None, which leaves them as they are; the last that matches
    counts."""

    _kind = "quantizer"

    @options.options(OPTIONS)
    def __init__(self, context: Any, rules: Optional[Rules] = None, **keywords: Any):
        self._own = OPTIONS.take(keywords)
        struct = options.fill(context, "quantizer", self._own).struct
        make = lib.eqat_quantizer_create
        self._take(context, create(context, make, context, ctypes.byref(struct)))
        for pattern, changes in (rules or {}).items():
            self.add_rule(pattern, changes)

    def add_rule(self, pattern: str, changes: Optional[Mapping[str, Any]]) -> None:
        """Linears whose name matches are quantized with these options where they differ; None: not
        at all."""
        rule = None
        if changes is not None:
            values = {**self._own, **changes}
            rule = ctypes.byref(options.fill(self.context, "quantizer", values).struct)
        call(self.context, lib.eqat_quantizer_add_rule, self, pattern.encode(), rule)

    def lookup(self, name: str) -> Any:
        """The options for a linear of that name; None: it is left as it is."""
        struct = structs.structs["quantizer"]()
        found = lib.eqat_quantizer_lookup(self._reference, name.encode(), ctypes.byref(struct))
        return structs.read("quantizer", struct) if found else None

    @options.options(ALLOCATE)
    def allocate(self, model: Any, data: Any, **keywords: Any) -> None:
        """Gives each of the model's linears that are selected 2, 3 or 4 bits, where they are worth
        most, as rules; data is CalibrationData.  Group size and all else are as before."""
        with progress.shown(ALLOCATE.take(keywords)) as values:
            filled = options.fill(self.context, "allocate", values)
            struct = ctypes.byref(filled.struct)
            call_long(self.context, lib.eqat_quantizer_allocate, self, model, data, struct)

    def _tensors(self, function: Any, count: int, *arguments: Any) -> tuple[Tensor, ...]:
        outs = [ctypes.c_void_p() for _ in range(count)]
        call(self.context, function, self, *arguments, *[ctypes.byref(out) for out in outs])
        return tuple(Tensor._adopt(self.context, out.value) for out in outs)

    def init(
        self, w: Tensor, round_s: bool = False, moments: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Initial scales s and zero points z, F32 [N, G], of w F32 [N, K]; moments F32 [K], of the
        squares of its inputs, or of their products, for init="wmse" and those behind it."""
        return self._tensors(lib.eqat_quantizer_init, 2, w, moments, round_s)

    def freeze(self, w: Tensor, s: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """What a file stores of trained masters: s, z and codes."""
        return self._tensors(lib.eqat_quantizer_freeze, 3, w, s, z)

    def pack(self, w: Tensor, s: Tensor, z: Tensor) -> Tensor:
        """Packed codes U32 [N, K / 32 * bits]."""
        return self._tensors(lib.eqat_quantizer_pack, 1, w, s, z)[0]

    def quantize(self, w: Tensor) -> tuple[Tensor, ...]:
        """Round to nearest: s, z and codes."""
        return self._tensors(lib.eqat_quantizer_quantize, 3, w)

    def dequantize(self, codes: Tensor, s: Tensor, z: Tensor, dtype: str = "f32") -> Tensor:
        """w^ [N, K] from packed codes."""
        value = dtypes.named(dtype).value
        return self._tensors(lib.eqat_quantizer_dequantize, 1, codes, s, z, value)[0]
