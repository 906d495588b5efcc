"""How the page looks, light and dark, on a desk and on a phone; and how it plays.

Nothing is fetched: fonts are the system's, signs are drawn by the style.
"""

STYLE = """
.gradio-container { --e2v-text: #16202b; --e2v-dim: #55616e; --e2v-line: #d5dce4;
  --e2v-soft: #f2f5f8; --e2v-ground: #fff; --e2v-quiet: #b4bec9; --e2v-accent: #0b63b0;
  --e2v-bad: #a4001d; --e2v-bad-soft: #fdecee; }
.dark .gradio-container, .gradio-container.dark { --e2v-text: #e6ebf1; --e2v-dim: #a3afbc;
  --e2v-line: #38424f; --e2v-soft: #1d242e; --e2v-ground: #141a22; --e2v-quiet: #56616e;
  --e2v-accent: #6db6f5; --e2v-bad: #ff9aa5; --e2v-bad-soft: #33191f; }

/* What is gradio's: one column in the middle, our edges on its edges, the field for files lower,
   and one player, ours. */
.gradio-container .main { padding: 1.2rem clamp(.8rem, 3vw, 2rem) 3rem !important; }
.gradio-container .main .wrap:has(> main) { padding: 0 !important; }
.gradio-container main { max-width: 60rem !important; margin: 0 auto !important;
  width: 100% !important; padding: 0 !important; }
.gradio-container .html-container { padding: 0 !important; }
#recording .upload-container, #recording .upload-container > .wrap { height: auto;
  min-height: 9.5rem; }
#recording audio { display: none; }
#recording .source-selection button { width: 2.75rem; height: 2.5rem; }
#recording .source-selection { height: 2.75rem; }
#recording .source-selection svg { width: 1.3rem; height: 1.3rem; }

.e2v-title h1 { font-size: 1.6rem; line-height: 1.2; font-weight: 650; margin: 0;
  color: var(--e2v-text); }
.e2v-title p { margin: .3rem 0 .4rem; text-wrap: balance; color: var(--e2v-dim); font-size: .93rem;
  line-height: 1.45; }
.e2v-report, .e2v-downloads, .e2v-error, .e2v-empty { color: var(--e2v-text); font-size: .95rem;
  line-height: 1.45; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.e2v-report h2 { font-size: 1.1rem; font-weight: 650; margin: 0; color: inherit; }
.e2v-report h3, .e2v-downloads h3 { font-size: .95rem; font-weight: 650; margin: 0;
  color: inherit; }
.e2v-report p { margin: 0; }
.e2v-card > p { margin-top: .6rem; }
.e2v-report .e2v-dim { color: var(--e2v-dim); font-size: .87rem; }
.e2v-report i { display: inline-block; flex: none; }
.e2v-report button { font: inherit; color: inherit; cursor: pointer; }
.e2v-report button:focus-visible, .e2v-downloads a:focus-visible {
  outline: 3px solid var(--e2v-accent); outline-offset: 2px; }
.e2v-head { display: flex; justify-content: space-between; align-items: center; gap: 1rem;
  margin: .4rem 0 .9rem; }
.e2v-report .e2v-all { display: inline-flex; align-items: center; gap: .55rem; flex: none;
  background: var(--e2v-accent); color: var(--e2v-ground); border: 0; border-radius: 999px;
  padding: .5rem 1.2rem; min-height: 2.75rem; font-weight: 600; }
.e2v-sign { display: inline-block; width: 0; height: 0; border-left: .62em solid currentColor;
  border-top: .4em solid transparent; border-bottom: .4em solid transparent; }
.e2v-on .e2v-sign { border: 0; width: .62em; height: .8em; box-sizing: border-box;
  border-left: .2em solid currentColor; border-right: .2em solid currentColor; }

.e2v-cards { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.e2v-card { border: 1px solid var(--e2v-line); border-radius: 12px; padding: .9rem 1rem;
  background: var(--e2v-ground); min-width: 0; }
.e2v-name { color: var(--e2v-dim); font-size: .85rem; font-weight: 600; }
.e2v-answer { display: flex; align-items: baseline; flex-wrap: wrap; gap: .1rem .6rem; }
.e2v-answer i { width: 1.1rem; height: 1.1rem; border-radius: 4px; align-self: center; }
.e2v-label { font-size: 2rem; font-weight: 700; line-height: 1.25; }
.e2v-score { font-size: 1.25rem; color: var(--e2v-dim); }
.e2v-bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .25rem .7rem;
  align-items: center; margin-top: .6rem; font-size: .9rem; }
.e2v-bar { height: .7rem; background: var(--e2v-soft); border-radius: 4px; overflow: hidden;
  display: flex; min-width: 0; }
.e2v-bar i { height: 100%; }
.e2v-number { text-align: right; color: var(--e2v-dim); }
.e2v-report .e2v-agreement { margin: .8rem 0 0; padding: .6rem .9rem; background: var(--e2v-soft);
  border-left: 4px solid var(--e2v-accent); border-radius: 0 8px 8px 0; }

.e2v-time { margin-top: 1.2rem; }
.e2v-above { display: flex; align-items: center; gap: .5rem; min-height: 2.2rem;
  margin-bottom: .2rem; }
.e2v-now { color: var(--e2v-dim); margin-left: auto; font-size: .9rem; }
.e2v-report .e2v-zoom { width: 2.4rem; height: 2.2rem; border: 1px solid var(--e2v-line);
  font-weight: 600; border-radius: 8px; background: var(--e2v-ground); }
.e2v-scroll { overflow-x: auto; overflow-y: hidden; border-radius: 10px; }
.e2v-inner { width: calc(100% * var(--zoom, 1)); }
.e2v-track { margin-bottom: .5rem; }
.e2v-track + .e2v-track { margin-top: .8rem; }
.e2v-track .e2v-name { position: sticky; left: 0; width: max-content; max-width: 18rem;
  margin-bottom: .15rem; }
.e2v-lane { position: relative; height: 7.2rem; background: var(--e2v-soft); border-radius: 8px;
  overflow: hidden; cursor: pointer; }
.e2v-wave { position: absolute; top: 0; left: 0; width: 100%; height: calc(100% - 2rem);
  display: block; }
.e2v-quiet { fill: var(--e2v-quiet); }
.e2v-report .e2v-segment { position: absolute; top: 0; bottom: 0; padding: 0; border: 0;
  background: transparent; min-width: 0; border-radius: 6px; overflow: hidden; }
.e2v-segment span { position: absolute; left: 1px; right: 1px; bottom: 0; height: 1.9rem;
  line-height: 1.9rem; padding: 0 .15rem; background: var(--color); color: var(--ink);
  font-size: .82rem; font-weight: 600; overflow: hidden; white-space: nowrap; text-align: center;
  border-radius: 5px; box-sizing: border-box; }
.e2v-report .e2v-segment:hover { background: color-mix(in srgb, var(--color) 14%, transparent); }
.e2v-report .e2v-segment.e2v-on {
  background: color-mix(in srgb, var(--color) 24%, transparent); }
.e2v-report .e2v-segment:focus-visible { outline-offset: -3px; }
.e2v-playhead { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; left: 0;
  background: var(--e2v-text); pointer-events: none; opacity: 0; }
.e2v-begun .e2v-playhead { opacity: 1; }
.e2v-axis { position: relative; height: 1.6rem; margin-top: -.2rem; color: var(--e2v-dim);
  font-size: .78rem; overflow: hidden; }
.e2v-axis span { position: absolute; top: .3rem; transform: translateX(-50%);
  white-space: nowrap; }
.e2v-axis span::before { content: ""; position: absolute; left: 50%; top: -.35rem; height: .35rem;
  border-left: 1px solid var(--e2v-dim); }
.e2v-axis span:first-child { transform: none; } .e2v-axis span:first-child::before { left: 0; }
.e2v-axis .e2v-fine { display: none; } .e2v-close .e2v-axis .e2v-fine { display: inline; }
.e2v-report .e2v-legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  margin: .4rem 0 .2rem; padding: 0; font-size: .88rem; }
.e2v-legend li { display: inline-flex; align-items: center; gap: .4rem; margin: 0; }
.e2v-legend i, .e2v-rows i { width: .85rem; height: .85rem; border-radius: 3px; }

.e2v-segments { margin-top: 1rem; }
.e2v-segments summary { cursor: pointer; font-weight: 650; padding: .3rem 0; }
.e2v-rows { max-height: 24rem; overflow-y: auto; border: 1px solid var(--e2v-line);
  border-radius: 10px; }
.e2v-rows table { width: 100%; border-collapse: collapse; font-size: .9rem; margin: 0; }
.e2v-rows th, .e2v-rows td { padding: .1rem .5rem; text-align: left; white-space: nowrap;
  border: 0; border-top: 1px solid var(--e2v-line); }
.e2v-rows th { position: sticky; top: 0; z-index: 1; border-top: 0; padding: .3rem .5rem;
  background: var(--e2v-soft); color: var(--e2v-dim); font-weight: 600; }
.e2v-rows th:first-child, .e2v-rows td:first-child { width: 2.6rem; padding: 0 .1rem; }
.e2v-rows th:nth-child(4), .e2v-rows td:nth-child(4) { width: 60%; white-space: normal; }
.e2v-rows th:last-child, .e2v-rows td:last-child { text-align: right; padding-right: .9rem; }
.e2v-rows td i { margin-right: .45rem; vertical-align: -.08rem; }
.e2v-rows tbody tr { cursor: pointer; }
.e2v-rows tbody tr:hover, .e2v-rows tr.e2v-on { background: var(--e2v-soft); }
.e2v-report .e2v-play { width: 2.4rem; height: 1.9rem; border: 0; background: none;
  color: var(--e2v-accent); }
.e2v-hidden { position: absolute; clip-path: inset(50%); width: 1px; height: 1px;
  overflow: hidden; }
.e2v-links { display: flex; flex-wrap: wrap; gap: .5rem; margin: .45rem 0 .9rem; }
.e2v-downloads a { border: 1px solid var(--e2v-line); border-radius: 8px; padding: .45rem .85rem;
  font-weight: 600; font-size: .9rem; color: var(--e2v-accent); background: var(--e2v-ground);
  text-decoration: none; }
.e2v-downloads a:hover { border-color: var(--e2v-accent); }
.e2v-error { background: var(--e2v-bad-soft); border-left: 4px solid var(--e2v-bad);
  padding: .7rem 1rem; border-radius: 0 8px 8px 0; }
.e2v-error strong { color: var(--e2v-bad); }
.e2v-empty { color: var(--e2v-dim); text-align: center; padding: 1.6rem 1rem;
  border: 1px dashed var(--e2v-line); border-radius: 12px; }
@media (min-width: 44rem) { .e2v-card:only-child { display: grid; gap: 0 2rem;
    grid-template: auto 1fr / 17rem 1fr; }
  .e2v-card:only-child .e2v-bars { grid-area: 1 / 2 / 3 / 3; margin: 0; } }
@media (max-width: 30rem) { .e2v-lane { height: 6.4rem; } .e2v-segment span { font-size: .75rem; }
  .e2v-title h1 { font-size: 1.4rem; } }
@media (pointer: coarse) { .e2v-report .e2v-play { height: 2.6rem; } }
@media (prefers-reduced-motion: no-preference) { .e2v-bar i { transition: width .3s; } }
"""
"""Of what `panels` and `drawings` write; `e2v-` keeps it from what gradio names."""

