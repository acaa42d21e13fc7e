"""The page: its numbers are the log's, its markup is whole, names are text and nothing else."""

import html.parser
import json
import math
import re
import xml.etree.ElementTree as ET

import made
import pytest

from eqat.report import report, result

NAME = "<script>alert('x')</script> & \"ü\""
E2E_VALIDATION = "Training and validation loss of E2E-QP"


class Reader(html.parser.HTMLParser):
    """Tables by their figure's or section's id, ids, SVGs, words."""

    VOID = {"meta", "br"}

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.links, self.tags = [], [], [], []
        self.tables, self.words, self.rows = {}, [], None
        self.outside = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            if name in given and not given[name].startswith("#"):
                self.outside.append(given[name])
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        if tag == "table":
            self.rows = self.tables.setdefault(self.ids[-1].replace("-title", ""), [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "data":
            self.rows[-1][-1] = float(given["value"])
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "script" not in self.stack and "style" not in self.stack:
            self.words.append(data)
        cell = bool(self.stack) and self.stack[-1] in ("td", "th")
        if cell and isinstance(self.rows[-1][-1], str):
            self.rows[-1][-1] += data


def page_of(*paths, **how):
    results = [result.read(path, **how) for path in paths]
    result.tell_apart(results)
    return report.html(report.build(results), "a page", "1")


def drawings(text):
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    exact = made.folders(path, blocks=3)
    events = [json.loads(line) for line in (path / "out" / "eqat_log.jsonl").read_text().split("\n")
              if line]  # fmt: skip
    return path, events, exact


@pytest.fixture(scope="module")
def page(run):
    return page_of(run[0] / "out")


def test_losses_are_those_of_the_log(run, page):
    rows = Reader(page).tables["r1-loss-by-block"]
    first = {}
    for event in run[1]:
        if event["event"] == "step" and event["phase"] == "block-ap":
            first.setdefault(event["block"], event["loss"])
    epochs = [e for e in run[1] if e["event"] == "epoch"]
    assert rows[1:] == [
        [e["block"], e["epoch"] + 1, first[e["block"]], e["train_loss"], e["val_loss"]]
        for e in epochs
    ]


def test_gaps_follow_from_the_log(run, page):
    rows = Reader(page).tables["r1-gap-by-block"]
    last = {e["block"]: e for e in run[1] if e["event"] == "epoch"}
    assert len(rows) == 1 + 3
    for block, train, val, gap in rows[1:]:
        assert (train, val) == (last[block]["train_loss"], last[block]["val_loss"])
        assert gap == pytest.approx(val / train - 1)


def test_e2e_means_are_over_the_steps(run, page):
    rows = Reader(page).tables["r1-e2e-loss"]
    steps = [e for e in run[1] if e["event"] == "step" and e["phase"] == "e2e-qp"]
    begin = 0
    for last, loss, norm, rate in rows[1:]:
        part = [e for e in steps if begin < e["step"] <= last]
        for value, key in ((loss, "loss"), (norm, "grad_norm"), (rate, "lr")):
            assert value == pytest.approx(sum(e[key] for e in part) / len(part))
        begin = last
    assert begin == steps[-1]["step"]


def test_e2e_validations_and_what_was_kept(run, page):
    rows = Reader(page).tables["r1-e2e-validation"]
    steps = [e for e in run[1] if e["event"] == "step" and e["phase"] == "e2e-qp"]
    kept = next(e for e in run[1] if e["event"] == "kept")
    assert rows[1][:3] == [0, "–", kept["start_loss"]]
    told = {e["step"]: e["val_loss"] for e in steps if e["val_loss"] is not None}
    assert {row[0]: row[2] for row in rows[2:]} == told
    begin = 0
    for step, train, _, _ in rows[2:]:
        part = [e["loss"] for e in steps if begin < e["step"] <= step]
        assert train == pytest.approx(sum(part) / len(part))
        begin = step
    assert [row[0] for row in rows if row[3] == "kept"] == [kept["step"]]
    assert 0 < kept["step"] < steps[-1]["step"]
    assert f"Kept was the state behind step {kept['step']} (" in page
    svg = next(s for s in drawings(page) if s.get("aria-label") == E2E_VALIDATION)
    (mark,) = [line for line in svg.iter("line") if line.get("class") == "mark"]
    points = [p for p in svg.iter("path") if p.get("class") == "line s1"]
    places = re.findall(r"[ML]([\d.]+) ([\d.]+)", points[0].get("d"))
    assert len(places) == 1 + len(told)
    at = [0, *told].index(kept["step"])
    assert float(mark.get("x1")) == pytest.approx(float(places[at][0]), abs=0.2)


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ([], "The log does not tell which state was kept"),
        ([{"event": "kept", "phase": "e2e-qp", "step": 0, "start_loss": 2.5}], "was the start:"),
        ([{"event": "kept", "phase": "block-ap", "step": 9}], "does not tell which state"),
        ([{"event": "kept", "phase": "e2e-qp", "step": None}], "does not tell which state"),
    ],
)
def test_what_was_kept_of_e2e(tmp_path, kept, told):
    step = {"event": "step", "phase": "e2e-qp", "step": 1, "loss": 2.0, "val_loss": 2.25}
    path = tmp_path / "log.jsonl"
    path.write_text(made.lines([made.run_event(), step, *kept]))
    text = page_of(path)
    assert told in text
    assert len(Reader(text).tables["r1-e2e-validation"]) == 2 + (told == "was the start:")


