"""A small random GGUF file with blocks of 4 bits, written without anybody's library."""

import random
import struct

U32, F32, STRING = 4, 6, 8
Q4_0 = 2
HIDDEN, MLP, VOCAB, BLOCKS = 64, 64, 512, 2


def _text(text):
    return struct.pack("<Q", len(text)) + text.encode()


def _key(name, kind, value):
    packed = _text(value) if kind == STRING else struct.pack("<f" if kind == F32 else "<I", value)
    return _text(name) + struct.pack("<I", kind) + packed


def _tensors():
    """Names and shapes, inner dimension first."""
    yield "token_embd.weight", (HIDDEN, VOCAB)
    for block in range(BLOCKS):
        yield f"blk.{block}.attn_norm.weight", (HIDDEN,)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{block}.{name}.weight", (HIDDEN, HIDDEN)
        yield f"blk.{block}.ffn_norm.weight", (HIDDEN,)
        yield f"blk.{block}.ffn_gate.weight", (HIDDEN, MLP)
        yield f"blk.{block}.ffn_up.weight", (HIDDEN, MLP)
        yield f"blk.{block}.ffn_down.weight", (MLP, HIDDEN)
    yield "output_norm.weight", (HIDDEN,)


def _blocks(rng, count):
    """Q4_0: an f16 scale and 32 codes in 16 bytes."""
    return b"".join(struct.pack("<e", 0.02) + rng.randbytes(16) for _ in range(count // 32))


def write(path):
    keys = [
        _key("general.architecture", STRING, "llama"),
        _key("tokenizer.ggml.model", STRING, "none"),
        _key("llama.block_count", U32, BLOCKS),
        _key("llama.context_length", U32, 64),
        _key("llama.embedding_length", U32, HIDDEN),
        _key("llama.feed_forward_length", U32, MLP),
        _key("llama.attention.head_count", U32, 4),
        _key("llama.attention.head_count_kv", U32, 4),
        _key("llama.vocab_size", U32, VOCAB),
        _key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        _key("llama.rope.freq_base", F32, 10000.0),
    ]
    rng, head, data = random.Random(1), b"", b""
    tensors = list(_tensors())
    for name, shape in tensors:
        matrix = len(shape) == 2
        head += _text(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", n) for n in shape)
        head += struct.pack("<IQ", Q4_0 if matrix else 0, len(data))
        ones = struct.pack(f"<{shape[0]}f", *[1.0] * shape[0])
        data += _blocks(rng, shape[0] * shape[1]) if matrix else ones
        data += bytes(-len(data) % 32)
    file = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + head
    with open(path, "wb") as f:
        f.write(file + bytes(-len(file) % 32) + data)
    return path


def embedding(path):
    """The bytes of the embedding, which is the first tensor."""
    size = HIDDEN * VOCAB // 32 * 18
    rest = (
        sum(
            HIDDEN * 4 if len(shape) == 1 else shape[0] * shape[1] // 32 * 18
            for _, shape in _tensors()
        )
        - size
    )
    with open(path, "rb") as f:
        file = f.read()
    return file[len(file) - rest - size : len(file) - rest]
