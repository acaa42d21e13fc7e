"""Block-AP with its activations in memory and on disk, on few samples and on many: what the disk
costs, and what grows.
"""

import os
import statistics
import tempfile

from models import SHAPES, write_model, write_tokens

TIME = 512


def rows(bench):
    smoke = bench.opt.smoke
    shape = dict(SHAPES["tiny" if smoke else "smollm2"], vocab=1024, layers=2 if smoke else 4)
    folder = os.path.join(bench.folder, "offload")
    write_model(folder, shape)
    for samples in (4, 8) if smoke else (16, 128):
        tokens = os.path.join(bench.folder, f"offload-{samples}.u32")
        write_tokens(tokens, samples * TIME, shape["vocab"])
        found = {"memory": [], "disk": []}
        for _ in range(bench.opt.pairs):
            for place, results in found.items():
                results.append(quantize(bench, folder, tokens, samples, place == "disk"))
        seconds = {
            place: statistics.median(r["seconds"] for r in results)
            for place, results in found.items()
        }
        trained = samples * TIME * shape["layers"]
        yield dict(
            case=f"offload/{samples}",
            seconds=seconds,
            peak={p: max(r["peak_rss_bytes"] for r in results) for p, results in found.items()},
            ratio=statistics.median(
                d["seconds"] / m["seconds"] for m, d in zip(found["memory"], found["disk"])
            ),
            microseconds_per_token={p: 1e6 * s / trained for p, s in seconds.items()},
        )


def quantize(bench, folder, tokens, samples, disk):
    with tempfile.TemporaryDirectory(dir=bench.folder) as place:
        command = [
            os.path.join(bench.opt.eqat, "examples", "eqat", "eqat"),
            "quantize",
            folder,
            "--out",
            os.path.join(place, "out"),
            "--calib",
            tokens,
            "--seq-len",
            str(TIME),
            "--train-size",
            str(samples),
            "--val-size",
            "0",
            "--epochs",
            "1",
            "--sampling",
            "consecutive",
            "--threads",
            str(bench.threads),
            "--json",
        ] + (["--offload-dir", place] if disk else [])
        return bench.run(command)


def line(row):
    mb = {place: peak / 1e6 for place, peak in row["peak"].items()}
    each = row["microseconds_per_token"]
    return (
        f"{row['case']} samples: on disk {row['ratio']:.3f}x the time in memory; "
        f"{each['memory']:.1f} and {each['disk']:.1f} us a token and block, "
        f"peak {mb['memory']:.0f} and {mb['disk']:.0f} MB"
    )
