#!/usr/bin/env python3
"""Compares ids with Hugging Face `tokenizers` on mixed text and random Unicode, kind by kind.

    compare_hf.py ENCODE_FILE [--mb 10] [--kinds NAME,...] [--speed]

ENCODE_FILE is the test program of that name.  Without further files the vocabularies are trained on
the spot; EQAT_SHARED names a folder that adds published ones
(tokenizer/{gpt2,qwen2,llama2,vectors}), EQAT_SMOLLM2 a GGUF file with SmolLM2's. Exit code 77: the
package `tokenizers` is missing.
"""

import argparse
import functools
import glob
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
try:
    import tokenizers
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
except ImportError:
    print("SKIP: the Python package `tokenizers` is not installed")
    sys.exit(77)

SHARED = os.environ.get("EQAT_SHARED")
SMOLLM2 = os.environ.get("EQAT_SMOLLM2")
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
OLD_ONLY = ("trained lower, strip", "trained splits", "trained whitespace")
WORD = "▁"


# Text.


def text_files():
    found = []
    if SHARED:
        for path in sorted(glob.glob(SHARED + "/text/*") + glob.glob(SHARED + "/instruct/*")):
            raw = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
            if path.endswith(".jsonl") and "text" in json.loads(raw.split("\n", 1)[0]):
                raw = "\n".join(json.loads(line)["text"] for line in raw.splitlines() if line)
            found.append(raw)
    library = pathlib.Path(os.__file__).parent
    for path in sorted(library.glob("*.py")) + sorted(library.glob("*/*.py")):
        try:
            found.append(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, OSError):
            pass
    return found


def scalars():
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def random_text(rng, everything, n):
    """n code points of one of several mixtures; adjacent ones interact in every stage."""
    blocks = [
        (0x20, 0x7F),
        (0x80, 0x250),
        (0x300, 0x370),
        (0x370, 0x530),
        (0x590, 0x780),
        (0x900, 0xE00),
        (0xE00, 0x1200),
        (0x1100, 0x1200),
        (0x1E00, 0x2000),
        (0x2000, 0x2100),
        (0x2100, 0x2C00),
        (0x3000, 0x3100),
        (0x3130, 0x3400),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7B0),
        (0xF900, 0xFB50),
        (0xFB50, 0x10000),
        (0x10000, 0x11FFF),
        (0x1D000, 0x1D800),
        (0x1F000, 0x1FB00),
        (0x20000, 0x2FA20),
    ]
    spaces = "\t\n\v\f\r \x85\xa0\u1680\u180e\u2000\u2009\u200b"
    spaces += "\u2028\u2029\u202f\u205f\u3000\ufeff\x00\x1c"
    special = "'s'S'ſ'LL'ﬀ''re don't 12345 ½²௫Ⅷ ΑΣς İıſK"
    special += "<s></s><unk><|endoftext|><|im_start|><0x0A>▁ ▁▁ \r\n\n  x\u0301\u0327 각ᄀᆨ"
    out = []
    while len(out) < n:
        mode = rng.randrange(6)
        k = rng.randrange(1, 60)
        if mode == 0:
            out += [everything[rng.randrange(len(everything))] for _ in range(k)]
        elif mode == 1:
            low, high = rng.choice(blocks)
            out += [rng.randrange(low, high) for _ in range(k)]
        elif mode == 2:
            out += [ord(rng.choice(spaces)) for _ in range(rng.randrange(1, 8))]
        elif mode == 3:
            at = rng.randrange(len(special))
            out += [ord(c) for c in special[at : at + rng.randrange(1, 20)]]
        elif mode == 4:
            out += [
                rng.choice(
                    (
                        0x20,
                        0x61,
                        0x41,
                        0x30,
                        0x27,
                        0x0A,
                        0x301,
                        0x1F600,
                        rng.randrange(0x300, 0x370),
                    )
                )
                for _ in range(k)
            ]
        else:
            low, high = rng.choice(blocks)
            for _ in range(rng.randrange(1, 12)):
                out += [rng.randrange(low, high) for _ in range(rng.randrange(1, 10))] + [0x20]
    return "".join(chr(c) for c in out if not 0xD800 <= c < 0xE000)


