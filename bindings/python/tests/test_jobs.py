"""Jobs in steps, their state, and what callbacks see."""

import numpy as np
import pytest

import eqat
import tiny

SIZE = {"train_size": 6, "val_size": 2, "seq_len": 32}
STEPS = {"batch_size": 2, "epochs": 2, "quant_lr": 1e-3, "weight_lr": 1e-3}


def scales(model):
    return model.parameter("model.layers.1.mlp.down_proj.scales").numpy().copy()


@pytest.fixture
def start(folder, text):
    def make(**more):
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        data = eqat.CalibrationData(text, model, **SIZE)
        quantizer = eqat.Quantizer(model.context, bits=2, group_size=32)
        return model, eqat.BlockAP(model, quantizer, data, **{**STEPS, **more})

    return make


def test_steps_by_hand_are_the_run(start):
    model, job = start()
    with job:
        job.run()
        report = job.epoch(1, 1)
        assert [job.stages(b) for b in range(-1, 3)] == [0, 1, 1, 0] and job.stage == 0
    other, job = start()
    while job.block < other.info.blocks:
        job.begin()
        losses = [job.step(epoch, step) for epoch in range(2) for step in range(job.steps)]
        val_loss = job.validate()
        job.finish()
    assert np.array_equal(scales(model), scales(other))
    assert report.val_loss == val_loss
    assert report.train_loss == pytest.approx(np.mean(losses[-3:]))
    with pytest.raises(eqat.NotFound):
        job.epoch(0, 0)  # trained by hand


def test_a_loss_of_ops_is_the_librarys(start):
    model, job = start()
    job.run()
    other, job = start(loss=lambda tape, y, target: tape.mse(y, target))
    job.run()
    assert np.array_equal(scales(model), scales(other))


def test_forward_and_update_by_hand_are_the_step(start):
    model, job = start()
    job.begin()
    loss = job.step(0, 0)
    expected = job.parameter("mlp.down_proj.scales").numpy().copy()
    other, job = start()
    job.begin()
    tape = eqat.Tape(other.context)
    y, target = job.forward(tape, 0, 0)
    mine = tape.mse(y, target)
    job.optimizer.backward(tape, mine)
    assert mine.item() == loss
    assert np.array_equal(job.parameter("mlp.down_proj.scales").numpy(), expected)
    job.abandon()
    assert job.block == 0 and job.parameter("mlp.down_proj.scales") is None


def test_gradients_can_be_changed(start):
    """Of zeros nothing is learned but what the moments say: nothing."""

    def erase(parameters):
        for parameter in parameters:
            parameter.grad.fill(0)

    _, still = start(gradient=erase)
    still.begin()
    before = still.parameter("mlp.up_proj.scales").numpy().copy()
    still.step(0, 0)
    assert np.array_equal(still.parameter("mlp.up_proj.scales").numpy(), before)


def test_reduce_sees_and_changes_sums(start):
    seen = []

    def double(sums):
        seen.append(sums.copy())
        return 2 * sums

    _, job = start(reduce=double)
    job.run()
    assert seen and all(array.dtype == np.float64 for array in seen)
    _, alone = start()
    alone.run()
    assert job.epoch(1, 1) == alone.epoch(1, 1)  # means: sums and counts are doubled alike


def test_state(start, tmp_path):
    model, job = start()
    job.begin()
    job.step(0, 0)
    job.save(tmp_path / "state")
    job.run()
    other, again = start()
    again.load(tmp_path / "state")
    assert again.block == 0 and again.optimizer.steps == 1
    again.run()
    assert np.array_equal(scales(model), scales(other))
    _, third = start(epochs=3)
    with pytest.raises(eqat.InvalidArgument, match="epochs"):
        third.load(tmp_path / "state")


def test_e2e_qp(folder, text, tmp_path):
    def start():
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        eqat.rtn(model, bits=2, group_size=32)
        data = eqat.CalibrationData(text, model, **SIZE)
        return model, eqat.E2EQP(model, data, batch_size=2, lr=1e-2, epochs=2, params="sz")

    model, job = start()
    job.run()
    assert job.steps == 6 and np.isfinite([job.loss(k) for k in range(6)]).all()
    other, job = start()
    for step in range(job.steps):
        losses = [job.accumulate(step, micro) for micro in range(job.micro_steps(step))]
        job.step()
        if step == 3:
            job.save(tmp_path / "state")
    assert job.loss(5) == pytest.approx(np.mean(losses))
    job.finish()
    assert np.array_equal(scales(model), scales(other))
    third, job = start()
    job.load(tmp_path / "state")
    assert job.optimizer.steps == 4
    job.run()
    assert np.array_equal(scales(model), scales(third))


