"""The page in Chromium, light and dark, with 3, 30 and 80 blocks; 77 without Chromium. Where this
Python lacks NumPy, the system's does it.

Usage: browser.py [FOLDER]; with FOLDER, pages and screenshots are kept there to be looked at.
"""

import html
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SYSTEM = "/usr/bin/python3"
DARK = "--blink-settings=preferredColorScheme=0"

# What a person would see, told by the page itself: texts outside their drawing, contrast of texts,
# width beyond the window, and what a pointer on the middle of a drawing is told.
PROBE = r"""<script>
"use strict";
const rgb = (text) => text.match(/[\d.]+/g).slice(0, 3).map(Number);
const light = (text) => {
  const [r, g, b] = rgb(text).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
document.querySelectorAll("details").forEach((e) => { e.open = true; });
const card = getComputedStyle(document.querySelector("figure")).backgroundColor;
const found = { scheme: card, outside: [], faint: [], tips: [], clash: [] };
document.querySelectorAll("svg").forEach((svg) => {
  const box = svg.getBoundingClientRect();
  const boxes = [];
  svg.querySelectorAll("text").forEach((text) => {
    const at = text.getBoundingClientRect();
    const what = svg.getAttribute("aria-label") + ": " + text.textContent;
    if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 2 ||
        at.bottom > box.bottom + 2) found.outside.push(what);
    const style = getComputedStyle(text);
    const level = (text.getAttribute("class").match(/on(\d)/) || [])[1];
    const behind = level === undefined ? card :
      getComputedStyle(document.querySelector("rect.h" + level)).fill;
    if (contrast(style.fill, behind) < 4.5) found.faint.push(what + " " + style.fill);
    if (boxes.some((b) => at.left < b.right - 1 && b.left < at.right - 1 &&
        at.top < b.bottom - 4 && b.top < at.bottom - 4)) found.clash.push(what);
    boxes.push(at);
  });
});
document.querySelectorAll("p, td, th, summary, dt, dd, small, h1, h3, h4, a").forEach((e) => {
  const style = getComputedStyle(e);
  const behind = e.closest("figure") ? card : getComputedStyle(document.body).backgroundColor;
  if (e.textContent && contrast(style.color, behind) < 4.5) found.faint.push(e.textContent);
});
for (const id of ["r1-loss-by-block", "r1-errors"]) {
  const svg = document.querySelector("#" + id + " svg[data-chart]");
  const box = svg.getBoundingClientRect();
  const chart = JSON.parse(svg.dataset.chart);
  const x = chart.kind === "plot" ? chart.x[0] : (chart.x[0] + chart.x[1]) / 2;
  const y = chart.kind === "plot" ? chart.box[1] + 20 : chart.y[0] + 3;
  svg.dispatchEvent(new PointerEvent("pointermove",
    { clientX: box.left + x, clientY: box.top + y }));
  found.tips.push(document.getElementById("tip").textContent);
  svg.dispatchEvent(new PointerEvent("pointerleave"));
}
const plot = document.querySelector("#r1-loss-by-block svg[data-chart]");
plot.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
found.tips.push(document.getElementById("tip").textContent);
found.wide = document.documentElement.scrollWidth - innerWidth;
document.body.dataset.found = JSON.stringify(found);
</script></body>"""


def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    return None


def browse(work, *arguments):
    done = subprocess.run(
        [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--enable-logging=stderr", f"--user-data-dir={work}/profile", *arguments],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert not console, console
    return done.stdout


def probe(work, page, width, dark):
    probed = work / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    scheme = [DARK] if dark else []
    dom = browse(work, *scheme, f"--window-size={width},1000", "--dump-dom", f"file://{probed}")
    found = re.search(r'data-found="([^"]*)"', dom)
    assert found, dom[-400:]
    return json.loads(html.unescape(found[1]))


def check_probe(found, dark, first, last, where):
    for name in ("outside", "faint", "clash"):
        assert not found[name], f"{where}: {name}: {found[name][:5]}"
    assert found["wide"] <= 0, f"{where}: {found['wide']} pixels wider than the window"
    background = [int(v) for v in re.findall(r"\d+", found["scheme"])[:3]]
    assert (max(background) < 60) == dark, f"{where}: {found['scheme']}"
    assert found["tips"][0].splitlines()[0] == "block  0", found["tips"]
    assert f"validation  {first}" in found["tips"][0], (where, found["tips"], first)
    assert found["tips"][1].splitlines()[:2] == ["block 0", "q_proj"], found["tips"]
    assert re.fullmatch(r"[\d.]+%", found["tips"][1].splitlines()[2]), found["tips"]
    assert f"validation  {last}" in found["tips"][2], (where, found["tips"], last)


def val_losses(log):
    from eqat.report import units

    events = [json.loads(line) for line in log.read_text().splitlines()]
    last = {e["block"]: e["val_loss"] for e in events if e["event"] == "epoch"}
    return units.plain(last[0]), units.plain(last[max(last)])


def check(work, blocks):
    import made

    from eqat.report import main

    folder = work / f"blocks-{blocks}"
    shutil.rmtree(folder, ignore_errors=True)
    made.folders(folder, blocks, steps=20 if blocks > 30 else 60, e2e=300)
    page = work / f"blocks-{blocks}.html"
    assert main([str(folder / "out"), "--out", str(page)]) == 0
    first, last = val_losses(folder / "out" / "eqat_log.jsonl")
    for dark in (False, True):
        name = f"{blocks} blocks, {'dark' if dark else 'light'}"
        check_probe(probe(work, page, 1200, dark), dark, first, last, name)
        picture = work / f"blocks-{blocks}-{'dark' if dark else 'light'}.png"
        scheme = [DARK] if dark else []
        size = "--window-size=1200,8000"
        browse(work, *scheme, size, f"--screenshot={picture}", f"file://{page}")
        assert picture.stat().st_size > 100_000
    check_probe(probe(work, page, 400, False), False, first, last, f"{blocks} blocks, narrow")
    print(f"{blocks} blocks: light, dark and narrow")


def main():
    missing = [] if importlib.util.find_spec("numpy") else ["NumPy"]
    if missing and os.path.exists(SYSTEM) and not os.path.samefile(sys.executable, SYSTEM):
        os.execv(SYSTEM, [SYSTEM, __file__, *sys.argv[1:]])
    missing += [] if chromium() else ["Chromium"]
    if missing:
        print(f"skipped: needs {' and '.join(missing)}")
        return 77
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE)]
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else scratch).resolve()
        os.makedirs(work, exist_ok=True)
        for blocks in (3, 30, 80):
            check(work, blocks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
