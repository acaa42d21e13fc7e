"""Models, tokenizers and token files for the oracle.

A model is a Hugging Face folder or a GGUF file and always comes back as a transformers model in
float32, together with the dtype in which every parameter was stored (trained norm gains are rounded
to it).
"""

import json
import os

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

# GGUF writes the rotary halves of Q and K interleaved for these architectures.
INTERLEAVED = {"llama"}
GGUF_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
}
GEMMA_NAMES = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class Experts(nn.ModuleList):
    """Experts as linears with the names of the files; transformers has one tensor for all. So an
    expert without tokens has, as there, a gradient of zeros and not none."""

    def forward(self, x, chosen, weights):
        out = torch.zeros_like(x)
        for i, expert in enumerate(self):
            token, place = torch.where(chosen == i)
            y = expert(x[token]) * weights[token, place, None]
            out = out.index_add(0, token, y.to(out.dtype))
        return out


def unfuse_experts(model):
    """Replaces the experts of every block of a new model, whose weights are still to be loaded."""
    for block in model.model.layers:
        if hasattr(block.mlp, "experts"):
            from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeMLP

            size = model.config.moe_intermediate_size
            block.mlp.experts = Experts(
                Qwen3MoeMLP(model.config, size) for _ in range(model.config.num_experts)
            )


def load_model(path, attention="sdpa"):
    """Return (model in float32, {parameter name: stored dtype})."""
    if os.path.isdir(path):
        return _load_folder(path, attention)
    if path.endswith(".gguf"):
        return _load_gguf(path, attention)
    raise SystemExit(f"{path}: neither a folder nor a .gguf file")


def _build(config, tensors, attention):
    config.dtype = torch.float32
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    unfuse_experts(model)
    stored = {name: t.dtype for name, t in tensors.items()}
    missing, unexpected = model.load_state_dict(
        {k: t.float() for k, t in tensors.items()}, strict=False
    )
    missing = [k for k in missing if not (config.tie_word_embeddings and k == "lm_head.weight")]
    if missing or unexpected:
        raise SystemExit(f"tensors missing: {missing}; not expected: {unexpected}")
    model.tie_weights()
    model.requires_grad_(False)
    return model.eval(), stored


def _load_folder(path, attention):
    from safetensors.torch import load_file

    index = os.path.join(path, "model.safetensors.index.json")
    shards = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as f:
            shards = sorted(set(json.load(f)["weight_map"].values()))
    tensors = {}
    for shard in shards:
        tensors.update(load_file(os.path.join(path, shard)))
    return _build(AutoConfig.from_pretrained(path), tensors, attention)


