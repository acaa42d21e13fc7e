"""Whole recipes in one call: Block-AP, E2E-QP, and EfficientQAT, which is both."""

import ctypes
import os
from collections.abc import Iterator
from typing import Any, Optional

from . import options, structs
from .data import OPTIONS as DATA
from .data import CalibrationData
from .jobs import BLOCK_AP, E2E_QP, E2EQP, BlockAP
from .library import lib
from .model import Model
from .quantizer import OPTIONS as QUANTIZER
from .quantizer import Quantizer

RECIPE = "best"


def recipes() -> list[str]:
    """The names that recipe= takes."""
    names: list[str] = []
    while name := lib.eqat_recipe_name(len(names)):
        names.append(name.decode())
    return names


def _text(address: ctypes.c_void_p) -> str:
    return ctypes.string_at(address.value or 0).decode()


def _rows(recipe: str, group: str) -> Iterator[tuple[str, str]]:
    if recipe not in recipes():
        raise ValueError(f"recipe: found {recipe!r}, expected {' or '.join(recipes())}")
    field, value, index = ctypes.c_void_p(), ctypes.c_void_p(), 0
    where = recipe.encode(), group.encode()
    said = ctypes.byref(field), ctypes.byref(value)
    while lib.eqat_recipe_option(*where, index, *said) == 0:
        index += 1
        yield _text(field), _text(value)


PARSE: dict[int, Any] = {
    structs.BOOL: lambda text: text == "on",
    structs.I32: int,
    structs.I64: int,
    structs.U64: int,
    structs.F64: float,
}


def _of_recipe(recipe: str, keywords: Any, **groups: options.Group) -> Any:
    """The keywords, and what the recipe says where they are silent or None."""
    said = {}
    for name, group in groups.items():
        types = {field.name: field.type for field in structs.fields[group.struct]}
        for field, text in _rows(recipe, name):
            said[group.prefix + field] = PARSE.get(types[field], str)(text)
    return {**said, **{k: v for k, v in keywords.items() if v is not None or k not in said}}


def _of_recipes(**groups: options.Group) -> options.Recipes:
    return {recipe: _of_recipe(recipe, {}, **groups) for recipe in recipes()}


E2E_DEFAULTS: dict[str, Any] = {"seq_len": 4096, "val_size": 0}  # as every recipe says
E2E_DATA = options.Group("data", E2E_DEFAULTS)
# In one call with Block-AP: what both share is given once.
SHARED = ["sampling", "shuffle", "rank", "world"]
CALLBACKS = ["progress", "between", "gradient", "reduce"]
E2E_DATA_TOO = options.Group("data", E2E_DEFAULTS, "e2e_", ["train_size", "val_size", "seq_len"])
E2E_QP_TOO = options.Group("e2e_qp", {}, "e2e_", None, CALLBACKS)


# In one call with training.
ALLOCATE = options.Group("allocate", without=["progress"])


def _allocate(
    quantizer: Quantizer, model: Model, calib: Any, data: CalibrationData, keywords: Any
) -> None:
    if not keywords.get("bits_per_weight"):
        return
    if (keywords.get("world") or 1) > 1:  # every rank from the same samples
        data = _data(calib, model, DATA, {**keywords, "rank": 0, "world": 1})
    quantizer.allocate(model, data, **ALLOCATE.take(keywords))


def _data(source: Any, model: Model, group: options.Group, keywords: Any) -> CalibrationData:
    if isinstance(source, CalibrationData):
        return source
    return CalibrationData(source, model, **group.take(keywords))


BLOCK_AP_GROUPS = {"quantizer": QUANTIZER, "data": DATA, "block_ap": BLOCK_AP}
E2E_GROUPS = {"e2e_data": E2E_DATA, "e2e_qp": E2E_QP}
BOTH_GROUPS = {**BLOCK_AP_GROUPS, "e2e_data": E2E_DATA_TOO, "e2e_qp": E2E_QP_TOO}


@options.options(QUANTIZER, ALLOCATE, DATA, BLOCK_AP, recipes=_of_recipes(**BLOCK_AP_GROUPS))
def block_ap(
    model: Model,
    calib: Any,
    *,
    quantizer: Optional[Quantizer] = None,
    rules: Any = None,
    recipe: str = RECIPE,
    **keywords: Any,
) -> Model:
    """Block-AP: quantizes the model in place, training one block after another; returns it.

    calib is CalibrationData or whatever that takes; recipe ("paper" or "best") gives the options
    that are not given here, or are None.  Interrupted, the blocks that were finished stay quantized
    and the rest is as before."""
    keywords = _of_recipe(recipe, keywords, **BLOCK_AP_GROUPS)
    own = quantizer or Quantizer(model.context, rules, **QUANTIZER.take(keywords))
    data = _data(calib, model, DATA, keywords)
    _allocate(own, model, calib, data, keywords)
    with BlockAP(model, own, data, **BLOCK_AP.take(keywords)) as job:
        job.run()
    return model


