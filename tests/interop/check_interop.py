#!/usr/bin/env python3
"""Saved folders held against an inference engine of others: GPTQModel loads them on the CPU.

    check_interop.py EQAT
        a tiny random model at 2, 3, 4 and 8 bits, and after E2E-QP
    check_interop.py EQAT TOKENS SEQ_LEN WINDOWS FOLDER...
        existing folders on tokens (.u16)

Three things, for each folder: the engine's weights are (q - z) s of a plain unpacking, bit for bit
in f16; its logits in f32 are those of the unpacked model; its mean loss is that of `eqat eval` in
f32. Exit code 77: a package is missing.
"""

import json
import os
import subprocess
import sys
import tempfile

os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
try:
    import numpy as np
    import torch
    import transformers
    from gptqmodel import BACKEND, GPTQModel
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
except ImportError as error:
    print("SKIP:", error)
    sys.exit(77)

WORDS = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    }
)
VOCAB, TIME = 96, 64
CONFIG = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=False,
)


def fields(words, bits, count):
    """`count` numbers from each row of int32 words [rows, words], one stream, lowest bits first."""
    raw = words.numpy().view(np.uint8).reshape(words.shape[0], -1)
    stream = np.unpackbits(raw, axis=1, bitorder="little")[:, : count * bits].reshape(
        words.shape[0], count, bits
    )
    return torch.from_numpy((stream.astype(np.int64) << np.arange(bits)).sum(-1))


def unpacked(tensors, name, bits):
    """q - z and s for each weight, both [in, out]."""
    qweight, qzeros, scales, index = (
        tensors[f"{name}.{k}"] for k in ("qweight", "qzeros", "scales", "g_idx")
    )
    q = fields(qweight.t().contiguous(), bits, len(index)).t()
    z = fields(qzeros, bits, scales.shape[1])
    return (q - z[index.long()]).float(), scales[index.long()].float()


def plain_model(folder, tensors, bits):
    """The folder as transformers' own model with dequantized weights in f32."""
    config = transformers.AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {k: v.float() for k, v in tensors.items() if k.rsplit(".", 1)[1] in ("weight", "bias")}
    for key in tensors:
        if key.endswith(".qweight"):
            codes, steps = unpacked(tensors, key[:-8], bits)
            state[key[:-8] + ".weight"] = (codes * steps).t()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.eval()


def load_engine(folder):
    """GPTQModel wants a tokenizer beside the weights, whatever it is."""
    with tempfile.TemporaryDirectory() as view:
        for name in os.listdir(folder):
            os.symlink(os.path.abspath(os.path.join(folder, name)), os.path.join(view, name))
        if not os.path.exists(os.path.join(view, "tokenizer.json")):
            Tokenizer.from_str(WORDS).save(os.path.join(view, "tokenizer.json"))
            json.dump(
                {"tokenizer_class": "PreTrainedTokenizerFast"},
                open(os.path.join(view, "tokenizer_config.json"), "w"),
            )
        return GPTQModel.load(
            view, backend=BACKEND.GPTQ_TORCH, device="cpu", dtype=torch.float16
        ).model.eval()


def compare(eqat, folder, tokens, time, windows):
    config = json.load(open(os.path.join(folder, "config.json")))
    bits = config["quantization_config"]["bits"]
    tensors = load_file(os.path.join(folder, "model.safetensors"))
    engine = load_engine(folder)
    names = [k[:-8] for k in tensors if k.endswith(".qweight")]
    for name in names:
        codes, steps = unpacked(tensors, name, bits)
        got = engine.get_submodule(name).dequantize_weight()
        want = (codes * steps).half()
        assert got.dtype == torch.float16 and torch.equal(got, want), (
            f"{folder}: {name}: weights differ by up to {(got - want).abs().max()}"
        )
    plain = plain_model(folder, tensors, bits)
    # In f32 from here on, with the tensors of the file: loading rounded embeddings and norm gains
    # to f16.
    engine = engine.float()
    engine.load_state_dict(
        {k: v.float() for k, v in tensors.items() if k.rsplit(".", 1)[1] in ("weight", "bias")},
        strict=False,
    )
    ids = torch.from_numpy(
        np.fromfile(tokens, np.uint16)[: time * windows].astype(np.int64)
    ).reshape(windows, time)
    worst = loss = 0.0
    with torch.no_grad():
        for row in ids:
            got, want = engine(row[None]).logits[0], plain(row[None]).logits[0]
            worst = max(worst, float((got - want).norm() / want.norm()))
            loss += float(torch.nn.functional.cross_entropy(got[:-1].double(), row[1:])) / windows
    r = subprocess.run(
        [
            eqat,
            "eval",
            folder,
            "--text",
            tokens,
            "--seq-len",
            str(time),
            "--max-windows",
            str(windows),
            "--compute-dtype",
            "f32",
            "--log-level",
            "0",
            "--json",
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    ours = json.loads(r.stdout)
    print(
        f"{folder}: {bits} bits, group {config['quantization_config']['group_size']}: "
        f"{len(names)} linears bit for bit; logits {worst:.1e} from plain ones; "
        f"perplexity {np.exp(loss):.6f}, libeqat {ours['perplexity']:.6f}, "
        f"loss differs by {abs(ours['nll'] / ours['tokens'] - loss):.1e}"
    )
    assert (
        ours["tokens"] == windows * (time - 1)
        and worst < 1e-5
        and abs(ours["nll"] / ours["tokens"] - loss) < 1e-5
    ), folder


def tiny(eqat, folder):
    torch.manual_seed(1)
    tokens, source, llama = (
        os.path.join(folder, name) for name in ("tokens.u16", "qwen2", "llama")
    )
    torch.randint(VOCAB, (40 * TIME,)).numpy().astype(np.uint16).tofile(tokens)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**CONFIG))
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, 1.0 if "norm" in name else 0.0, 0.2)
    model.save_pretrained(source)
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{**CONFIG, "tie_word_embeddings": True})
    ).save_pretrained(llama)
    cases = [
        (f"w{b}g{g}", source, ["--method", "rtn", "--bits", str(b), "--group-size", str(g)])
        for b, g in ((2, 32), (3, 64), (4, -1), (8, 32))
    ]
    cases.append(
        (
            "e2e",
            llama,
            [
                "--bits",
                "3",
                "--group-size",
                "32",
                "--calib",
                tokens,
                "--e2e",
                tokens,
                "--seq-len",
                str(TIME),
                "--e2e-seq-len",
                str(TIME),
                "--train-size",
                "8",
                "--val-size",
                "2",
                "--epochs",
                "1",
                "--e2e-train-size",
                "8",
                "--e2e-batch-size",
                "4",
                "--quant-lr",
                "1e-2",
                "--e2e-lr",
                "1e-2",
                "--compute-dtype",
                "f32",
            ],
        )
    )
    for name, model, options in cases:
        out = os.path.join(folder, name)
        subprocess.run(
            [eqat, "quantize", model, "--out", out, "--log-level", "0", *options], check=True
        )
        compare(eqat, out, tokens, TIME, 4)


def main():
    print(
        f"gptqmodel {sys.modules['gptqmodel'].__version__}, "
        f"transformers {transformers.__version__}, torch {torch.__version__}"
    )
    if len(sys.argv) > 2:
        for folder in sys.argv[5:]:
            compare(sys.argv[1], folder, sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            tiny(sys.argv[1], folder)


main()