def _gguf_fields(reader):
    return {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def _load_gguf(path, attention):
    import gguf

    reader = gguf.GGUFReader(path)
    meta = _gguf_fields(reader)
    arch = meta["general.architecture"]
    model_type = {"qwen3moe": "qwen3_moe", "gemma3": "gemma3_text"}.get(arch, arch)
    gemma = arch == "gemma3"
    if arch not in ("llama", "qwen2", "qwen3", "qwen3moe", "gemma3"):
        raise SystemExit(f"{path}: architecture {arch} is not supported")

    def get(key, default=None):
        return meta.get(f"{arch}.{key}", default)

    raw = {t.name: t for t in reader.tensors}
    if "rope_freqs.weight" in raw:
        raise SystemExit(f"{path}: rope factors are not supported here")
    heads, hidden = get("attention.head_count"), get("embedding_length")
    kv_heads = get("attention.head_count_kv", heads)
    head_dim = get("attention.key_length", hidden // heads)
    more = {}
    if arch == "qwen3moe":
        more = dict(
            num_experts=get("expert_count"),
            num_experts_per_tok=get("expert_used_count"),
            moe_intermediate_size=get("expert_feed_forward_length"),
            norm_topk_prob=True,
        )
    if gemma:
        more = dict(
            sliding_window=get("attention.sliding_window"),
            # 27B alone scales by hidden / heads.
            query_pre_attn_scalar=hidden // heads if get("block_count") == 62 else head_dim,
            rope_local_base_freq=get("rope.local.freq_base", 10000.0),
        )
        if get("rope.scaling.type") == "linear":
            more["rope_scaling"] = dict(rope_type="linear", factor=get("rope.scaling.factor"))
    config = AutoConfig.for_model(
        model_type,
        hidden_size=hidden,
        intermediate_size=get("feed_forward_length"),
        num_hidden_layers=get("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=raw["token_embd.weight"].shape[1].item(),
        max_position_embeddings=get("context_length"),
        # The file stores the decimal constant rounded to f32.
        rms_norm_eps=float(
            np.format_float_positional(np.float32(get("attention.layer_norm_rms_epsilon")))
        ),
        rope_theta=get("rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in raw,
        **more,
    )

    def dense(t):
        # The reader gives the quantized rows as bytes; dimensions in the file run innermost first.
        value = gguf.quants.dequantize(t.data, t.tensor_type)
        # As libeqat keeps what is quantized in blocks, so that both train the same model.
        if t.tensor_type.name not in ("F32", "F16", "BF16"):
            value = value.astype(np.float16)
        return torch.from_numpy(
            np.ascontiguousarray(value).reshape(t.shape[::-1].tolist()).astype(np.float32)
        )

    def uninterleave(w, n):
        # Rows (pair, half) of every head become (half, pair), which is where rotate-half looks for
        # them.
        return w.reshape(n, w.shape[0] // n // 2, 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)

    tensors = {}
    for name, t in raw.items():
        w = dense(t)
        top = {
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight",
        }.get(name)
        if top is None:
            _, layer, part, kind = name.split(".")
            if arch in INTERLEAVED and part in ("attn_q", "attn_k"):
                w = uninterleave(w, heads if part == "attn_q" else kv_heads)
            if part.endswith("_exps"):
                linear = GGUF_NAMES[part.removesuffix("_exps")].removeprefix("mlp.")
                for i, one in enumerate(w):
                    tensors[f"model.layers.{layer}.mlp.experts.{i}.{linear}.{kind}"] = one
                continue
            names = {**GGUF_NAMES, **GEMMA_NAMES} if gemma else GGUF_NAMES
            top = f"model.layers.{layer}.{names[part]}.{kind}"
        if gemma and "norm" in top:
            # The file has what the layer multiplies by.
            w = w - 1
        tensors[top] = w.contiguous()
    return _build(config, tensors, attention)


def load_tokenizer(path):
    """Return text -> ids, with BOS as the tokenizer says."""
    if os.path.isdir(path):
        if not os.path.exists(os.path.join(path, "tokenizer.json")):
            raise SystemExit(f"{path}: no tokenizer.json; give token files")
        from transformers import AutoTokenizer

        tok = AutoTokenizer.from_pretrained(path)
        return lambda text: tok(text)["input_ids"]
    import gguf
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    meta = _gguf_fields(gguf.GGUFReader(path))
    kind = (meta["tokenizer.ggml.model"], meta.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise SystemExit(f"{path}: vocabulary {kind} is not supported here; give token files")
    tokens = meta["tokenizer.ggml.tokens"]
    tok = Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=[tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]],
        )
    )
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    control = 3
    tok.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, k in zip(tokens, meta["tokenizer.ggml.token_type"])
            if k == control
        ]
    )
    bos = [meta["tokenizer.ggml.bos_token_id"]] if meta.get("tokenizer.ggml.add_bos_token") else []
    return lambda text: bos + tok.encode(text).ids


def load_tokens(path, model_path):
    """A file as one int64 stream: raw .u16/.u32, .npy, or text (.txt whole, .jsonl per record)."""
    if path.endswith(".u16"):
        ids = np.fromfile(path, "<u2")
    elif path.endswith(".u32"):
        ids = np.fromfile(path, "<u4")
    elif path.endswith(".npy"):
        ids = np.load(path).reshape(-1)
    else:
        encode = load_tokenizer(model_path)
        with open(path, encoding="utf-8", newline="") as f:
            texts = (
                [json.loads(line)["text"] for line in f if line.strip()]
                if path.endswith(".jsonl")
                else [f.read()]
            )
        ids = np.concatenate([np.asarray(encode(t), np.int64) for t in texts])
    return torch.from_numpy(ids.astype(np.int64))


def windows(ids, seq_len, count, first=0):
    """`count` consecutive windows from window number `first` on; fewer is an error."""
    if (first + count) * seq_len > len(ids):
        raise SystemExit(
            f"{len(ids)} tokens are too few for windows {first}..{first + count} of {seq_len}"
        )
    return ids[first * seq_len : (first + count) * seq_len].reshape(count, seq_len)
