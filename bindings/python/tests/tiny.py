"""A random Llama with a tokenizer of bytes, as a Hugging Face folder."""

import json
import pathlib

import numpy as np

HIDDEN, MIDDLE, HEADS, KV_HEADS, VOCAB, BLOCKS = 64, 128, 4, 2, 260, 2

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": MIDDLE,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def _shapes():
    kv = HIDDEN // HEADS * KV_HEADS
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    for block in range(BLOCKS):
        prefix = f"model.layers.{block}."
        yield prefix + "input_layernorm.weight", (HIDDEN,)
        yield prefix + "post_attention_layernorm.weight", (HIDDEN,)
        for name, rows in (("q", HIDDEN), ("k", kv), ("v", kv), ("o", HIDDEN)):
            yield f"{prefix}self_attn.{name}_proj.weight", (rows, HIDDEN)
        yield prefix + "mlp.gate_proj.weight", (MIDDLE, HIDDEN)
        yield prefix + "mlp.up_proj.weight", (MIDDLE, HIDDEN)
        yield prefix + "mlp.down_proj.weight", (HIDDEN, MIDDLE)


def weights(seed=0):
    rng = np.random.default_rng(seed)
    for name, shape in _shapes():
        if len(shape) == 1:
            yield name, np.ones(shape, np.float32)
        else:
            yield name, (rng.standard_normal(shape) / shape[1] ** 0.5).astype(np.float32)


def _safetensors(path, tensors):
    header, data = {}, b""
    for name, array in tensors:
        span = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": span}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _alphabet():
    """The printable stand-ins of bytes, as in GPT-2."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def _tokenizer():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    byte_level["use_regex"] = True
    special = {"id": 256, "content": "<|end|>", "special": True}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    return {
        "version": "1.0",
        "added_tokens": [{**special, **{flag: False for flag in flags}}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {c: b for b, c in sorted(_alphabet().items())},
            "merges": [],
        },
    }


def write(folder, seed=0):
    folder = pathlib.Path(folder)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    _safetensors(folder / "model.safetensors", weights(seed))
    return folder


def text(count=400, seed=1):
    """Words that repeat, of which there is something to learn."""
    rng = np.random.default_rng(seed)
    words = "the cat sat on a mat and the dog ran to the red house by the sea".split()
    return " ".join(rng.choice(words, count))