def test_e2e_qp_keeps_what_validates_best(folder, text):
    model = eqat.open(folder, threads=1, compute_dtype="f32")
    eqat.rtn(model, bits=2, group_size=32)
    before = scales(model)
    data = eqat.CalibrationData(text, model, **SIZE)
    steps = {"batch_size": 2, "epochs": 2, "validate_steps": 2, "max_grad_norm": 0}
    with eqat.E2EQP(model, data, keep="best", lr=100.0, **steps) as job:
        start = job.validate()
        job.run()
        report = job.stage_report()
        assert report.start_loss == report.val_loss == start
        assert (report.epoch, report.step) == (-1, 0)
        assert np.isfinite([job.val_loss(k) for k in range(6)]).tolist() == [0, 1, 1, 1, 0, 1]
    assert np.array_equal(scales(model), before)
    lesson = {"e2e_val_size": 2, "e2e_keep": "best", "e2e_train_size": 6, "e2e_seq_len": 32}
    other = eqat.open(folder, threads=1, compute_dtype="f32")
    eqat.efficientqat(other, text, bits=2, group_size=32, epochs=1, **SIZE, **lesson)
    with pytest.raises(eqat.InvalidArgument, match="keep: found best without"):
        eqat.efficientqat(other, text, **{**SIZE, **lesson, "e2e_val_size": 0})


def test_recipes_give_what_is_not_said(folder, text):
    few = {**SIZE, "bits": 2, "group_size": 32, "epochs": 1, "e2e_seq_len": 32}
    few.update(e2e_train_size=6, e2e_batch_size=2)
    said = {"init": "descent", "lr_unit": "relative", "decay_ratio": 0.5}
    said.update(e2e_train_norms=True, e2e_lr_unit="relative")

    def trained(**keywords):
        model = eqat.open(folder, threads=1, compute_dtype="f32", seed=3)
        eqat.efficientqat(model, text, **{**few, **keywords})
        return scales(model)

    best = trained(recipe="best")
    assert np.array_equal(best, trained(recipe="best", **said))
    assert not np.array_equal(best, trained(recipe="best", e2e_teacher=None))
    assert not np.array_equal(best, trained(recipe="best", init="minmax"))
    assert np.array_equal(best, trained())
    paper = trained(recipe="paper")
    assert not np.array_equal(best, paper)
    assert np.array_equal(trained(recipe="paper", **said), trained(e2e_teacher=None))
    with pytest.raises(ValueError, match="recipe: found 'worst', expected paper or best"):
        trained(recipe="worst")


@pytest.mark.parametrize("recipe", ["paper", "best"])
def test_both_phases_of_what_is_in_memory(folder, recipe):
    rows = np.arange(16 * 32).reshape(16, 32) * 7 % tiny.VOCAB
    few = {"recipe": recipe, "e2e_batch_size": 2}
    sizes = {"train_size": 6, "val_size": 2, "seq_len": 32, "e2e_train_size": 6, "e2e_seq_len": 32}
    given = {
        "rows": (rows, {}),
        "records": ({"ids": rows}, {}),
        "array": (rows.ravel(), sizes),
        "list": (rows.ravel().tolist(), sizes),
    }
    for name, (source, more) in given.items():
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        eqat.efficientqat(model, source, bits=2, group_size=32, epochs=1, **few, **more)
        assert model.info.quantized, name
        later = {"train_size": 6, "seq_len": 32} if more else {}
        eqat.e2e_qp(model, source, recipe=recipe, batch_size=2, **later)


def test_e2e_qp_begins_with_what_block_ap_leaves(folder, text):
    drawn = {"sampling": "consecutive", "shuffle": False}
    few = {**SIZE, **drawn}
    later = {"train_size": 7, "val_size": 0, "seq_len": 24, "batch_size": 1, "lr": 0.01}
    said = {"e2e_" + name: value for name, value in later.items()}
    quantizer = {"bits": 2, "group_size": 32, "recipe": "paper"}

    def open_model():
        return eqat.open(folder, threads=1, compute_dtype="f32")

    def both(**keywords):
        model = open_model()
        eqat.efficientqat(model, text, **{**quantizer, **few, **said, **keywords})
        return scales(model)

    def apart(skipped, taken=0, **more):
        model = open_model()
        eqat.block_ap(model, text, skip_tokens=taken, **{**quantizer, **few, **more})
        eqat.e2e_qp(model, text, recipe="paper", skip_tokens=skipped, **drawn, **later)
        return scales(model)

    copy = text.parent / "copy.txt"
    copy.write_bytes(text.read_bytes())
    assert np.array_equal(both(), apart(8 * 32))
    assert np.array_equal(both(e2e=str(text)), apart(8 * 32))
    assert np.array_equal(both(e2e=copy), apart(0))
    assert np.array_equal(both(skip_tokens=5), apart(5 + 8 * 32, 5))
    assert not np.array_equal(both(), both(e2e=copy))
    # more asked for than there is: all has been taken, the piece that is left over, too
    more = {"train_size": 40, "seq_len": 500}
    assert np.array_equal(both(**more), apart(42 * 500, **more))
    assert not np.array_equal(both(**more), apart(30 * 500, **more))