SCRIPT = """
let until = null, frame = 0;
const all = (names) => [...element.querySelectorAll(names)];
const sound = () => element.querySelector('audio');
const report = () => element.querySelector('.e2v-report');
const length = () => parseFloat(report()?.dataset.duration || '0');
const clock = (seconds) => {
  const tenths = Math.round(10 * seconds), whole = Math.floor(tenths / 10);
  return Math.floor(whole / 60) + ':' + String(whole % 60).padStart(2, '0') + '.' + tenths % 10;
};

// Shows where the sound is, and stops it at the end of a segment.
function show() {
  const audio = sound();
  if (!audio || !report()) return;
  if (until !== null && audio.currentTime >= until) {
    audio.pause();
    audio.currentTime = until;
    until = null;
  }
  const now = audio.currentTime, playing = !audio.paused;
  report().classList.toggle('e2v-playing', playing);
  if (playing) report().classList.add('e2v-begun');
  all('.e2v-playhead').forEach((line) => { line.style.left = 100 * now / length() + '%'; });
  all('[data-start]').forEach((part) => {
    const inside = now >= part.dataset.start - 0.005 && now < part.dataset.end;
    part.classList.toggle('e2v-on', playing && inside);
  });
  const button = element.querySelector('.e2v-all');
  button.classList.toggle('e2v-on', playing);
  button.querySelector('.e2v-word').textContent = playing ? 'Pause' : 'Play';
  const text = element.querySelector('.e2v-now');
  if (text) text.textContent = clock(now) + ' of ' + clock(length());
  if (playing) follow(now);
}
function follow(now) {
  const view = element.querySelector('.e2v-scroll');
  if (!view || view.scrollWidth <= view.clientWidth) return;
  const place = now / length() * view.scrollWidth - view.scrollLeft;
  if (place < 0 || place > view.clientWidth)
    view.scrollLeft += place - 0.1 * view.clientWidth;
}
function tick() {
  show();
  frame = sound() && !sound().paused ? requestAnimationFrame(tick) : 0;
}
function play(from, to) {
  const audio = sound();
  until = to;
  audio.currentTime = from;
  audio.play().catch(() => { until = null; });
}
function toggle(part) {
  if (part.classList.contains('e2v-on') && until !== null) sound().pause();
  else play(parseFloat(part.dataset.start), Math.min(parseFloat(part.dataset.end), length()));
}

element.addEventListener('click', (event) => {
  if (!sound()) return;
  const part = event.target.closest('[data-start]');
  if (part) return toggle(part);
  if (event.target.closest('.e2v-all')) {
    const audio = sound();
    if (!audio.paused) return audio.pause();
    until = null;
    if (audio.currentTime >= length() - 0.05) audio.currentTime = 0;
    return audio.play();
  }
  const zoom = event.target.closest('.e2v-zoom');
  if (zoom) {
    const inner = element.querySelector('.e2v-inner');
    const now = parseFloat(inner.style.getPropertyValue('--zoom') || '1');
    const next = Math.min(64, Math.max(1, now * parseFloat(zoom.dataset.by)));
    const view = element.querySelector('.e2v-scroll');
    const middle = (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth;
    inner.style.setProperty('--zoom', next);
    report().classList.toggle('e2v-close', next > 1);
    view.scrollLeft = middle * view.scrollWidth - view.clientWidth / 2;
    return;
  }
  const lane = event.target.closest('.e2v-lane');
  if (lane) {
    const box = lane.getBoundingClientRect();
    until = null;
    sound().currentTime = (event.clientX - box.left) / box.width * length();
    report().classList.add('e2v-begun');
  }
});
element.addEventListener('keydown', (event) => {
  const part = event.target.closest('.e2v-segment');
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!part || !step) return;
  const parts = [...part.parentElement.querySelectorAll('.e2v-segment')];
  const next = parts[parts.indexOf(part) + step];
  if (!next) return;
  event.preventDefault();
  part.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
// Events of sound do not bubble; capturing hears them, also of an element that comes later.
for (const name of ['play', 'pause', 'seeked', 'timeupdate', 'ended', 'loadedmetadata'])
  element.addEventListener(name, () => { show(); if (!frame) tick(); }, true);
watch('value', () => {
  until = null;
  const audio = sound();
  if (audio) { audio.pause(); audio.load(); }
  report()?.classList.remove('e2v-begun', 'e2v-close', 'e2v-playing');
  const inner = element.querySelector('.e2v-inner');
  if (inner) inner.style.removeProperty('--zoom');
  show();
});
"""
"""Run once by the component that holds the report; `element` and `watch` are gradio's."""
