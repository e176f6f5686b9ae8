#include "repquant/report/style.h"

namespace repquant::report {

// Blue, orange and grey stay apart for every common kind of colour blindness; what a colour says, a
// place, a line or a bold figure says as well.
std::string_view style_sheet() {
  return R"css(
:root {
  color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --text: #1a1f26; --quiet: #59626e; --line: #d8dde4;
  --field: #f4f6f8; --after: #2461c4; --before: #a9b2be; --clip: #c2560a; --folded: #0f7a5e;
  --worst: #c2560a; --tint: #dbe6f8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101316; --card: #191d22; --text: #e7eaee; --quiet: #9ba5b2; --line: #343c46;
    --field: #14181c; --after: #6ea6ff; --before: #5f6a78; --clip: #f2a45c; --folded: #52c5a3;
    --worst: #f2a45c; --tint: #24364f;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main, header, footer { max-width: 1320px; margin: 0 auto; padding: 0 clamp(12px, 3vw, 32px); }
header { padding-top: 28px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .3rem; }
h2.run { font-size: 1.4rem; margin: 2.4rem 0 0; overflow-wrap: anywhere; }
a { color: var(--after); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .6rem 0 0; font-size: .92rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: clamp(12px, 2vw, 22px); margin: 18px 0; }
p { margin: .2rem 0 .8rem; max-width: 75ch; }
.quiet, .note { color: var(--quiet); }
.note { font-style: italic; margin: .2rem 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 16px 0 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--quiet); font-size: .86rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.tall { max-height: 32rem; overflow: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .36rem .45rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th { font-weight: 600; }
thead th { color: var(--quiet); font-size: .82rem; line-height: 1.25; vertical-align: bottom;
  white-space: normal; min-width: 4.2rem; }
.tall thead th { position: sticky; top: 0; background: var(--card); }
.scroll tbody th, .scroll thead th:first-child { position: sticky; left: 0; background: var(--card); }
.scroll thead th:first-child { z-index: 1; }
th:first-child, th.text, td.text { text-align: left; }
table.equal { table-layout: fixed; } table.equal th { overflow-wrap: anywhere; }
td.bar { background: linear-gradient(to right, var(--tint) var(--w), transparent var(--w)); }
tbody th { font-weight: 500; min-width: 9rem; max-width: 26rem; overflow: hidden; text-overflow: ellipsis; }
@media (max-width: 600px) { tbody th { max-width: 11rem; } }
tbody tr:last-child > * { border-bottom: 0; }
.facts th, .facts td { white-space: normal; overflow-wrap: anywhere; text-align: left; vertical-align: top; }
.facts th { width: 30%; min-width: 9rem; }
.mono, .facts td { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .82rem; }
figure { margin: 0; } .scroll + figure { margin-top: .9rem; }
figcaption { font-size: .82rem; color: var(--quiet); overflow-wrap: anywhere; }
figcaption b { color: var(--text); font-weight: 600; }
.cards { display: grid; gap: 16px 20px; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); }
.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 165px), 1fr)); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 .8rem; padding: 0;
  list-style: none; font-size: .86rem; color: var(--quiet); }
.legend i { display: inline-block; width: 18px; height: 10px; margin-right: 6px; border-radius: 2px; }
.k-after { background: var(--after); } .k-before { background: var(--before); }
.k-worst { background: var(--worst); } .k-folded { background: var(--folded); }
.k-clip { height: 0 !important; border-top: 2px solid var(--clip); vertical-align: middle; }
svg.chart { display: block; overflow: hidden; max-width: 100%; margin: 2px 0; }
svg.plotted { width: calc(100% - 194px); margin-left: 150px; overflow: visible; }
svg.gutter { width: calc(100% - 40px); margin-left: 40px; overflow: visible; }
svg text { fill: var(--text); font-size: 11px; }
svg .label { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 10.5px; }
svg .tick { fill: var(--quiet); font-size: 10.5px; }
svg .value { font-variant-numeric: tabular-nums; } svg .strong { font-weight: 700; fill: var(--worst); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .field { fill: var(--field); }
svg .before { fill: var(--before); } svg .after { fill: var(--after); } svg .worst { fill: var(--worst); }
svg .whisker { stroke: var(--after); stroke-width: 2; } svg .dot { fill: var(--after); }
svg .range-before { fill: var(--before); } svg .range-folded { fill: var(--folded); fill-opacity: .55; }
svg .clip-line { fill: none; stroke: var(--clip); stroke-width: 1.1; vector-effect: non-scaling-stroke; }
svg .zero { fill: none; stroke: var(--text); stroke-width: 1; opacity: .45;
  vector-effect: non-scaling-stroke; }
svg .code { fill: var(--after); }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--quiet); }
footer { color: var(--quiet); font-size: .84rem; padding-bottom: 32px; }
@media print { section, .tiles li { break-inside: avoid; } .tall { max-height: none; } }
)css";
}

}  // namespace repquant::report