def corpus(megabytes):
    """Records: pieces of text of very different length, then random Unicode, at least a third."""
    rng = random.Random(7)
    records, size = [], 0
    files = text_files()
    budget = int(megabytes * 1e6 * 2 / 3)
    while size < budget:
        for raw in files:
            i = 0
            while i < len(raw) and size < budget:
                n = rng.choice((1, 10, 100, 1000, 10000, 100000))
                records.append(raw[i : i + n])
                size += len(records[-1].encode())
                i += n
    everything = scalars()
    while size < megabytes * 1e6:
        records.append(random_text(rng, everything, rng.choice((3, 30, 300, 3000))))
        size += len(records[-1].encode())
    # Every character between letters, which shows its class to every pattern; empty planes thinly.
    for c in everything:
        if c % 64 == 0 and (c < 0x34000 or c % 4096 == 0) and (megabytes >= 1 or c % 1024 == 0):
            records.append(
                "".join(
                    "a%s1 %s.%s" % (chr(k), chr(k), chr(k))
                    for k in range(c, c + 64)
                    if not 0xD800 <= k < 0xE000
                )
            )
    records += [
        "",
        " ",
        "\n",
        " " * 5000 + "x",
        "a" * 20000,
        "\n" * 3000,
        "x\u0301" * 3000,
        "的" * 7000,
        "\u0301\u0327" * 5000,
    ]
    return records, sum(len(r.encode()) for r in records)


# Kinds: name, what our program opens, the reference.


def train(sample, size, build):
    tokenizer = build()
    alphabet = (
        pre_tokenizers.ByteLevel.alphabet()
        if tokenizer.decoder and "ByteLevel" in repr(tokenizer.decoder)
        else []
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=alphabet, special_tokens=[]
    )
    tokenizer.train_from_iterator(sample, trainer)
    return json.loads(tokenizer.to_str())


def byte_level(pattern=None, normalizer=None, digits=False):
    def build():
        t = Tokenizer(models.BPE())
        stages = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
        if pattern:
            stages += [
                pre_tokenizers.Split(Regex(p), "isolated")
                for p in ([pattern] if isinstance(pattern, str) else pattern)
            ]
        t.pre_tokenizer = pre_tokenizers.Sequence(
            stages + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)]
        )
        t.decoder = decoders.ByteLevel()
        if normalizer:
            t.normalizer = normalizer
        return t

    return build


def sentencepiece(vocab, merges, normalizer, pre, post=True):
    """A tokenizer.json with byte fallback around an existing vocabulary."""
    t = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback="<0x00>" in vocab,
        )
    )
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.decoder = decoders.Sequence(
        [
            decoders.Replace(WORD, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    t.add_special_tokens(
        [
            AddedToken(s, special=True, normalized=False)
            for s in ("<unk>", "<s>", "</s>")
            if s in vocab
        ]
    )
    if post:
        t.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])]
        )
    return json.loads(t.to_str())