@options.options(E2E_DATA, E2E_QP, recipes=_of_recipes(**E2E_GROUPS))
def e2e_qp(model: Model, data: Any, *, recipe: str = RECIPE, **keywords: Any) -> Model:
    """E2E-QP: trains the scales of a quantized model end to end, in place; returns it.

    data is CalibrationData or whatever that takes; recipe as in block_ap.  Interrupted, the model
    is as before."""
    keywords = _of_recipe(recipe, keywords, **E2E_GROUPS)
    samples = _data(data, model, E2E_DATA, keywords)
    with E2EQP(model, samples, **E2E_QP.take(keywords)) as job:
        job.run()
    return model


@options.options(
    *(QUANTIZER, ALLOCATE, DATA, BLOCK_AP, E2E_DATA_TOO, E2E_QP_TOO),
    recipes=_of_recipes(**BOTH_GROUPS),
)
def efficientqat(
    model: Model,
    calib: Any,
    *,
    e2e: Any = None,
    quantizer: Optional[Quantizer] = None,
    rules: Any = None,
    recipe: str = RECIPE,
    **keywords: Any,
) -> Model:
    """EfficientQAT: Block-AP, then E2E-QP; quantizes the model in place and returns it.

    calib is CalibrationData or whatever that takes; e2e is the same for E2E-QP (default: calib
    again, which must not be a generator then; of the same text E2E-QP begins with what Block-AP
    leaves); recipe as in block_ap: with "best" E2E-QP learns from the model as its file has it,
    unless e2e_teacher says otherwise.  What E2E-QP would refuse is refused before Block-AP
    begins."""
    keywords = _of_recipe(recipe, keywords, **BOTH_GROUPS)
    if "e2e_teacher" not in keywords and ("teacher", "source") in _rows(recipe, "run"):
        path, opened = model._opened
        with Model(path, model.context, **opened) as source:
            return _both(model, calib, e2e, quantizer, rules, {**keywords, "e2e_teacher": source})
    return _both(model, calib, e2e, quantizer, rules, keywords)


def _same_text(calib: Any, e2e: Any) -> bool:
    paths = [s for s in (calib, e2e) if isinstance(s, (str, os.PathLike))]
    return e2e is None or len(paths) == 2 and os.fspath(calib) == os.fspath(e2e)


def _taken(keywords: Any) -> int:
    """Tokens that Block-AP asks for, and those that it skips; 0 samples are all there are."""
    asked = {**{f.name: f.default for f in DATA.fields()}, **DATA.take(keywords)}
    windows = asked["train_size"] + asked["val_size"] if asked["train_size"] else 0
    taken: int = asked["skip_tokens"] + windows * asked["seq_len"]
    return taken


def _held(keywords: Any) -> int:
    """Tokens that Block-AP validates on, and with 0 samples what is left over behind them."""
    asked = {**{f.name: f.default for f in DATA.fields()}, **DATA.take(keywords)}
    left: int = 0 if asked["train_size"] else asked["seq_len"] - 1
    held: int = asked["val_size"] * asked["seq_len"] + left
    return held


def _both(
    model: Model, calib: Any, e2e: Any, quantizer: Optional[Quantizer], rules: Any, keywords: Any
) -> Model:
    own = quantizer or Quantizer(model.context, rules, **QUANTIZER.take(keywords))
    shared = {name: keywords[name] for name in SHARED + CALLBACKS if name in keywords}
    later = {**shared, **E2E_DATA_TOO.take(keywords), **E2E_QP_TOO.take(keywords)}
    data = _data(calib, model, DATA, keywords)
    if data.token_count and _same_text(calib, e2e):
        later["skip_tokens"] = _taken(keywords)
        later["held_tokens"] = _held(keywords)
    samples = _data(calib if e2e is None else e2e, model, E2E_DATA, later)
    _allocate(own, model, calib, data, keywords)
    E2EQP.check(model, samples, own, **E2E_QP.take(later))
    for phase, source, group, taken in (
        (BlockAP, (own, data), BLOCK_AP, keywords),
        (E2EQP, (samples,), E2E_QP, later),
    ):
        with phase(model, *source, **group.take(taken)) as job:
            job.run()
    return model