def test_without_validations_of_e2e(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(made.lines([made.run_event(), {"event": "step", "phase": "e2e-qp", "step": 1,
                                                   "loss": 2.0, "val_loss": None}]))  # fmt: skip
    assert "the log has no validation of E2E-QP" in page_of(path)


def test_time_and_memory_are_those_of_the_log(run, page):
    tables = Reader(page).tables
    blocks = [e for e in run[1] if e["event"] == "block"]
    assert tables["r1-time-and-memory"][1:4] == [
        [e["block"], e["seconds"], e["peak_rss_bytes"]] for e in blocks
    ]
    rows = [row for rows in tables.values() for row in rows]
    assert ["quantize", "memory", 2.1e9, 2e9] in rows
    assert ["quantize", "time", 900.0, 2000.5] in rows
    assert ["quantize", "e2e-qp", 99.0, 2e9] in rows


def test_perplexities_and_sizes(run, page):
    rows = Reader(page).tables["overview"]
    assert rows[1] == [str(run[0] / "model"), "source", "–", "–", "–", 269e6, 5.5]
    assert rows[2] == ["out", "Block-AP + E2E-QP", 2, 32, 2.28, 87.6e6, 9.25]
    assert rows[0][-1] == "perplexity on wiki.txt, 16 windows of 2048 tokens"


def test_errors_and_zero_points(run, page):
    tables = Reader(page).tables
    weight, codes, zeros, scales = run[2]["model.layers.1.mlp.up_proj"]
    w = (codes.reshape(96, 2, 32) - zeros[:, :, None]) * scales.astype(float)[:, :, None]
    expected = ((w.reshape(96, 64) - weight) ** 2).sum() / (weight.astype(float) ** 2).sum()
    at = tables["r1-errors"][0].index("mlp.up_proj")
    assert tables["r1-errors"][2][at] == pytest.approx(expected, rel=1e-4)
    row = next(r for r in tables["r1-zero-points"] if r[:2] == [1, "mlp.up_proj"])
    assert row[2:] == [(zeros == z).sum() for z in range(4)]


def test_options_and_files_are_told(page):
    words = " ".join(Reader(page).words)
    for said in ("c4.jsonl", "ab" * 32, "quant_lr", "0.0001", "minmax", "*.down_proj"):
        assert said in words


def _heights(svg, label):
    """Of an axis: the values of its ticks and where they stand."""
    ticks = [t for t in svg.iter("text") if t.get("class") == label]
    return [(float(t.text), float(t.get("y")) - 4) for t in ticks]


def _on_log_axis(y, ticks):
    (a, ya), (b, yb) = ticks[0], ticks[-1]
    return 10 ** (math.log10(a) + (y - ya) / (yb - ya) * (math.log10(b) - math.log10(a)))


def test_lines_stand_where_the_axis_says(run, page):
    svg = next(s for s in drawings(page) if s.get("aria-label") == "Loss of every block")
    ticks = [tick for tick in _heights(svg, "tick end") if tick[0] > 0]
    line = next(p for p in svg.iter("path") if p.get("class") == "line s1")
    points = re.findall(r"[ML]([\d.]+) ([\d.]+)", line.get("d"))
    last = {e["block"]: e["val_loss"] for e in run[1] if e["event"] == "epoch"}
    assert len(points) == 3
    for (_, y), value in zip(points, last.values()):
        assert _on_log_axis(float(y), ticks) == pytest.approx(value, rel=0.02)


def test_the_markup_is_whole(page):
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.outside == []
    assert all(link[1:] in reader.ids for link in reader.links)
    labelled = [given for tag, given in reader.tags if tag == "figure"]
    assert len(labelled) >= 10
    assert all(given["aria-labelledby"] in reader.ids for given in labelled)
    found = drawings(page)
    assert all(svg.get("aria-label") and svg.get("role") == "img" for svg in found)
    assert not re.search(r"\b(nan|inf|None)\b", re.sub(r"<script>.*", "", page, flags=re.S))


def test_drawings_stay_inside(page):
    for svg in drawings(page):
        width, height = float(svg.get("width")), float(svg.get("height"))
        for element in svg.iter():
            for name, most in (("x", width), ("y", height), ("cx", width), ("cy", height)):
                assert 0 <= float(element.get(name) or 0) <= most
        for path in svg.iter("path"):
            for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path.get("d")):
                assert 0 <= float(x) <= width and 0 <= float(y) <= height


