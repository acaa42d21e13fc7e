"""Logs and folders of runs that never were, of any number of blocks."""

import json
import math
import pathlib

import numpy as np

ROLES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64),
    "mlp.up_proj": (96, 64),
    "mlp.down_proj": (64, 96),
}


def run_event(command="quantize", model="model", out="out", bits=2, group=32, **more):
    options = {
        "quantizer": {"bits": bits, "group_size": group, "init": "minmax"},
        "block_ap": {"batch_size": 2, "epochs": 4, "quant_lr": 1e-4, "offload_dir": None},
    }
    event = {
        "event": "run",
        "t": 0.0,
        "command": command,
        "time": "2026-01-31T12:00:00Z",
        "version": "0.1.0",
        "device": "cpu",
        "processor": "a processor",
        "processors": 2,
        "threads": 2,
        "seed": 7,
        "arguments": [command, model, "--out", out],
        "model": model,
        "out": out,
        "method": "efficientqat",
        "options": options,
        "rules": [{"pattern": "*.down_proj", "bits": 4, "group_size": 32}],
        "files": [{"use": "calib", "path": "c4.jsonl", "bytes": 123456, "sha256": "ab" * 32}],
    }
    return {**event, **more}


def _block_ap(blocks, epochs, steps, rng):
    total, done, t = blocks * epochs * steps, 0, 1.0
    for block in range(blocks):
        level = 1e-4 * math.exp(5 * block / max(1, blocks - 1)) * rng.lognormal(0, 0.15)
        gap = 0.02 + 0.1 * block / blocks
        for epoch in range(epochs):
            losses = []
            for step in range(steps):
                at = (epoch * steps + step) / (epochs * steps)
                loss = level * (1 + 4 * math.exp(-14 * at)) * rng.lognormal(0, 0.06)
                losses.append(loss)
                done, t = done + 1, t + 0.05
                last = step == steps - 1
                val = float(np.mean(losses[-20:])) * (1 + gap * (epoch + 1) / epochs)
                yield {
                    "event": "step",
                    "phase": "block-ap",
                    "block": block,
                    "blocks": blocks,
                    "epoch": epoch,
                    "epochs": epochs,
                    "step": done,
                    "steps": total,
                    "loss": loss,
                    "val_loss": val if last else None,
                    "lr": 1e-4 * (1 - done / total),
                    "grad_norm": None,
                    "t": t,
                }
            yield {
                "event": "epoch",
                "phase": "block-ap",
                "block": block,
                "blocks": blocks,
                "epoch": epoch,
                "epochs": epochs,
                "train_loss": float(np.mean(losses)),
                "val_loss": val,
                "seconds": 0.05 * steps,
                "t": t,
            }
        yield {
            "event": "block",
            "block": block,
            "blocks": blocks,
            "seconds": 0.05 * steps * epochs * rng.uniform(1, 1.1),
            "peak_rss_bytes": 900_000_000 + 8_000_000 * block,
            "t": t,
        }
    yield {"event": "phase", "phase": "block-ap", "seconds": t, "peak_rss_bytes": 10**9, "t": t}


def _e2e(steps, rng):
    """Validated behind every tenth step; the last is worse than the best, which is kept."""
    vals = {0: 3.0}
    for step in range(1, steps + 1):
        at = step / steps
        if step % 10 == 0 or step == steps:
            vals[step] = 2.3 + 0.6 * math.exp(-6 * at) + 0.2 * max(0.0, at - 0.6)
        yield {
            "event": "step",
            "phase": "e2e-qp",
            "block": 0,
            "blocks": 0,
            "epoch": 0,
            "epochs": 1,
            "step": step,
            "steps": steps,
            "loss": 2.2 + 0.7 * math.exp(-6 * at) + rng.normal(0, 0.05),
            "val_loss": vals.get(step),
            "lr": 2e-5 * min(1, step / (0.03 * steps + 1)) * (1 - at),
            "grad_norm": 1.5 * rng.lognormal(0, 0.2) * math.exp(-at),
            "t": 1000.0 + step,
        }
    best = min(vals, key=lambda step: vals[step])
    yield {
        "event": "kept",
        "phase": "e2e-qp",
        "start_loss": vals[0],
        "val_loss": vals[best],
        "epoch": 0 if best else -1,
        "step": best,
        "retries": 0,
    }
    yield {"event": "phase", "phase": "e2e-qp", "seconds": 99.0, "peak_rss_bytes": 2 * 10**9}


