#!/usr/bin/env python3
"""Writes corpus/: small valid files for the fuzz targets to start from. Needs numpy and gguf."""

import json, os, struct
import numpy as np
import gguf

folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
os.makedirs(folder, exist_ok=True)

tensors = {
    "a": ("F32", [2, 3], 24),
    "b": ("I32", [], 4),
    "c": ("F16", [4], 8),
    "d": ("BF16", [2, 0], 0),
    "e": ("U8", [3], 3),
}
header, at, data = {"__metadata__": {"format": "pt"}}, 0, b""
for name, (dtype, shape, size) in tensors.items():
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
    at += size
text = json.dumps(header, separators=(",", ":")).encode()
with open(os.path.join(folder, "sample.safetensors"), "wb") as out:
    out.write(struct.pack("<Q", len(text)) + text + bytes(range(at)))

w = gguf.GGUFWriter(os.path.join(folder, "model.gguf"), "llama")
w.add_block_count(1)
w.add_context_length(64)
w.add_embedding_length(32)
w.add_feed_forward_length(32)
w.add_head_count(2)
w.add_head_count_kv(1)
w.add_layer_norm_rms_eps(1e-5)
w.add_rope_freq_base(10000.0)
w.add_token_list(["<s>", "a", "b"])
w.add_token_scores([0.0, 1.0, 2.0])
w.add_bool("some.flag", True)
w.add_array("some.strings", ["x", "yy"])
rng = np.random.default_rng(1)


def add(name, *shape, kind=None):
    x = rng.standard_normal(shape).astype(np.float32)
    if kind is None:
        w.add_tensor(name, x)
    else:
        w.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)


Q8 = gguf.GGMLQuantizationType.Q8_0
add("token_embd.weight", 3, 32, kind=Q8)
add("blk.0.attn_norm.weight", 32)
add("blk.0.attn_q.weight", 32, 32, kind=Q8)
add("blk.0.attn_k.weight", 16, 32, kind=Q8)
add("blk.0.attn_k.bias", 16)
w.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
add("output_norm.weight", 32)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
