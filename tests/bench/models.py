"""Random models as Hugging Face folders, in bf16: normal weights of scale 0.02, the same in every
run. Standard library only.
"""

import array, json, os, random, struct

# hidden, intermediate, heads, KV heads, head size, layers, vocabulary
SHAPES = {
    "tiny": dict(
        family="llama",
        hidden=64,
        intermediate=128,
        heads=2,
        kv_heads=1,
        head_dim=32,
        layers=2,
        vocab=256,
        tied=True,
        theta=1e4,
    ),
    "smollm2": dict(
        family="llama",
        hidden=576,
        intermediate=1536,
        heads=9,
        kv_heads=3,
        head_dim=64,
        layers=30,
        vocab=49152,
        tied=True,
        theta=1e5,
    ),
    "qwen0.5b": dict(
        family="qwen2",
        hidden=896,
        intermediate=4864,
        heads=14,
        kv_heads=2,
        head_dim=64,
        layers=24,
        vocab=151936,
        tied=True,
        theta=1e6,
    ),
    "llama1b": dict(
        family="llama",
        hidden=2048,
        intermediate=8192,
        heads=32,
        kv_heads=8,
        head_dim=64,
        layers=16,
        vocab=128256,
        tied=True,
        theta=5e5,
    ),
    "llama7b": dict(
        family="llama",
        hidden=4096,
        intermediate=11008,
        heads=32,
        kv_heads=32,
        head_dim=128,
        layers=32,
        vocab=32000,
        tied=False,
        theta=1e4,
    ),
}


def linears(s):
    """Name, outputs, inputs of a block's linears."""
    q, kv = s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    return [
        ("self_attn.q_proj", q, s["hidden"]),
        ("self_attn.k_proj", kv, s["hidden"]),
        ("self_attn.v_proj", kv, s["hidden"]),
        ("self_attn.o_proj", s["hidden"], q),
        ("mlp.gate_proj", s["intermediate"], s["hidden"]),
        ("mlp.up_proj", s["intermediate"], s["hidden"]),
        ("mlp.down_proj", s["hidden"], s["intermediate"]),
    ]


def tensors(s):
    yield "model.embed_tokens.weight", (s["vocab"], s["hidden"])
    for i in range(s["layers"]):
        p = f"model.layers.{i}."
        for name, out, inputs in linears(s):
            yield p + name + ".weight", (out, inputs)
            if s["family"] == "qwen2" and name[10:] in ("q_proj", "k_proj", "v_proj"):
                yield p + name + ".bias", (out,)
        yield p + "input_layernorm.weight", (s["hidden"],)
        yield p + "post_attention_layernorm.weight", (s["hidden"],)
    yield "model.norm.weight", (s["hidden"],)
    if not s["tied"]:
        yield "lm_head.weight", (s["vocab"], s["hidden"])


def config(s):
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
    return dict(
        architectures=[names[s["family"]]],
        model_type=s["family"],
        hidden_size=s["hidden"],
        intermediate_size=s["intermediate"],
        num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"],
        num_key_value_heads=s["kv_heads"],
        head_dim=s["head_dim"],
        vocab_size=s["vocab"],
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_theta=s["theta"],
        hidden_act="silu",
        tie_word_embeddings=s["tied"],
        torch_dtype="bfloat16",
    )


def count(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def write_model(folder, s):
    os.makedirs(folder)
    header, offset = {}, 0
    for name, shape in tensors(s):
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [offset, offset + 2 * count(shape)],
        }
        offset += 2 * count(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # A prime number of values, repeated, so that no two rows are alike.
    generator, n = random.Random(0), 262139
    raw = array.array("f", (generator.gauss(0, 0.02) for _ in range(n))).tobytes()
    noise = bytearray(2 * n)
    noise[0::2], noise[1::2] = raw[2::4], raw[3::4]
    noise = bytes(noise)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        at = 0
        for name, shape in tensors(s):
            left = 2 * count(shape)
            if name.endswith("norm.weight"):
                f.write(struct.pack("<H", 0x3F80) * shape[0])
                continue
            while left:
                used = min(left, len(noise) - at)
                f.write(noise[at : at + used])
                left, at = left - used, (at + used) % len(noise)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config(s), f)


def write_tokens(path, number, vocab):
    generator = random.Random(1)
    with open(path, "wb") as f:
        f.write(array.array("I", (generator.randrange(vocab) for _ in range(number))).tobytes())