def events(blocks=3, epochs=4, steps=40, e2e=60, seed=0, perplexity=9.25, **header):
    """Of a whole run."""
    rng = np.random.default_rng(seed)
    run = run_event(**header)
    yield run
    yield {"event": "need", "seconds": 900.0, "memory_bytes": 2.1e9, "disk_bytes": 0, "t": 0.1}
    yield {"event": "log", "level": "info", "text": "device cpu", "t": 0.2}
    yield from _block_ap(blocks, epochs, steps, rng)
    yield from _e2e(e2e, rng)
    yield {
        "event": "saved",
        "path": run["out"],
        "bytes": 87_600_000,
        "input_bytes": 269_000_000,
        "bits_per_linear_parameter": 2.28,
        "t": 1999.0,
    }
    yield {"event": "end", "status": "ok", "seconds": 2000.5, "peak_rss_bytes": 2 * 10**9, "t": 2e3}
    for model, value in ((run["model"], 5.5), (run["out"], perplexity)):
        yield run_event("eval", model)
        yield {
            "event": "eval",
            "model": model,
            "file": "wiki.txt",
            "seq_len": 2048,
            "windows": 16,
            "tokens": 32768,
            "nll": math.log(value),
            "perplexity": value,
            "t": 5.0,
        }
        yield {"event": "end", "status": "ok", "seconds": 5.0, "peak_rss_bytes": 10**8, "t": 5.0}


def lines(made):
    return "".join(json.dumps(event) + "\n" for event in made)


def safetensors(path, tensors):
    names = {"float32": "F32", "float16": "F16", "int32": "I32", "uint16": "BF16"}
    header, data = {}, b""
    for name, array in tensors.items():
        span = [len(data), len(data) + array.nbytes]
        kind = names[str(array.dtype)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        data += array.tobytes()
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)


def pack(values, bits):
    """A stream of bits down every column, one value after the other: one Python integer each."""
    words = []
    for column in values.T:
        stream = sum(int(v) << (i * bits) for i, v in enumerate(column))
        words.append(np.frombuffer(stream.to_bytes(len(column) * bits // 8, "little"), np.int32))
    return np.array(words).T.copy()


def linear(rng, outputs, inputs, bits, group, level=0.05):
    """(source weight, codes, zero points, scales) of a linear rounded to nearest."""
    weight = (rng.standard_normal((outputs, inputs)) * level).astype(np.float32)
    top = (1 << bits) - 1
    grouped = weight.reshape(outputs, inputs // group, group)
    low, high = np.minimum(grouped.min(2), 0), np.maximum(grouped.max(2), 0)
    scales = ((high - low) / top).astype(np.float16)
    zeros = np.clip(np.rint(-low / scales), 0, top).astype(np.int64)
    rounded = np.rint(grouped / scales[:, :, None].astype(np.float32)) + zeros[:, :, None]
    codes = np.clip(rounded, 0, top).astype(np.int64).reshape(outputs, inputs)
    return weight, codes, zeros, scales


def stored(name, codes, zeros, scales, bits, group):
    inputs = codes.shape[1]
    return {
        f"{name}.qweight": pack(codes.T, bits),
        f"{name}.qzeros": pack(zeros, bits).T.copy(),
        f"{name}.scales": scales.T.copy(),
        f"{name}.g_idx": (np.arange(inputs) // group).astype(np.int32),
    }


def folders(path, blocks=3, bits=2, group=32, seed=0, **how):
    """path/model and path/out: a model, and the same one quantized, with its log."""
    rng = np.random.default_rng(seed)
    source, packed, exact = {}, {}, {}
    for block in range(blocks):
        for role, (outputs, inputs) in ROLES.items():
            name = f"model.layers.{block}.{role}"
            level = 0.02 * math.exp(1.5 * block / blocks)
            weight, *found = linear(rng, outputs, inputs, bits, group, level)
            source[f"{name}.weight"] = weight
            packed.update(stored(name, *found, bits, group))
            exact[name] = (weight, *found)
    for folder, tensors in (("model", source), ("out", packed)):
        (path / folder).mkdir(parents=True)
        safetensors(path / folder / "model.safetensors", tensors)
    quantization = {"bits": bits, "group_size": group, "checkpoint_format": "gptq_v2"}
    config = json.dumps({"quantization_config": quantization})
    (path / "out" / "config.json").write_text(config)
    header = {"model": str(path / "model"), "out": str(path / "out"), "bits": bits, "group": group}
    log = path / "out" / "eqat_log.jsonl"
    log.write_text(lines(events(blocks, seed=seed, **header, **how)))
    return exact
