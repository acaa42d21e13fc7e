"""What the page does when it is pointed at; without it, everything but the tips is there."""

SCRIPT = r"""
"use strict";
(() => {
  const NS = "http://www.w3.org/2000/svg";
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);

  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 16 + box.width > innerWidth ? x - box.width - 12 : x + 16;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, Math.min(y + 14, innerHeight - box.height - 4)) + "px";
  };
  const hide = (svg) => {
    tip.hidden = true;
    svg.querySelectorAll(".cursor").forEach((e) => e.remove());
  };
  const nearest = (values, x) => {
    let best = 0;
    values.forEach((v, i) => { if (Math.abs(v - x) < Math.abs(values[best] - x)) best = i; });
    return best;
  };
  const plot = (svg, chart, i, x, y) => {
    hide(svg);
    const line = document.createElementNS(NS, "line");
    const ends = { x1: chart.x[i], x2: chart.x[i], y1: chart.box[1], y2: chart.box[3] };
    Object.entries(ends).forEach(([k, v]) => line.setAttribute(k, v));
    line.setAttribute("class", "cursor");
    svg.append(line);
    const rows = chart.series.filter((s) => s[1][i] !== null).map((s) => s[0] + "  " + s[2][i]);
    show([chart.label + "  " + chart.at[i], ...rows].join("\n"), x, y);
  };
  const heat = (svg, chart, p, x, y) => {
    const column = chart.x.findIndex((edge, i) => p.x >= edge && p.x < chart.x[i + 1]);
    const share = (p.y - chart.y[0]) / (chart.y[1] - chart.y[0]);
    const row = Math.floor(share * chart.rows.length);
    const value = (chart.v[row] || [])[column];
    if (value) show(chart.rows[row] + "\n" + chart.columns[column] + "\n" + value, x, y);
    else hide(svg);
  };
  const point = (svg, chart, event) => {
    const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      svg.getScreenCTM().inverse());
    if (chart.kind === "heat") return heat(svg, chart, p, event.clientX, event.clientY);
    const [left, top, right, bottom] = chart.box;
    if (p.x < left - 6 || p.x > right + 6 || p.y < top || p.y > bottom) return hide(svg);
    plot(svg, chart, nearest(chart.x, p.x), event.clientX, event.clientY);
  };
  const keys = (svg, chart) => {
    let at = 0;
    svg.tabIndex = 0;
    const move = (by) => {
      at = Math.max(0, Math.min(chart.x.length - 1, at + by));
      const box = svg.getBoundingClientRect();
      plot(svg, chart, at, box.left + chart.x[at], box.top + chart.box[1]);
    };
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
      if (event.key === "Escape") hide(svg);
      if (by) { event.preventDefault(); move(by); }
    });
    svg.addEventListener("blur", () => hide(svg));
  };
  document.querySelectorAll("svg[data-chart]").forEach((svg) => {
    const chart = JSON.parse(svg.dataset.chart);
    svg.querySelector("title").remove();  // the tip says more; aria-label stays
    svg.addEventListener("pointermove", (event) => point(svg, chart, event));
    svg.addEventListener("pointerdown", (event) => point(svg, chart, event));
    svg.addEventListener("pointerleave", () => hide(svg));
    if (chart.kind === "plot" && svg.clientWidth > 400) keys(svg, chart);
  });
})();
"""
