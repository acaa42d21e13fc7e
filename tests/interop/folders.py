"""What the checks of engines share: stories260K, quantized in every way that the formats know, its
weights by a plain unpacking, and two models held against each other."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time

# Nothing is fetched, nothing is compiled where it need not be, and small products wait for no one.
os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TORCHDYNAMO_DISABLE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

TIME, WINDOWS, GREEDY, CLOSE = 256, 16, 32, 0.1
# Flags of eqat quantize; the mixed ones differ in bits and group and leave a linear as it was.
MIXED = ["--bits", "2", "--rule", "*.down_proj=4,32", "--skip", "*.v_proj"]
CASES = {
    f"{name}, {zero_point}": [*flags, "--zero-point", zero_point]
    for name, flags in (
        *((f"{bits} bits", ["--bits", str(bits)]) for bits in (2, 3, 4, 8)),
        ("2 and 4 bits, v dense", MIXED),
        ("4 bits, v dense", ["--bits", "4", "--skip", "*.v_proj"]),
    )
    for zero_point in ("trained", "fixed")
}


def skip(why):
    print("SKIP:", why)
    sys.exit(77)


def need(*packages):
    """Ends the check where one is missing; otherwise prints the versions."""
    for name in ("numpy", *packages):
        if not importlib.util.find_spec(name):
            skip(f"the Python package {name} is missing")
    owners = importlib.metadata.packages_distributions()
    found = sorted({owner for name in packages for owner in owners.get(name, [])})
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in found), flush=True)


def stories():
    """The folder of stories260K, with its tokens."""
    shared = os.environ.get("EQAT_SHARED")
    if not shared or not os.path.isdir(os.path.join(shared, "stories260K")):
        skip("EQAT_SHARED names no folder with stories260K")
    return os.path.join(shared, "stories260K")


def run(*command):
    r = subprocess.run(command, capture_output=True, text=True)
    assert r.returncode == 0, f"{' '.join(command)}: {r.stderr}"
    return r.stdout


def quantize(eqat, source, flags, out):
    """A short Block-AP: zero points and scales that no rounding to nearest gives."""
    training = ["--calib", os.path.join(source, "tokens-train.u16"), "--seq-len", str(TIME)]
    training += ["--train-size", "128", "--val-size", "2", "--epochs", "1"]
    training += ["--quant-lr", "1e-3", "--weight-lr", "1e-3"]
    run(eqat, "quantize", source, "--out", out, *flags, *training)


def convert(eqat, folder, out, name):
    """False: the format does not hold such a model, and says so."""
    r = subprocess.run(
        [eqat, "convert", folder, out, "--format", name], capture_output=True, text=True
    )
    if r.returncode == 0:
        return True
    assert "for the format" in r.stderr or "cannot be moved" in r.stderr, r.stderr
    return False


def windows(source):
    import numpy as np

    tokens = np.fromfile(os.path.join(source, "tokens-valid.u16"), np.uint16)
    return tokens[: TIME * WINDOWS].astype(np.int64).reshape(WINDOWS, TIME)


# ---- weights ----


def safetensors(path):
    import numpy as np

    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        header, data = json.loads(f.read(n)), f.read()
    kinds = {"I64": "<i8", "I32": "<i4", "U32": "<u4", "F16": "<f2", "F32": "<f4"}
    return {
        name: np.frombuffer(data[slice(*t["data_offsets"])], kinds[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
        if name != "__metadata__"
    }


def fields(words, bits, count):
    """`count` numbers from each row of int32 words [rows, words], one stream, lowest bits first."""
    import numpy as np

    raw = np.ascontiguousarray(words).view(np.uint8).reshape(words.shape[0], -1)
    stream = np.unpackbits(raw, axis=1, bitorder="little")[:, : count * bits]
    stream = stream.reshape(words.shape[0], count, bits).astype(np.int64)
    return (stream << np.arange(bits)).sum(-1)


def unpacked(tensors, name):
    """(q - z) s of a gptq_v2 linear, F32 [out, in], which holds every product exactly."""
    import numpy as np

    words, zeros, scales, index = (
        tensors[f"{name}.{k}"] for k in ("qweight", "qzeros", "scales", "g_idx")
    )
    bits = words.shape[0] * 32 // len(index)
    q = fields(words.T, bits, len(index))
    z = fields(zeros, bits, scales.shape[1])[index].T
    return (q - z).astype(np.float32) * scales.astype(np.float32)[index].T


def weights(folder):
    """Of the quantized linears of a gptq_v2 folder, by name."""
    tensors = safetensors(os.path.join(folder, "model.safetensors"))
    return {k[:-8]: unpacked(tensors, k[:-8]) for k in tensors if k.endswith(".qweight")}


def write_plain(folder, out):
    """A gptq_v2 folder as one of F32 that any engine opens as an ordinary model."""
    import numpy as np

    tensors = safetensors(os.path.join(folder, "model.safetensors"))
    plain = {k: v for k, v in tensors.items() if k.rsplit(".", 1)[1] in ("weight", "bias")}
    plain |= {f"{name}.weight": w for name, w in weights(folder).items()}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, values in plain.items():
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        span = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": span}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.mkdir(out)
    with open(os.path.join(out, "model.safetensors"), "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    del config["quantization_config"]
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f)


def same_weights(name, got, want):
    import numpy as np

    got = np.asarray(got)
    assert got.shape == want.shape, f"{name}: found {got.shape}, expected {want.shape}"
    assert np.array_equal(got, want), (
        f"{name}: weights differ by {abs(got.astype(np.float32) - want).max()}"
    )


# ---- models, each a function from ids to logits [ids, vocabulary] ----


def perplexity(logits, ids):
    import numpy as np

    loss = 0.0
    for row in ids:
        x = logits(row).astype(np.float64)
        x -= x.max(1, keepdims=True)
        logs = x - np.log(np.exp(x).sum(1, keepdims=True))
        loss -= logs[np.arange(len(row) - 1), row[1:]].mean() / len(ids)
    return float(np.exp(loss))


def greedy(logits, plain, start, close):
    """Both write the same until the two best of the plain one are `close`; how many tokens."""
    import numpy as np

    ids = list(start)
    for n in range(GREEDY):
        got, want = logits(np.array(ids))[-1], plain(np.array(ids))[-1]
        best = np.sort(want)[-2:]
        if best[1] - best[0] <= close:
            return n
        assert got.argmax() == want.argmax(), (
            f"token {n}: {got.argmax()}, expected {want.argmax()}, which leads by "
            f"{best[1] - best[0]:.2f}; logits differ by up to {abs(got - want).max():.2f}"
        )
        ids.append(int(want.argmax()))
    return GREEDY


def compare(what, logits, plain, ids, bound, close=CLOSE):
    """One line of what was measured; the perplexities are within `bound` of each other."""
    started = time.monotonic()
    got, want = perplexity(logits, ids), perplexity(plain, ids)
    apart = got / want - 1
    print(f"{what}: perplexity {got:.5f}, plain {want:.5f} ({100 * apart:+.4f}%)", end=", ")
    sys.stdout.flush()
    same = greedy(logits, plain, ids[0][:16], close)
    print(f"{same} tokens the same, {time.monotonic() - started:.0f} s", flush=True)
    assert abs(apart) <= bound, f"{what}: {100 * apart:+.4f}%, expected {100 * bound}% at most"


class Case:
    """One way to quantize: `folder` in gptq_v2, `weights` of its linears, `plain` as F32."""

    def __init__(self, eqat, source, name, flags, where):
        self.eqat, self.name, self.where = eqat, name, where
        self.folder, self.plain = os.path.join(where, "gptq_v2"), os.path.join(where, "plain")
        self.mixed, self.fixed = "--rule" in flags, "fixed" in flags
        quantize(eqat, source, flags, self.folder)
        write_plain(self.folder, self.plain)
        self.weights = weights(self.folder)

    def saved_as(self, name):
        """The folder in that format; None: it does not hold such a model."""
        out = os.path.join(self.where, name)
        if name == "gptq_v2" or os.path.exists(out) or convert(self.eqat, self.folder, out, name):
            return out
        return None


def cases(eqat, source):
    for name, flags in CASES.items():
        with tempfile.TemporaryDirectory() as where:
            yield Case(eqat, source, name, flags, where)
