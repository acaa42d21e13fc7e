"""Options are those of the library's tables, and the library checks them."""

import inspect
import pydoc

import pytest

import eqat
from eqat import recipes, structs


def test_help_names_every_option():
    text = pydoc.plain(pydoc.render_doc(eqat.block_ap))
    for struct in ("quantizer", "data", "block_ap"):
        for field in structs.fields[struct]:
            assert field.name.endswith("_user") or f"{field.name} (" in text, field.name
            first = " ".join(field.help.split()[:4])
            assert field.name.endswith("_user") or first in text, field.help
    assert "Default 64." in text
    assert "or as e2e_lr_unit says" in " ".join(eqat.efficientqat.__doc__.split())


def test_signatures_hold_the_defaults():
    parameters = inspect.signature(eqat.block_ap).parameters
    assert parameters["bits"].default == 2 and parameters["bits"].kind.name == "KEYWORD_ONLY"
    assert parameters["init"].default is None and parameters["recipe"].default == "best"
    assert parameters["progress"].default is None
    assert "keywords" not in parameters and "progress_user" not in parameters
    assert inspect.signature(eqat.e2e_qp).parameters["seq_len"].default == 4096
    assert "log_level" not in inspect.signature(eqat.Context).parameters
    both = inspect.signature(eqat.efficientqat).parameters
    assert both["epochs"].default == 2
    assert both["e2e_epochs"].default == 1 and both["e2e_batch_size"].default is None
    assert both["seq_len"].default == 2048 and both["e2e_seq_len"].default == 4096
    assert "e2e_progress" not in both and "e2e_rank" not in both


def test_unknown_names_are_refused_with_a_hint(model):
    with pytest.raises(TypeError, match=r"block_ap\(\) has no option epoch: did you mean epochs\?"):
        eqat.block_ap(model, [1, 2, 3], epoch=1)
    with pytest.raises(TypeError, match="has no option colour"):
        eqat.Context(colour="red")
    with pytest.raises(TypeError, match="context and its options seed"):
        eqat.open("there", context=model.context, seed=4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"bits": 9}, "bits: found .*9.*expected"),
        ({"bits": 2.5}, "bits: found .*2.5.*expected"),
        ({"bits": 2**40}, "bits: found"),
        ({"bits": True}, "bits: found"),
        ({"group_size": 48}, "group_size: found 48"),
        ({"init": "median"}, "init: found .*median.*minmax, mse, wmse, gptq or descent"),
    ],
)
def test_values_out_of_range_are_refused(context, values, words):
    with pytest.raises(eqat.InvalidArgument, match=words):
        eqat.Quantizer(context, **values)


def test_context_options():
    with pytest.raises(eqat.InvalidArgument, match="threads: found -1, expected"):
        eqat.Context(threads=-1)
    with pytest.raises(eqat.Error, match="device"):
        eqat.Context(device="abacus")
    with eqat.Context(device="ref", threads=2, seed=2**63 + 1, amx=False) as context:
        assert (context.threads, context.device) == (2, "ref")


def test_streams_and_limits_are_of_cuda():
    assert inspect.signature(eqat.Context).parameters["stream"].default is None
    assert "stream (int): " in eqat.Context.__init__.__doc__
    with eqat.Context(threads=1, stream=0, device_memory=0) as context:  # the defaults
        assert context.device_bytes == context.bytes
        assert context.device_bytes_peak == context.bytes_peak
        assert context.device_bytes_left is None
    with pytest.raises(eqat.InvalidArgument, match="stream: found one for device cpu"):
        eqat.Context(threads=1, stream=64)
    with pytest.raises(eqat.InvalidArgument, match="device_memory: found 9 for device ref"):
        eqat.Context(device="ref", device_memory=9)
    with pytest.raises(TypeError):
        eqat.Context(threads=1, stream="a stream")


def test_values_arrive(context):
    quantizer = eqat.Quantizer(context, bits=3, group_size=-1, init="mse", zero_point="fixed")
    found = quantizer.lookup("any")
    assert (found.bits, found.group_size, found.init, found.zero_point) == (3, -1, 1, 1)
    quantizer.add_rule("model.*", {"bits": 4})
    quantizer.add_rule("*.gate", None)
    assert quantizer.lookup("model.q").bits == 4 and quantizer.lookup("model.q").init == 1
    assert quantizer.lookup("model.gate") is None
    adam = eqat.Optimizer(context, total_steps=10, warmup_steps=2, min_lr_factor=0.5)
    assert [adam.lr_factor(k) for k in (0, 1, 2, 10)] == [0, 0.5, 1, 0.5]


def test_none_is_the_default(context):
    assert eqat.Quantizer(context, bits=None).lookup("any").bits == 2


def test_none_is_what_the_recipe_says():
    assert "Default 'minmax' with paper, 'descent' with best." in " ".join(
        eqat.block_ap.__doc__.split()
    )
    said = recipes._of_recipe("best", {"init": None, "bits": 3}, **recipes.BLOCK_AP_GROUPS)
    assert said["init"] == "descent" and said["bits"] == 3
    assert "seq_len" not in recipes.DATA.take({"seq_len": None})
