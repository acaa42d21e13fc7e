#!/usr/bin/env python3
"""Hugging Face names of GGUF tensors held against the table of the PyPI package gguf.

compare_gguf_names.py DUMP_GGUF     exit 77 when the package is missing

Per architecture a small model of random values is written under the names that the package gives
it, with what converters do to the values, and must come back as it was.
"""

import json, os, subprocess, sys, tempfile

try:
    import numpy as np
    import gguf
except ImportError:
    print("the package gguf is missing")
    sys.exit(77)

H, HEADS, KV, D, FF, VOCAB, BLOCKS, EXPERTS, EXPERT_FF = 32, 4, 2, 16, 64, 40, 2, 3, 32
ATTENTION = {
    "input_layernorm": (H,),
    "self_attn.q_proj": (HEADS * D, H),
    "self_attn.k_proj": (KV * D, H),
    "self_attn.v_proj": (KV * D, H),
    "self_attn.o_proj": (H, HEADS * D),
    "post_attention_layernorm": (H,),
}
QK_NORM = {"self_attn.q_norm": (D,), "self_attn.k_norm": (D,)}
MLP = {"mlp.gate_proj": (FF, H), "mlp.up_proj": (FF, H), "mlp.down_proj": (H, FF)}
MIXTURE = {
    "mlp.gate": (EXPERTS, H),
    "mlp.experts.gate_proj": (EXPERTS, EXPERT_FF, H),
    "mlp.experts.up_proj": (EXPERTS, EXPERT_FF, H),
    "mlp.experts.down_proj": (EXPERTS, H, EXPERT_FF),
}
FEEDFORWARD_NORMS = {"pre_feedforward_layernorm": (H,), "post_feedforward_layernorm": (H,)}
ARCHITECTURES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, {**ATTENTION, **MLP}),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, {**ATTENTION, **MLP}),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, {**ATTENTION, **QK_NORM, **MLP}),
    "qwen3moe": (gguf.MODEL_ARCH.QWEN3MOE, {**ATTENTION, **QK_NORM, **MIXTURE}),
    "gemma3": (gguf.MODEL_ARCH.GEMMA3, {**ATTENTION, **QK_NORM, **MLP, **FEEDFORWARD_NORMS}),
}


def as_converted(arch, name, value):
    if arch == "gemma3" and name.endswith("norm"):
        return value + np.float32(1)
    if arch == "llama" and name.endswith(("q_proj", "k_proj")):
        heads = value.shape[0] // D
        return value.reshape(heads, 2, D // 2, H).swapaxes(1, 2).reshape(value.shape)
    return value


def write(path, arch, values):
    kind = ARCHITECTURES[arch][0]
    names = gguf.get_tensor_name_map(kind, BLOCKS)
    w = gguf.GGUFWriter(path, arch)
    w.add_block_count(BLOCKS)
    w.add_context_length(128)
    w.add_embedding_length(H)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV)
    w.add_key_length(D)
    w.add_value_length(D)
    w.add_layer_norm_rms_eps(1e-6)
    if arch == "gemma3":
        w.add_sliding_window(8)
    if arch == "qwen3moe":
        w.add_expert_count(EXPERTS)
        w.add_expert_used_count(2)
        w.add_expert_feed_forward_length(EXPERT_FF)
    for name, value in values.items():
        w.add_tensor(names.get_name(name) + ".weight", as_converted(arch, name, value))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def separate(values):
    """By the names of a Hugging Face folder: every expert alone."""
    for name, value in values.items():
        if ".experts." in name:
            for i, expert in enumerate(value):
                yield name.replace(".experts.", f".experts.{i}.") + ".weight", expert
        else:
            yield name + ".weight", value


def compare(dump, arch, folder, rng):
    shapes = {"model.embed_tokens": (VOCAB, H), "lm_head": (VOCAB, H), "model.norm": (H,)}
    for block in range(BLOCKS):
        for name, shape in ARCHITECTURES[arch][1].items():
            shapes[f"model.layers.{block}.{name}"] = shape
    # Multiples of 1/1024: adding 1 loses nothing.
    values = {
        n: (rng.integers(-2048, 2048, s) / 1024).astype(np.float32) for n, s in shapes.items()
    }
    path, out, config = (os.path.join(folder, f) for f in ("m.gguf", "out.f32", "config.json"))
    write(path, arch, values)
    lines = subprocess.run(
        [dump, path, out, config], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    got, at, found = np.fromfile(out, np.float32), 0, {}
    for line in lines:
        name, _, *dims = line.split()
        dims = [int(n) for n in dims]
        found[name] = got[at : at + np.prod(dims, dtype=int)].reshape(dims)
        at += found[name].size
    wanted = dict(separate(values))
    assert found.keys() == wanted.keys(), (arch, found.keys() ^ wanted.keys())
    for name, value in wanted.items():
        assert np.array_equal(found[name], value), (arch, name)
    with open(config) as f:
        return len(wanted), json.load(f)["model_type"]


def main():
    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        for arch in ARCHITECTURES:
            count, model_type = compare(sys.argv[1], arch, folder, rng)
            print(f"{arch}: {count} tensors of {model_type}")


main()
