"""The page's style sheet. Colours are variables, once for light and once for dark."""

CSS = (
    """
:root {
  color-scheme: light dark;
  --paper: #fcfcfb; --card: #ffffff; --ink: #1c2024; --quiet: #5a6570; --rule: #dfe3e8;
  --grid: #eceff2; --link: #1a5fa8; --shadow: 0 1px 2px rgb(20 30 40 / 6%);
  --s0: #1f6fb4; --s1: #b8500a; --s2: #2b7a3d; --s3: #8a3fa0; --s4: #ad2f4f; --s5: #66717c;
  --h0: #edf3f9; --h1: #d6e4f1; --h2: #b9d2e8; --h3: #97bcdd; --h4: #72a3cf; --h5: #4179ae;
  --h6: #326da6; --h7: #1d5288; --h8: #0e3763; --low: #1c2024; --high: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e6e9ec; --quiet: #a0abb5; --rule: #333a41;
    --grid: #282e34; --link: #7db7ee; --shadow: none;
    --s0: #6fb2ee; --s1: #f09c55; --s2: #78c98a; --s3: #cb9ae0; --s4: #ef8399; --s5: #9aa5b0;
    --h0: #20303f; --h1: #223d55; --h2: #244b6c; --h3: #2a5d88; --h4: #316b9b; --h5: #4a8bbf;
    --h6: #6ba6d4; --h7: #98c4e6; --h8: #cbe2f5; --low: #e6e9ec; --high: #0d1216;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main, header, footer { max-width: 1140px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 22px; margin: 56px 0 4px; padding-top: 16px; border-top: 2px solid var(--ink);
  overflow-wrap: anywhere; }
h3 { font-size: 18px; margin: 36px 0 8px; }
h4 { font-size: 15px; margin: 0 0 2px; }
p { margin: 0 0 8px; max-width: 78ch; }
header p { margin: 0; }
a { color: var(--link); }
.quiet, figcaption p, .missing { color: var(--quiet); }
nav { margin: 16px 0 0; font-size: 14px; }
nav ul { list-style: none; margin: 0 0 4px; padding: 0; display: flex; flex-wrap: wrap;
  gap: 2px 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 16px 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 14px; box-shadow: var(--shadow); }
.tiles dt { color: var(--quiet); font-size: 13px; }
.tiles dd { margin: 0; font-size: 22px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles small { display: block; color: var(--quiet); font-size: 12px; line-height: 1.3;
  overflow-wrap: anywhere; }
figure { margin: 14px 0 20px; padding: 16px 18px 12px; background: var(--card);
  border: 1px solid var(--rule); border-radius: 8px; box-shadow: var(--shadow); }
figcaption { margin-bottom: 8px; }
figcaption p { font-size: 13.5px; }
.wide { overflow-x: auto; }
.wide svg { display: block; margin: 0 auto 6px; }
.wide svg.left { margin-left: 0; }
.many { display: grid; gap: 8px 4px; justify-content: start;
  grid-template-columns: repeat(auto-fill, 204px); }
.many.heats { grid-template-columns: repeat(auto-fill, 250px); }
.keys { display: flex; gap: 18px; font-size: 13px; margin: 0 0 8px; padding: 0; list-style: none; }
.keys i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px;
  vertical-align: middle; background: currentColor; }
.keys .points i { width: 8px; height: 8px; border-radius: 50%; }
.keys span { color: var(--ink); }
.key svg { margin: 0; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--link); font-size: 14px; }
.table { overflow: auto; max-height: 480px; margin: 8px 0; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }
td { overflow-wrap: break-word; max-width: 44ch; }
td.n, th.n { text-align: right; white-space: nowrap; }
th.n { white-space: normal; }
thead th { color: var(--quiet); font-weight: 600; position: sticky; top: 0;
  background: var(--card); vertical-align: bottom; }
.plain thead th { background: var(--paper); }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.warning { border-left: 3px solid var(--s1); padding-left: 10px; }
.error { border-left: 3px solid var(--s4); padding-left: 10px; }
footer { margin: 48px auto 32px; color: var(--quiet); font-size: 13px; }

svg text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--quiet); }
svg text.mid { text-anchor: middle; }
svg text.end { text-anchor: end; }
svg text.panel { font-size: 12.5px; font-weight: 600; fill: var(--ink); }
svg text.tick { font-size: 11px; }
svg text.name { font-weight: 600; }
svg text.cell { font-size: 11px; fill: var(--low); }
svg .on5, svg .on6, svg .on7, svg .on8 { fill: var(--high) !important; }
.grid { stroke: var(--grid); }
.axis { stroke: var(--quiet); }
.mark { stroke: var(--quiet); stroke-dasharray: 2 3; opacity: .7; }
.empty { fill: var(--grid); opacity: .5; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.faint { stroke-width: 1; opacity: .45; }
.band { stroke: none; opacity: .18; }
.point { stroke: var(--card); stroke-width: 1; }
.cursor { stroke: var(--ink); stroke-width: 1; opacity: .5; pointer-events: none; }
#tip { position: fixed; z-index: 9; pointer-events: none; background: var(--ink);
  color: var(--paper); font-size: 12.5px; line-height: 1.45; padding: 6px 10px; border-radius: 6px;
  white-space: pre; font-variant-numeric: tabular-nums; }
svg:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media print {
  details > * { display: block; }
  figure { break-inside: avoid; }
  nav { display: none; }
}
@media (max-width: 640px) {
  main, header, footer { padding-left: 14px; padding-right: 14px; }
  figure { padding: 12px; }
}
"""
    + "".join(
        f".line.s{i} {{ stroke: var(--s{i}); }} .band.s{i}, .bar.s{i}, .point.s{i}, .t{i} "
        f"{{ fill: var(--s{i}) !important; }} .c{i} {{ color: var(--s{i}); }}\n"
        for i in range(6)
    )
    + "".join(f".h{i} {{ fill: var(--h{i}); }}\n" for i in range(9))
)