def old_characters(records):
    """Without what came after Unicode 3.2: some stages differ there by the version they know."""
    known = functools.cache(lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn")
    return ["".join(c for c in record if known(c)) for record in records]


def words_only(sample):
    """A vocabulary like SentencePiece's, trained here: bytes, characters, words behind U+2581."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        show_progress=False,
        limit_alphabet=600,
        special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)],
    )
    t.train_from_iterator([s.replace("\0", "") for s in sample], trainer)
    model = json.loads(t.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]]


def edit(definition, **model):
    definition = json.loads(json.dumps(definition))
    definition["model"].update(model)
    return definition


def added_tokens(sample):
    t = Tokenizer.from_str(json.dumps(train(sample, 4000, byte_level())))
    t.normalizer = normalizers.NFC()
    t.add_special_tokens(
        [
            AddedToken("<|endoftext|>", special=True, normalized=False),
            AddedToken("<s>", special=True, lstrip=True, rstrip=True),
        ]
    )
    t.add_tokens(
        [
            AddedToken("don", single_word=True, normalized=False),
            AddedToken("x\u0301", normalized=True),
            AddedToken("  ", rstrip=True, normalized=False),
            AddedToken("re", single_word=True),
            AddedToken("return", lstrip=True, normalized=True),
            AddedToken("12", normalized=False),
        ]
    )
    return json.loads(t.to_str())


def without_bytes(vocab, merges, normalizer):
    kept = {k: i for i, k in enumerate(k for k in vocab if not k.startswith("<0x"))}
    return sentencepiece(
        kept,
        [m for m in merges if m[0] in kept and m[1] in kept and m[0] + m[1] in kept],
        normalizer,
        None,
    )


def kinds(sample):
    """Name and how to make the tokenizer.json."""
    old = normalizers.Sequence([normalizers.Prepend(WORD), normalizers.Replace(" ", WORD)])
    words = functools.cache(lambda: words_only(sample))
    metaspace = pre_tokenizers.Metaspace
    split = pre_tokenizers.Split
    default = [
        r"[\p{P}\$\+<=>\^~\|]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        r"\p{N}+",
        "[0-9][0-9][0-9]",
    ]
    splits = pre_tokenizers.Sequence(
        [
            split(Regex(r"\s+"), "merged_with_previous"),
            split("e", "merged_with_next"),
            split(Regex(r"\w+"), "contiguous", invert=True),
            pre_tokenizers.Punctuation("merged_with_previous"),
            pre_tokenizers.Digits(individual_digits=False),
        ]
    )
    return {
        "trained gpt2": lambda: train(sample, 4000, byte_level()),
        "trained smollm": lambda: train(sample, 4000, byte_level(digits=True)),
        "trained llama3": lambda: edit(train(sample, 4000, byte_level(LLAMA3)), ignore_merges=True),
        "trained qwen2": lambda: train(sample, 4000, byte_level(QWEN2, normalizers.NFC())),
        "trained tekken": lambda: edit(train(sample, 4000, byte_level(TEKKEN)), ignore_merges=True),
        "trained default": lambda: train(sample, 4000, byte_level(default)),
        "trained nfd": lambda: train(sample, 2000, byte_level(None, normalizers.NFD())),
        "trained nfkc": lambda: train(sample, 2000, byte_level(None, normalizers.NFKC())),
        "trained nfkd": lambda: train(sample, 2000, byte_level(None, normalizers.NFKD())),
        "trained lower, strip": lambda: train(
            sample,
            2000,
            byte_level(None, normalizers.Sequence([normalizers.Strip(), normalizers.Lowercase()])),
        ),
        "trained added tokens": lambda: added_tokens(sample),
        "trained llama2": lambda: sentencepiece(*words(), old, None),
        "trained metaspace first": lambda: sentencepiece(
            *words(), None, metaspace(prepend_scheme="first", split=False)
        ),
        "trained metaspace split": lambda: sentencepiece(
            *words(), None, metaspace(prepend_scheme="always", split=True)
        ),
        "trained without bytes": lambda: without_bytes(*words(), old),
        "trained splits": lambda: sentencepiece(*words(), None, splits),
        "trained whitespace": lambda: sentencepiece(
            *words(),
            None,
            pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]),
        ),
    }


def published(folder):
    """What our program opens and, made independently, what Hugging Face would."""
    out = []
    if SHARED:
        base = SHARED + "/tokenizer"
        t = Tokenizer(models.BPE.from_file(base + "/gpt2/vocab.json", base + "/gpt2/merges.txt"))
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        t.decoder = decoders.ByteLevel()
        t.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
        out.append(("gpt2", base + "/gpt2", t))
        out.append(("gpt2 GGUF", base + "/vectors/ggml-vocab-gpt-2.gguf", t))
        t = Tokenizer(models.BPE.from_file(base + "/qwen2/vocab.json", base + "/qwen2/merges.txt"))
        t.normalizer = normalizers.NFC()
        t.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        t.decoder = decoders.ByteLevel()
        t.add_special_tokens(
            [
                AddedToken(s, normalized=False)
                for s in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
            ]
        )
        out.append(("qwen2", base + "/qwen2", t))
        large = edit(json.loads(t.to_str()), ignore_merges=True)
        large["normalizer"] = None
        large["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3
        path = folder + "/llama3.json"
        pathlib.Path(path).write_text(json.dumps(large))
        out.append(("llama3 pattern on qwen2", path, Tokenizer.from_file(path)))
        t = Tokenizer.from_file(base + "/llama2/tokenizer.json")
        out.append(("llama2", base + "/llama2", t))
        t = Tokenizer.from_file(base + "/llama2/tokenizer.json")
        raw = json.loads(t.to_str())
        for token in raw["added_tokens"]:
            token["normalized"] = False
        out.append(
            (
                "llama GGUF",
                base + "/vectors/ggml-vocab-llama-spm.gguf",
                Tokenizer.from_str(json.dumps(raw)),
            )
        )
        out.append(("phi-3 GGUF", base + "/vectors/ggml-vocab-phi-3.gguf", None))
    if SMOLLM2:
        out.append(("smollm2 GGUF", SMOLLM2, None))
    return out


def gguf_reference(path):
    """SmolLM2's pipeline around the lists in the file; None when the package gguf is missing."""
    try:
        from gguf import GGUFReader
    except ImportError:
        return None
    fields = GGUFReader(path).fields
    if "tokenizer.ggml.merges" not in fields:
        return None
    tokens, types = (
        fields["tokenizer.ggml.tokens"].contents(),
        fields["tokenizer.ggml.token_type"].contents(),
    )
    t = Tokenizer(
        models.BPE(
            vocab={s: i for i, s in enumerate(tokens)},
            merges=[tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()],
        )
    )
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(s, normalized=False) for s, k in zip(tokens, types) if k == 3])
    return t


# Comparing.


def write_records(path, records):
    with open(path, "wb") as f:
        for record in records:
            raw = record.encode()
            f.write(struct.pack("<I", len(raw)) + raw)


def read_ids(path):
    raw, out, i = open(path, "rb").read(), [], 0
    while i < len(raw):
        (n,) = struct.unpack_from("<I", raw, i)
        out.append(list(struct.unpack_from("<%di" % n, raw, i + 4)))
        i += 4 + 4 * n
    return out


