"""The table, the plot, and what is said about the machine."""

import importlib.metadata
import math

import offload


def processor():
    with open("/proc/cpuinfo") as f:
        lines = f.read().splitlines()
    name = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        "unknown",
    )
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return " ".join(
        [name] + [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
    )


def versions():
    out = {}
    for package in ("torch", "transformers", "tokenizers"):
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return out


def side(row, name):
    return row.get("sides", {}).get(name, {})


def above_base(s):
    return (s["peak"] - s["base"]) / 1e6


def line(row):
    if "sides" not in row:
        return row["case"]
    parts = [f"{row['case']} {row['dtype']}:"]
    for name, s in row["sides"].items():
        parts.append(
            f"{name} {s['median']:.4f} s" + (f" ({s['ratio']:.2f}x)" if "ratio" in s else "")
        )
    if "fraction" in row:
        parts.append(f"{100 * row['fraction']:.0f}% of the machine")
    return " ".join(parts)


HEAD = (
    "case",
    "",
    "tokens/s",
    "torch",
    "x",
    "cpu x",
    "least x",
    "compile",
    "x",
    "cpu x",
    "least x",
    "GFLOP/s",
    "machine",
    "%",
    "cpu %",
    "least %",
    "peak MB",
    "torch",
    "x",
    "above base",
    "torch",
    "x",
)


LEGEND = """\
x: how many times faster libeqat is, the median over pairs. machine: the best oneDNN products of the
same shapes, in GFLOP/s; %: libeqat's share of it, attention counted as work. cpu: the same by the
processors' time instead of the clock's, which says more when something else was running. least: of
each side's fastest step, for machines whose own rate moves. peak: of the whole process; above base:
less what was resident before the model was opened; their x: libeqat's share of PyTorch's."""


def cells(row):
    e, t, c = (side(row, name) for name in ("eqat", "torch", "compile"))
    number = lambda value, form: format(value, form) if value is not None else "-"
    percent = lambda key: number(100 * row[key] if key in row else None, ".0f")
    rate = lambda s: number(row["tokens"] / s["median"], ".0f") if s and "tokens" in row else "-"
    times = lambda s: tuple(
        number(s.get(key), ".2f") for key in ("ratio", "ratio_cpu", "ratio_least")
    )
    both = lambda value: (
        *(number(value(s) if s else None, ".0f") for s in (e, t)),
        number(value(e) / value(t) if e and t else None, ".2f"),
    )
    return (
        row["case"],
        row["dtype"],
        rate(e),
        rate(t),
        *times(t),
        "failed" if "compile" in row["failed"] else rate(c),
        *times(c),
        number(row["flops"] / e["median"] / 1e9 if e and "flops" in row else None, ".0f"),
        number(row["matrix_rate"][0] / 1e9 if "matrix_rate" in row else None, ".0f"),
        percent("fraction"),
        percent("fraction_cpu"),
        percent("fraction_least"),
        *both(lambda s: s["peak"] / 1e6),
        *both(above_base),
    )


def cancel_line(row):
    return (
        f"cancel-checks: {100 * (row['ratio'] - 1):+.2f}% of processor time, "
        f"with tasks of {1e6 * row['task']:.1f} us"
    )


def table(result):
    rows = [r for r in result["rows"] if "sides" in r]
    lines = []
    if rows:
        text = [HEAD] + [cells(r) for r in rows]
        widths = [max(len(r[i]) for r in text) for i in range(len(HEAD))]
        lines += [
            " ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths)))
            for r in text
        ]
        lines += ["", LEGEND]
    for r in rows:
        lines += [f"{r['case']} {r['dtype']}: {name}: {why}" for name, why in r["failed"].items()]
        losses = [s["loss"] for s in r["sides"].values() if s.get("loss")]
        if losses and max(losses) > 1.05 * min(losses):
            lines.append(f"{r['case']} {r['dtype']}: the sides' losses differ: {losses}")
        if "bytes" in r and "memory_rate" in r:
            e = side(r, "eqat")
            lines.append(
                f"pack: libeqat {1e3 * e['median']:.1f} ms, "
                f"{r['bytes'] / e['median'] / 1e9:.1f} GB/s of {r['memory_rate'][0] / 1e9:.1f} GB/s"
                + "".join(
                    f"; {name} {1e3 * s['median']:.1f} ms without packing"
                    for name, s in r["sides"].items()
                    if name != "eqat"
                )
            )
    for r in result["rows"]:
        if r["case"].startswith("offload/"):
            lines.append(offload.line(r))
        if r["case"] == "cancel-checks":
            lines.append(cancel_line(r))
        if r["case"].startswith("tokenizer/"):
            speed = r["megabytes_per_second"]
            theirs = max(speed["tokenizers"], speed["without_offsets"])
            lines.append(
                f"{r['case']}: {speed['eqat']:.1f} MB/s, "
                f"tokenizers {theirs:.1f} MB/s, {r['ratio']:.1f}x"
            )
        if r["case"] == "quickstart":
            lines.append(f"quickstart: {r['seconds']:.0f} s")
    m = result["machine"]
    known = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    lines.append(f"{m['processor']}, {m['threads']} threads, load {m['load'][0]:.1f}; {known}")
    return "\n".join(lines)


def plot(result, path):
    try:
        import matplotlib
    except ImportError:
        print("no plot: the Python package matplotlib is not installed")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in result["rows"] if side(r, "eqat")]
    names = [f"{r['case']} {r['dtype']}" for r in rows]
    figure, (speed, share) = plt.subplots(1, 2, figsize=(12, 1.5 + 0.32 * len(rows)), sharey=True)
    at = range(len(rows))
    speed.barh(
        [i - 0.2 for i in at],
        [side(r, "torch").get("ratio", math.nan) for r in rows],
        0.38,
        label="PyTorch",
    )
    speed.barh(
        [i + 0.2 for i in at],
        [side(r, "compile").get("ratio", math.nan) for r in rows],
        0.38,
        label="torch.compile",
    )
    speed.axvline(1, color="black", linewidth=0.8)
    speed.set(xscale="log", xlabel="times faster than", yticks=list(at), yticklabels=names)
    speed.set_xticks([0.5, 1, 2, 5, 10, 20, 50], minor=False)
    speed.xaxis.set_major_formatter("{x:g}")
    speed.minorticks_off()
    speed.invert_yaxis()
    share.barh(list(at), [100 * r.get("fraction", 0) for r in rows], 0.6, color="tab:green")
    dots = dict(marker="o", color="black", linestyle="none", markersize=4, label="fastest step")
    speed.plot(
        [side(r, "torch").get("ratio_least", math.nan) for r in rows], [i - 0.2 for i in at], **dots
    )
    share.plot([100 * r.get("fraction_least", math.nan) for r in rows], list(at), **dots)
    share.set(
        xlabel="% of the machine's matrix rate (pack: of its memory bandwidth)", xlim=(0, 100)
    )
    speed.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
