"""Peak resident memory on random models of Llama-3.2-1B shapes, never the model at f32. Block-AP:
the block in training, its gradients and moments, one batch's activations, the activation cache
where it is not in files, and 100 MB, however many samples, also where error feedback comes first.
E2E-QP: the packed model, 16 bytes per group, embeddings, a residual stream per block, one block's
activations.
"""

import json, os, shutil, struct, subprocess, sys, tempfile

EQAT = os.environ["EQAT_TOOL"]
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM = 2048, 8192, 32, 8, 64
BITS, GROUP, TIME, BATCH = 2, 64, 512, 2


def shapes(layers, vocab):
    yield "model.embed_tokens.weight", (vocab, HIDDEN)
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, out, inputs in (
            ("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
            ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
            ("mlp.up_proj", INTERMEDIATE, HIDDEN),
            ("mlp.down_proj", HIDDEN, INTERMEDIATE),
        ):
            yield p + name + ".weight", (out, inputs)
        yield p + "input_layernorm.weight", (HIDDEN,)
        yield p + "post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def write_model(folder, layers, vocab, tensors=shapes, **other):
    """Of the tensors that a function like shapes names; `other` members of the configuration."""
    os.mkdir(folder)
    header, offset = {}, 0
    for name, shape in tensors(layers, vocab):
        size = 2 * count(shape)
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # bf16 of magnitude about 1/64, either sign: any low byte under a high byte of 0x3c or 0xbc.
    noise = bytearray(os.urandom(1 << 22))
    noise[1::2] = bytes(0x3C | (b & 0x80) for b in noise[1::2])
    ones = struct.pack("<H", 0x3F80)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors(layers, vocab):
            left = 2 * count(shape)
            if len(shape) == 1:
                f.write(ones * shape[0])
                continue
            while left:
                n = min(left, len(noise))
                f.write(noise[:n])
                left -= n
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        vocab_size=vocab,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        hidden_act="silu",
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        rope_scaling=dict(
            rope_type="llama3",
            factor=32.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    )
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({**config, **other}, f)


def write_tokens(path, samples, vocab):
    with open(path, "wb") as f:
        f.write(
            struct.pack(f"<{samples * TIME}I", *((i * 7919) % vocab for i in range(samples * TIME)))
        )


def peak_of(*arguments):
    r = subprocess.run(
        [EQAT, *arguments, "--log-level", "0", "--json"], stdout=subprocess.PIPE, text=True
    )
    if r.returncode:
        sys.exit(r.returncode)
    return json.loads(r.stdout)["peak_rss_bytes"]


def quantize(model, out, *options):
    return peak_of(
        "quantize", model, "--out", out, "--bits", str(BITS), "--group-size", str(GROUP), *options
    )


def block_ap(model, out, tokens, samples, *options):
    peak = quantize(
        model,
        out,
        "--calib",
        tokens,
        "--seq-len",
        str(TIME),
        "--train-size",
        str(samples),
        "--val-size",
        "0",
        "--batch-size",
        str(BATCH),
        "--epochs",
        "1",
        "--sampling",
        "consecutive",
        *options,
    )
    shutil.rmtree(out)
    return peak


PAPER = ["--recipe", "paper"]
BLOCK = [s for n, s in shapes(1, 1) if n.startswith("model.layers.0.")]
LINEARS = sum(count(s) for s in BLOCK if len(s) == 2)


def activations(rows):
    """bf16: what backward keeps of one block (two norms, q k v, attention, projection, residuals,
    gate, up, product) and its gradients.
    """
    return (
        2
        * 2
        * rows
        * (6 * HIDDEN + 2 * HEADS * HEAD_DIM + 2 * KV_HEADS * HEAD_DIM + 3 * INTERMEDIATE)
    )


def within(what, peak, parts, factor=1.0):
    for name, size in parts.items():
        print(f"{size / 1e6:9.1f} MB  {name}")
    limit = factor * sum(parts.values())
    times = f", {factor} times the sum" if factor != 1 else ""
    print(f"{limit / 1e6:9.1f} MB  limit{times}")
    print(f"{peak / 1e6:9.1f} MB  peak of {what}\n", flush=True)
    return peak <= limit


def check_block_ap(folder):
    """Packed blocks stay in memory but count nothing: the first block needs what they take last."""
    layers, vocab, samples = 6, 128256, 4
    model, out, tokens = (os.path.join(folder, n) for n in ("block-ap", "out", "tokens.u32"))
    write_model(model, layers, vocab)
    write_tokens(tokens, samples, vocab)
    parts = {
        "weights, gradients, moments of a block": 16 * sum(map(count, BLOCK))
        + 2 * 16 * LINEARS // GROUP,
        "activations of a batch": activations(BATCH * TIME),
        "activation cache": 2 * samples * TIME * HIDDEN * 2,
        "allowance": 100_000_000,
    }
    good = within("Block-AP", block_ap(model, out, tokens, samples, *PAPER), parts)
    parts["activation cache"] = 0
    good &= within(
        "Block-AP with --offload-dir",
        block_ap(model, out, tokens, samples, *PAPER, "--offload-dir", folder),
        parts,
    )
    # Moments and the factor of the widest inputs come before gradients and moments of AdamW, in the
    # first block as in all others, and take a minute of each.
    shutil.rmtree(model)
    write_model(model, 2, vocab)
    good &= within(
        "Block-AP of the default recipe",
        block_ap(model, out, tokens, samples, "--offload-dir", folder),
        parts,
    )
    shutil.rmtree(model)
    return good


def check_samples(folder):
    """Activations in files: 24 more samples, 101 MB of two streams, show nowhere in memory."""
    layers, vocab, few, many = 1, 1024, 8, 32
    model, out, tokens = (os.path.join(folder, n) for n in ("samples", "out", "tokens.u32"))
    write_model(model, layers, vocab)
    write_tokens(tokens, many, vocab)
    peaks = [block_ap(model, out, tokens, n, *PAPER, "--offload-dir", folder) for n in (few, many)]
    print(f"{peaks[0] / 1e6:9.1f} MB  peak with {few} samples in files")
    print(f"{peaks[1] / 1e6:9.1f} MB  peak with {many}\n", flush=True)
    shutil.rmtree(model)
    return peaks[1] < peaks[0] + 4_000_000


def check_e2e_qp(folder):
    """A small vocabulary, so that the embeddings do not hide the rest."""
    layers, vocab, samples = 8, 8192, 4
    model, packed, out, tokens = (
        os.path.join(folder, n) for n in ("e2e", "packed", "out", "tokens.u32")
    )
    write_model(model, layers, vocab)
    write_tokens(tokens, samples, vocab)
    quantize(model, packed, "--method", "rtn")
    peak = peak_of(
        "e2e-qp",
        packed,
        "--out",
        out,
        "--data",
        tokens,
        "--e2e-seq-len",
        str(TIME),
        "--e2e-train-size",
        str(samples),
        "--e2e-batch-size",
        "2",
        "--sampling",
        "consecutive",
    )
    groups = layers * LINEARS // GROUP
    for path in (model, packed, out):
        shutil.rmtree(path)
    return within(
        "E2E-QP",
        peak,
        {
            "codes and zero points": layers * LINEARS * BITS // 8 + groups,
            "scales, gradients, moments, scales of the last finite loss": 20 * groups,
            "embeddings": 2 * vocab * HIDDEN,
            "one residual stream per block": 2 * layers * TIME * HIDDEN,
            "activations of a block": activations(TIME),
        },
        1.15,
    )


def main():
    if shutil.disk_usage(tempfile.gettempdir()).free < 8 << 30:
        print("less than 8 GB of temporary space")
        return 77
    with tempfile.TemporaryDirectory(prefix="eqat-memory-") as folder:
        results = [check(folder) for check in (check_e2e_qp, check_samples, check_block_ap)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