def ours(program, tokenizer, folder, flags):
    p = subprocess.run(
        [program, tokenizer, folder + "/records", folder + "/ids"] + flags,
        capture_output=True,
        text=True,
    )
    if p.returncode:
        sys.exit("%s: %s" % (tokenizer, p.stderr))
    return read_ids(folder + "/ids"), float(p.stdout.split()[-2])


def compare(name, program, path, reference, records, folder, size):
    saved = os.path.join(folder, "saved " + name)
    os.mkdir(saved)
    got, seconds = ours(program, path, folder, ["add", "parse", "save=" + saved])
    wrong, spent, shown = 0, 0.0, 0
    again = None
    if reference is None:
        reference = gguf_reference(path)
    if os.path.exists(saved + "/tokenizer.json"):
        again = Tokenizer.from_file(saved + "/tokenizer.json")
    for label, t in (("", reference), (" as saved", again)):
        if t is None or (label and reference is not None and not path.endswith(".gguf")):
            continue
        wrong_here, spent_here = 0, 0.0
        for record, ids in list(zip(records, got))[:: 10 if label and spent else 1]:
            start = time.process_time()
            want = t.encode(record).ids
            spent_here += time.process_time() - start
            if want != ids:
                wrong_here += 1
                if shown < 3:
                    shown += 1
                    at = next(
                        (i for i, (a, b) in enumerate(zip(want, ids)) if a != b),
                        min(len(want), len(ids)),
                    )
                    print(
                        "  %s%s: %r...: expected %s, got %s; near %r"
                        % (
                            name,
                            label,
                            record[:40],
                            want[at : at + 6],
                            ids[at : at + 6],
                            t.decode(want[max(0, at - 3) : at + 6]),
                        )
                    )
        part = "a tenth of " if label and spent else ""
        print(
            "%-28s%-10s %s%.2f MB, %d records: %d wrong"
            % (name, label, part, size / 1e6, len(records), wrong_here)
        )
        wrong += wrong_here
        spent = spent or spent_here
    plain, _ = ours(program, path, folder, [])
    t = reference or again
    t.encode_special_tokens = True
    for record, ids in list(zip(records, plain))[::7]:
        if t.encode(record, add_special_tokens=False).ids != ids:
            wrong += 1
            print("  %s without special tokens: %r..." % (name, record[:60]))
            break
    return wrong, spent / seconds


def speed(program, path, reference, folder):
    """10 MB as one record after another of 100 kB, best of three each."""
    text, rounds = "\n".join(text_files()), []
    text = (text * (1 + 10_000_000 // len(text)))[:10_000_000]
    records = [text[i : i + 100_000] for i in range(0, len(text), 100_000)]
    write_records(folder + "/records", records)
    for _ in range(3):
        _, mine = ours(program, path, folder, [])
        start = time.process_time()
        for record in records:
            reference.encode(record, add_special_tokens=False)
        theirs = time.process_time() - start
        start = time.process_time()
        for record in records:
            reference.encode_batch_fast([record], add_special_tokens=False)
        rounds.append((mine, theirs, time.process_time() - start))
    size = sum(len(r.encode()) for r in records) / 1e6
    mine, theirs, fast = (min(r[i] for r in rounds) for i in range(3))
    return size / mine, size / theirs, size / fast


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("--mb", type=float, default=10)
    p.add_argument("--kinds", default="")
    p.add_argument("--speed", action="store_true")
    a = p.parse_args()
    print("tokenizers %s" % tokenizers.__version__)
    records, size = corpus(a.mb)
    total = compared = 0
    with tempfile.TemporaryDirectory() as folder:
        wanted = lambda name: not a.kinds or any(k in name for k in a.kinds.split(","))
        todo = [kind for kind in published(folder) if wanted(kind[0])]
        for name, make in kinds([r for r in records if 100 <= len(r) <= 10000][:500]).items():
            if wanted(name):
                path = os.path.join(folder, name.replace(" ", "_") + ".json")
                pathlib.Path(path).write_text(json.dumps(make()))
                todo.append((name, path, Tokenizer.from_file(path)))
        for name, path, reference in todo:
            if a.speed:
                print(
                    "%-28s ours %7.1f MB/s, tokenizers %6.1f MB/s, without offsets %6.1f MB/s"
                    % ((name,) + speed(a.program, path, reference or gguf_reference(path), folder))
                )
                continue
            used = old_characters(records) if name in OLD_ONLY else records
            write_records(folder + "/records", used)
            wrong, _ = compare(
                name, a.program, path, reference, used, folder, sum(len(r.encode()) for r in used)
            )
            sys.stdout.flush()
            total += wrong
            compared += 1
    if not a.speed:
        print(
            "%d kinds, %.1f MB each: %s"
            % (compared, size / 1e6, "all ids equal" if not total else "%d records differ" % total)
        )
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
