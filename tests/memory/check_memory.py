"""Peak memory of Block-AP on a model of Llama-3.2-1B shapes with random weights: the block in training, its gradients and moments, one
batch's activations, the activation cache, and 100 MB; never the model at f32."""
import json, os, shutil, struct, subprocess, sys, tempfile

EQAT = os.environ["EQAT_TOOL"]
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2048, 8192, 16, 32, 8, 64, 128256
SAMPLES, TIME, BATCH = 4, 512, 2


def shapes():
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        for name, out, inputs in (("self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN), ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
                                  ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN), ("self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
                                  ("mlp.gate_proj", INTERMEDIATE, HIDDEN), ("mlp.up_proj", INTERMEDIATE, HIDDEN),
                                  ("mlp.down_proj", HIDDEN, INTERMEDIATE)):
            yield p + name + ".weight", (out, inputs)
        yield p + "input_layernorm.weight", (HIDDEN,)
        yield p + "post_attention_layernorm.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def write_model(folder):
    header, offset = {}, 0
    for name, shape in shapes():
        size = 2 * count(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # bf16 of magnitude about 1/64, either sign: any low byte under a high byte of 0x3c or 0xbc.
    noise = bytearray(os.urandom(1 << 22))
    noise[1::2] = bytes(0x3C | (b & 0x80) for b in noise[1::2])
    ones = struct.pack("<H", 0x3F80)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes():
            left = 2 * count(shape)
            if len(shape) == 1:
                f.write(ones * shape[0])
                continue
            while left:
                n = min(left, len(noise))
                f.write(noise[:n])
                left -= n
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
                  num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, vocab_size=VOCAB,
                  max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0, hidden_act="silu", tie_word_embeddings=True,
                  torch_dtype="bfloat16", rope_scaling=dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                            original_max_position_embeddings=8192))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)


def main():
    if shutil.disk_usage(tempfile.gettempdir()).free < 8 << 30:
        print("less than 8 GB of temporary space")
        return 77
    folder = tempfile.mkdtemp(prefix="eqat-memory-")
    try:
        write_model(folder)
        tokens = os.path.join(folder, "tokens.u32")
        with open(tokens, "wb") as f:
            f.write(struct.pack(f"<{SAMPLES * TIME}I", *((i * 7919) % VOCAB for i in range(SAMPLES * TIME))))
        r = subprocess.run([EQAT, "quantize", folder, "--out", os.path.join(folder, "out"), "--bits", "2", "--group-size", "64", "--calib", tokens,
                            "--seq-len", str(TIME), "--train-size", str(SAMPLES), "--val-size", "0", "--batch-size", str(BATCH), "--epochs", "1",
                            "--sampling", "consecutive", "--json"], capture_output=True, text=True)
        if r.returncode:
            print(r.stderr)
            return 1
        peak = json.loads(r.stdout)["peak_rss_bytes"]
    finally:
        shutil.rmtree(folder)
    block = sum(count(s) for n, s in shapes() if n.startswith("model.layers.0."))
    linears = LAYERS * sum(count(s) for n, s in shapes() if n.startswith("model.layers.0.") and len(s) == 2)
    rows = BATCH * TIME
    # bf16: what backward keeps of one batch (two norms, q k v, attention, projection, residuals, gate, up, product) and its gradients
    activations = 2 * 2 * rows * (6 * HIDDEN + 2 * HEADS * HEAD_DIM + 2 * KV_HEADS * HEAD_DIM + 3 * INTERMEDIATE)
    parts = {
        "weights, gradients, moments of a block": 16 * block + 16 * linears // LAYERS // 64 * 2,
        "activations of a batch": activations,
        "activation cache": 2 * SAMPLES * TIME * HIDDEN * 2,
        "allowance": 100_000_000,
    }
    limit, full = sum(parts.values()), 4 * sum(count(s) for _, s in shapes())
    for name, size in parts.items():
        print(f"{size / 1e6:9.1f} MB  {name}")
    print(f"{(linears * 2 // 8 + linears // 64 * 5) / 1e6:9.1f} MB  packed blocks at the end, not in the limit")
    print(f"{limit / 1e6:9.1f} MB  limit\n{peak / 1e6:9.1f} MB  peak\n{full / 1e6:9.1f} MB  the model at f32")
    return 0 if peak <= limit else 1


sys.exit(main())
