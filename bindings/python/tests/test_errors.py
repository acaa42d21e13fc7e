"""Failures are exceptions of Python's kinds with the library's line."""

import logging

import pytest

import eqat


def test_kinds():
    for kind, builtin in (
        (eqat.InvalidArgument, ValueError),
        (eqat.OutOfMemory, MemoryError),
        (eqat.FileError, OSError),
        (eqat.FormatError, ValueError),
        (eqat.Unsupported, NotImplementedError),
        (eqat.NotFound, LookupError),
        (eqat.Exists, FileExistsError),
        (eqat.NumericError, ArithmeticError),
        (eqat.BackendError, RuntimeError),
    ):
        assert issubclass(kind, builtin) and issubclass(kind, eqat.Error)


def test_the_line_is_the_librarys(context, tmp_path):
    with pytest.raises(eqat.NotFound, match="nowhere") as caught:
        eqat.open(tmp_path / "nowhere", context=context)
    assert caught.value.status == 6
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(eqat.FormatError, match="config.json"):
        eqat.open(tmp_path, context=context)
    with pytest.raises(eqat.Unsupported, match="gptq_v9"):
        raise_from_check_save(context, tmp_path)


def raise_from_check_save(context, tmp_path):
    import tiny

    model = eqat.open(tiny.write(tmp_path / "m"), context=context)
    model.check_save(format="gptq_v9")


def test_wrong_kinds_of_arguments(model, context):
    tensor = eqat.Tensor([1.0], context)
    with pytest.raises(TypeError, match="expected model, found tensor"):
        eqat.BlockAP(tensor, eqat.Quantizer(context), tensor)
    with pytest.raises(TypeError):
        eqat.Tape(context).mse(tensor, "a string")
    with pytest.raises(ValueError, match="shapes"):
        model.forward({"ids": [[1, 2]], "labels": [[1]]})


def test_closed_handles_say_so(model):
    with model:
        model.info  # noqa: B018
    assert model.closed
    with pytest.raises(ValueError, match="Model is closed"):
        model.save("out")
    with pytest.raises(ValueError, match="Model is closed"):
        model.info  # noqa: B018
    model.close()


def test_log(folder, caplog):
    logger = logging.getLogger("eqat")
    with caplog.at_level(logging.DEBUG, logger="eqat"):
        context = eqat.Context(threads=1)
        model = eqat.open(folder, context=context)
        del context
        eqat.CalibrationData([1, 2, 3] * 40, model, train_size=50, val_size=0, seq_len=8,
                             sampling="consecutive")  # fmt: skip
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings and "fewer" in warnings[0].getMessage() or "found" in warnings[0].getMessage()
    quiet = logging.getLogger("eqat.quiet")
    quiet.setLevel(logging.ERROR)
    caplog.clear()
    other = eqat.open(folder, context=eqat.Context(threads=1, logger=quiet))
    eqat.CalibrationData([1, 2, 3] * 40, other, train_size=50, val_size=0, seq_len=8,
                         sampling="consecutive")  # fmt: skip
    assert not caplog.records
    assert logger
