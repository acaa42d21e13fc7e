"""Whole recipes in one call: Block-AP, E2E-QP, and EfficientQAT, which is both."""

from typing import Any, Optional

from . import options
from .data import OPTIONS as DATA
from .data import CalibrationData
from .jobs import BLOCK_AP, E2E_QP, E2EQP, BlockAP
from .model import Model
from .quantizer import OPTIONS as QUANTIZER
from .quantizer import Quantizer

# The paper's setting of E2E-QP: longer samples, no validation unless asked for.
E2E_DEFAULTS = {"seq_len": 4096, "val_size": 0}
E2E_DATA = options.Group("data", E2E_DEFAULTS)
# In one call with Block-AP: what both share is given once.
SHARED = ["sampling", "shuffle", "rank", "world"]
CALLBACKS = ["progress", "between", "gradient", "reduce"]
E2E_DATA_TOO = options.Group("data", E2E_DEFAULTS, "e2e_", ["train_size", "val_size", "seq_len"])
E2E_QP_TOO = options.Group("e2e_qp", {}, "e2e_", None, CALLBACKS)


def _data(source: Any, model: Model, group: options.Group, keywords: Any) -> CalibrationData:
    if isinstance(source, CalibrationData):
        return source
    return CalibrationData(source, model, **group.take(keywords))


@options.options(QUANTIZER, DATA, BLOCK_AP)
def block_ap(
    model: Model,
    calib: Any,
    *,
    quantizer: Optional[Quantizer] = None,
    rules: Any = None,
    **keywords: Any,
) -> Model:
    """Block-AP: quantizes the model in place, training one block after another; returns it.

    calib is CalibrationData or whatever that takes.  Interrupted, the blocks that were finished
    stay quantized and the rest is as before."""
    own = quantizer or Quantizer(model.context, rules, **QUANTIZER.take(keywords))
    data = _data(calib, model, DATA, keywords)
    with BlockAP(model, own, data, **BLOCK_AP.take(keywords)) as job:
        job.run()
    return model


@options.options(E2E_DATA, E2E_QP)
def e2e_qp(model: Model, data: Any, **keywords: Any) -> Model:
    """E2E-QP: trains the scales of a quantized model end to end, in place; returns it.

    data is CalibrationData or whatever that takes.  Interrupted, the model is as before."""
    samples = _data(data, model, E2E_DATA, keywords)
    with E2EQP(model, samples, **E2E_QP.take(keywords)) as job:
        job.run()
    return model


@options.options(QUANTIZER, DATA, BLOCK_AP, E2E_DATA_TOO, E2E_QP_TOO)
def efficientqat(
    model: Model,
    calib: Any,
    *,
    e2e: Any = None,
    quantizer: Optional[Quantizer] = None,
    rules: Any = None,
    **keywords: Any,
) -> Model:
    """EfficientQAT: Block-AP, then E2E-QP; quantizes the model in place and returns it.

    calib is CalibrationData or whatever that takes; e2e is the same for E2E-QP (default: calib
    again, which must not be a generator then).  What E2E-QP would refuse is refused before Block-AP
    begins."""
    own = quantizer or Quantizer(model.context, rules, **QUANTIZER.take(keywords))
    shared = {name: keywords[name] for name in SHARED + CALLBACKS if name in keywords}
    later = {**shared, **E2E_DATA_TOO.take(keywords), **E2E_QP_TOO.take(keywords)}
    data = _data(calib, model, DATA, keywords)
    samples = _data(calib if e2e is None else e2e, model, E2E_DATA, later)
    E2EQP.check(model, samples, own, **E2E_QP.take(later))
    block_ap(model, data, quantizer=own, **BLOCK_AP.take(keywords))
    return e2e_qp(model, samples, **E2E_QP.take(later))