def test_names_are_text(tmp_path):
    events = list(made.events(2, e2e=5, model=NAME, out=NAME))
    events[0].update(method=NAME, processor=NAME, time=NAME, version=NAME, arguments=[NAME])
    events[0]["options"][NAME] = {NAME: NAME}
    events[0]["files"] = [{"use": NAME, "path": NAME, "sha256": NAME, "bytes": 1}]
    events[0]["rules"] = [{"pattern": NAME, "bits": 0, "group_size": NAME}]
    events.append({"event": "log", "level": "warning", "text": NAME})
    events.append({"event": "log", "level": '"><b>', "text": NAME})
    events.append({"event": "eval", "model": NAME, "file": NAME, "perplexity": 3.5})
    events.append({"event": "end", "status": NAME, "message": NAME})
    folder = tmp_path / "a<b>&c"
    folder.mkdir()
    (folder / "eqat_log.jsonl").write_text(made.lines(events))
    text = page_of(folder)
    assert text.count("<script") == 1
    assert "<b>" not in text
    reader = Reader(text)
    assert "a<b>&c" in " ".join(reader.words)
    assert sum(NAME in word for word in reader.words) > 10
    assert not [given for _, given in reader.tags if any(k.startswith("on") for k in given)]


def test_many_blocks_are_shown_on_request(tmp_path):
    path = tmp_path / "log.jsonl"
    for blocks, hidden in ((12, False), (80, True)):
        path.write_text(made.lines(made.events(blocks, steps=20, e2e=0)))
        text = page_of(path)
        assert (f"Show {blocks} panels" in text) == hidden
        panels = [s for s in drawings(text) if re.search(r": block \d+$", s.get("aria-label"))]
        assert len(panels) == 2 * blocks
        assert ("How far the loss of each block fell" in text) == hidden


@pytest.mark.parametrize(
    "lines",
    [
        [made.run_event()],
        [made.run_event(), {"event": "end", "status": "cancelled", "message": "by the user"}],
        [{"event": "step", "phase": "block-ap", "loss": None}],
        [{"event": "step", "phase": "block-ap", "loss": -1.0, "step": 1}],
        [{"event": "step", "phase": "block-ap", "loss": 0, "val_loss": 0, "step": 1}],
        [{"event": "step", "phase": "e2e-qp", "loss": 2.0, "grad_norm": 0, "step": 1}],
        [{"event": "epoch", "train_loss": 1.0, "val_loss": None}],
        [{"event": "epoch", "block": 2**30, "train_loss": 1e-300, "val_loss": 1e300}],
        [{"event": "eval", "perplexity": 3.0}, {"event": "eval", "perplexity": None}],
        [{"event": "eval", "perplexity": 1e308, "seq_len": 1e308, "windows": -3}],
        [{"event": "block", "seconds": 0, "peak_rss_bytes": 0}],
        [{"event": "saved", "path": "\0", "bytes": -1}, {"event": "need", "seconds": "soon"}],
        [made.run_event(rules=3, files={"a": 1}, options={"quantizer": [1]}, arguments="x")],
    ],
)
def test_what_is_missing_is_said(tmp_path, lines):
    path = tmp_path / "log.jsonl"
    path.write_text(made.lines(lines))
    text = page_of(path)
    Reader(text)
    drawings(text)
    assert "left out, because" in text


def test_a_line_that_could_not_be_read_is_said(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(made.lines(made.events(1)) + '{"event": "st')
    assert "1 line of" in page_of(path)


def test_several_runs_side_by_side(tmp_path, run):
    second = tmp_path / "second" / "out"
    second.mkdir(parents=True)
    log = made.lines(made.events(3, seed=4, model=str(run[0] / "model"), perplexity=7.125))
    (second / "eqat_log.jsonl").write_text(log)
    text = page_of(run[0] / "out", second)
    reader = Reader(text)
    assert len(reader.ids) == len(set(reader.ids))
    rows = reader.tables["overview"]
    assert [row[0] for row in rows[2:]] == [f"{run[0].name}/out", "second/out"]
    assert [row[-1] for row in rows[1:]] == [5.5, 9.25, 7.125]
    titles = [svg.get("aria-label") for svg in drawings(text)]
    assert "Block-AP: validation loss by block" in titles
    assert "E2E-QP: loss over the steps" in titles


def test_numbers_as_written():
    from eqat.report import units

    assert units.plain(0.00012345) == "1.234e-4" or units.plain(0.00012345) == "0.0001234"
    assert [units.plain(v) for v in (0, 9.25, 290126.4, 1e-9, -3.5)] == [
        "0", "9.250", "290126", "1.000e-9", "-3.500"]  # fmt: skip
    assert [units.tick(v) for v in (0, 0.5, 20, 1e-5, 3e6, 0.0005)] == [
        "0", "0.5", "20", "1e-5", "3e6", "5e-4"]  # fmt: skip
    assert [units.size(v) for v in (12, 87.6e6, 2e9, math.nan)] == [
        "12 B",
        "87.6 MB",
        "2.00 GB",
        "–",
    ]
    assert [units.duration(v) for v in (0.5, 59.9, 200, 7300)] == [
        "0.50 s", "59.9 s", "3 min 20 s", "2 h 1 min"]  # fmt: skip
    assert [units.percent(v) for v in (0.1234, 1, 0)] == ["12.3%", "100%", "0%"]