def test_a_loss_of_e2e_qp_sees_its_batch(folder, text):
    seen = []

    def loss(tape, logits, batch):
        seen.append((logits.shape, batch.ids, batch.labels))
        labels = eqat.Tensor(batch.labels, tape.context)
        target = eqat.Tensor(np.zeros(logits.shape, np.float32), tape.context)
        return tape.kl_divergence(logits, target, labels)

    model = eqat.open(folder, threads=1, compute_dtype="f32")
    eqat.rtn(model, bits=2, group_size=32)
    eqat.e2e_qp(model, text, loss=loss, batch_size=2, train_size=4, seq_len=16)
    shape, ids, labels = seen[0]
    assert shape == (1, 16, 260) and ids.shape == labels.shape == (1, 16)
    assert np.array_equal(labels[0, :-1], ids[0, 1:]) and labels[0, -1] < 0
    assert len(seen) == 4


def test_a_teacher_is_the_divergence_of_its_logits(folder, text):
    steps = {"batch_size": 2, "train_size": 4, "seq_len": 16, "lr": 1e-2}

    def start():
        model = eqat.open(folder, threads=1, compute_dtype="f32")
        eqat.rtn(model, bits=2, group_size=32)
        return model, eqat.open(folder, context=model.context, compute_dtype="f32")

    model, teacher = start()
    data = eqat.CalibrationData(text, model, train_size=4, val_size=0, seq_len=16)
    job = eqat.E2EQP(model, data, teacher=teacher, batch_size=2)
    del teacher  # the job has a reference of its own
    taught = job.accumulate(0, 0)

    other, teacher = start()
    expected = []

    def loss(tape, logits, batch):
        labels = eqat.Tensor(batch.labels, tape.context)
        value = tape.kl_divergence(logits, teacher.forward(batch.ids), labels)
        expected.append(float(value.numpy()[0]))
        return value

    eqat.e2e_qp(other, text, loss=loss, **steps)
    assert taught == pytest.approx(expected[0], rel=1e-4)
    with pytest.raises(TypeError, match="teacher: found str, expected Model"):
        eqat.e2e_qp(other, text, teacher="model", **steps)
    with pytest.raises(eqat.InvalidArgument, match="teacher: found the model that trains"):
        eqat.e2e_qp(other, text, teacher=other, **steps)


def test_efficientqat_refuses_before_it_trains(folder, text, quick):
    model = eqat.open(folder, threads=1, compute_dtype="f32")
    for wrong in ({"e2e_micro_batch_size": 3}, {"e2e_seq_len": 1}, {"e2e": "missing.txt"}):
        later = {"e2e_train_size": 8, "e2e_seq_len": 32, "e2e_batch_size": 4, **wrong}
        with pytest.raises((ValueError, eqat.Error, OSError)):
            eqat.efficientqat(model, bits=2, calib=text, **later, **quick)
        assert not model.info.quantized


def test_bits_by_sensitivity(folder, text):
    def bits(model, quantizer):
        rows = [model.linears(block) for block in range(model.info.blocks)]
        return [quantizer.lookup(one.name).bits for row in rows for one in row]

    model = eqat.open(folder, threads=1, compute_dtype="f32", seed=3)
    quantizer = eqat.Quantizer(model.context, bits=2, group_size=32)
    data = eqat.CalibrationData(text, model, train_size=4, val_size=0, seq_len=32)
    seen = []
    quantizer.allocate(model, data, bits_per_weight=3, progress=lambda p: seen.append(p.phase))
    chosen = bits(model, quantizer)
    assert set(chosen) > {2} and set(seen) == {"allocate"}
    with pytest.raises(eqat.InvalidArgument, match="bits_per_weight: found 2.1, expected at least"):
        quantizer.allocate(model, data, bits_per_weight=2.1)
    few = {**SIZE, "group_size": 32, "epochs": 1, "bits_per_weight": 3.0}
    eqat.block_ap(model, text, **few)
    assert 2.9 < model.info.linear_bits <= 3
    # Ranks train on samples of their own, and choose bits from the same.
    ranks = []
    for rank in range(2):
        part = eqat.open(folder, threads=1, compute_dtype="f32", seed=3)
        eqat.block_ap(part, text, **few, rank=rank, world=2)
        rows = [part.linears(block) for block in range(part.info.blocks)]
        ranks.append([(one.name, one.bits) for row in rows for one in row])
    assert ranks[0] == ranks[1]
