"""How the page looks: light and dark, wide and narrow, on paper."""

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1d2530; --dim: #5b6673; --line: #d8dee6;
  --soft: #f3f5f8; --heat: #0b63b0; --hot: #fff; --mind: #9a5b00; --bad: #b00020; --mark: #0b63b0;
  --c0: #0072b2; --c1: #c77700; --c2: #00805e; --c3: #c43e00; --c4: #a8548a; --c5: #2a8fc4;
  --c6: #7d4e42; --c7: #555; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --text: #e3e8ee; --dim: #9aa6b4;
  --line: #313a46; --soft: #1b212a; --heat: #4ba3ee; --hot: #0c1015; --mind: #f0b04f;
  --bad: #ff7b8a; --mark: #6db6f5; --c0: #5eb1ee; --c1: #f2ae3d; --c2: #3fcf9f; --c3: #ff8a52;
  --c4: #e59bcb; --c5: #93d3fa; --c6: #c9988a; --c7: #b5bdc7; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem clamp(.8rem, 3vw, 2rem) 4rem; max-width: 78rem;
  background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .3rem 0; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 2.8rem 0 .6rem; padding-top: .7rem;
  border-top: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; } h4 { font-size: .9rem; margin: .2rem 0; }
p, ul { margin: .4rem 0; max-width: 50rem; }
a { color: var(--mark); }
nav ul, .facts { padding-left: 1.1rem; }
.dim, small, figcaption { color: var(--dim); }
small { font-size: .82em; white-space: nowrap; }
.star { color: var(--mind); font-weight: 700; }
.mind { border-left: 4px solid var(--mind); background: var(--soft); padding: .45rem .8rem;
  margin: .6rem 0; max-width: 50rem; } .mind ul { padding-left: 1.1rem; margin: 0; }
.mind b { color: var(--mind); }
.bad { border-left-color: var(--bad); } .bad b { color: var(--bad); }
.scroll { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; font-size: .88rem; }
th, td { padding: .36rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: normal; }
th { font-weight: 600; vertical-align: bottom; }
.results th { min-width: 4.6rem; } .results th:nth-last-child(2) { min-width: 8.5rem; }
.results th:nth-last-child(3) { min-width: 6.2rem; }
.results td { white-space: nowrap; }
.results td:first-child, .left { white-space: normal; min-width: 9.5rem; overflow-wrap: anywhere; }
th:first-child, td:first-child, .left { text-align: left; }
.results th:first-child, .results td:first-child { position: sticky; left: 0;
  background: var(--ground); z-index: 1; }
.results .head { text-align: left; }
tr.set td { background: var(--soft) !important; color: var(--dim); font-weight: 600;
  font-size: .82rem; }
tr.set td span, .again div { position: sticky; left: .6rem; }
.baseline td, .theirs td { color: var(--dim); }
.best td { font-weight: 600; }
.again td { padding: 0 .6rem .4rem; background: none !important; }
.row td { border-bottom: 0; padding-bottom: .1rem; }
.again small { white-space: normal; }
.again div { max-width: min(70rem, calc(100vw - 3.5rem)); white-space: normal; width: fit-content; }
summary { cursor: pointer; color: var(--dim); font-size: .85rem; }
pre { margin: .3rem 0; padding: .5rem .7rem; background: var(--soft); border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; font-size: .82rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: .4rem 0;
  font-size: .82rem; text-align: left; }
dt { color: var(--dim); } dd { margin: 0; }
.forests, .grid { display: grid; gap: 1.2rem 2rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
.wrap { display: flex; flex-wrap: wrap; gap: 1.2rem 2rem; } .wrap figure { max-width: 100%; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; align-items: end; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .88rem; margin-bottom: .3rem; }
.forest { display: grid; grid-template-columns: minmax(6rem, 38%) 1fr 3.2rem; gap: .25rem .6rem;
  align-items: center; font-size: .85rem; }
.track { position: relative; height: 1.15rem; border-left: 1px solid var(--line);
  border-right: 1px solid var(--line); }
.track i { position: absolute; }
.track .ci { top: .42rem; height: .3rem; background: var(--c0); opacity: .4; border-radius: 2px; }
.track .dot { top: .22rem; width: .7rem; height: .7rem; margin-left: -.35rem; border-radius: 50%;
  background: var(--c0); }
.control .ci, .control .dot { background: var(--c7); } .control { color: var(--dim); }
.track .chance { top: -.15rem; bottom: -.15rem; border-left: 2px dashed var(--c3); }
.axis { display: flex; justify-content: space-between; color: var(--dim); font-size: .78rem; }
.forest > :nth-child(3n) { text-align: right; }
.heat td { min-width: 2.15rem; padding: .3rem .15rem; text-align: center;
  border: 1px solid var(--ground);
  background: color-mix(in srgb, var(--heat) calc(var(--v, 0) * 100%), var(--soft)); }
.heat td.hot { color: var(--hot); } .heat th { font-weight: 400; color: var(--dim); }
.heat tbody th { text-align: right; max-width: 16rem; min-width: 5.6rem; overflow-wrap: anywhere; }
.heat { font-size: .82rem; } .heat td small { display: block; color: inherit; opacity: .8; }
.tilt { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left !important;
  max-height: 9rem; }
svg { width: 100%; height: auto; max-width: 36rem; display: block; }
svg text { fill: var(--dim); font-size: 11px; }
svg .grid-line { stroke: var(--line); } svg .frame { fill: none; stroke: var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .82rem; margin: .3rem 0; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin-right: .35rem; vertical-align: -.08rem; }
@media (max-width: 40rem) { body { font-size: 15px; }
  .results td:first-child { min-width: 8.2rem; max-width: 9rem; }
  .heat th, .heat td { padding: .25rem .15rem; } .heat td { min-width: 1.95rem; } }
@media print { :root { --ground: #fff; --text: #000; --dim: #444; --line: #bbb; --soft: #f3f3f3;
  --heat: #0b63b0; --hot: #fff; --c0: #0072b2; --c1: #c77700; --c2: #00805e; --c3: #c43e00;
  --c4: #a8548a; --c5: #2a8fc4; --c6: #7d4e42; --c7: #555; color-scheme: light; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10pt; max-width: none; padding: 0; } .scroll { overflow: visible; }
  .results, summary, pre, dl { font-size: 7.5pt; }
  .results th, .results td:first-child { min-width: 0 !important; }
  .results td, small { white-space: normal; } th, td { padding: .2rem .3rem; }
  figure, tr { break-inside: avoid; }
  details::details-content { content-visibility: visible; height: auto; } }
"""
