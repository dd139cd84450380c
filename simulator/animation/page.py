"""The page of an animation: one file, no outside request, readable without script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparqsim.base import printable
from sparqsim.simulator.animation.drawing import Diagram, is_full, level, level_words, shown
from sparqsim.simulator.animation.film import DOTS, Frame
from sparqsim.simulator.pages.html import digest, script_json
from sparqsim.simulator.timeline import Timeline

FIRST = 24  # moments in the table

STYLE = """
:root{--paper:#fff;--ink:#222;--muted:#595959;--faint:#e4e4e4;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#eaeaea;--muted:#a9adb3;
--faint:#3a3d42;--s4:#4d5157}}
body{margin:0 auto;max-width:1400px;padding:12px;background:var(--paper);color:var(--ink);
font:16px/1.45 system-ui,sans-serif}h1{font-size:1.3rem;margin:.2em 0;
overflow-wrap:anywhere}
.stage{overflow-x:auto;border:1px solid var(--faint);border-radius:6px;padding:6px}
.stage svg{display:block;max-width:none}
.bar{display:flex;flex-wrap:wrap;gap:8px;align-items:center;margin:10px 0}
.bar button{font:inherit;min-width:44px;min-height:40px;border:1px solid var(--muted);
border-radius:6px;background:var(--paper);color:var(--ink);cursor:pointer}
.bar input{flex:1 1 140px;min-width:120px}.bar output{font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;vertical-align:top;
padding:3px 8px;border-bottom:1px solid var(--faint)}th[scope=row]{white-space:nowrap}
caption{text-align:left}.now{table-layout:fixed}
.now th[scope=row]{width:min(12em,32%);white-space:normal}.now th,.now td{overflow-wrap:anywhere}
.scroll{overflow-x:auto}.scroll td{min-width:9em}
.note{color:var(--muted);font-size:.9rem}
:focus-visible{outline:2px solid #0072b2;outline-offset:2px}
@media print{.bar,.script{display:none}.stage,.scroll{overflow:visible}.stage svg{width:100%;
height:auto}tr{break-inside:avoid}.scroll table{font-size:7pt}
.scroll td{min-width:0;padding:2px 4px;overflow-wrap:anywhere}}
"""

SCRIPT = """
"use strict";
const film = JSON.parse(document.getElementById("film").textContent);
const byId = id => document.getElementById(id);
let at = 0, timer = 0;
function show(n) {
  at = Math.max(0, Math.min(film.frames.length - 1, n));
  const [cycle, states, words, queues] = film.frames[at];
  states.forEach((text, i) => {
    for (let lane = 0; lane < text.length; lane++)
      byId("l" + i + "-" + lane).setAttribute("class", "s" + text[lane]);
  });
  words.forEach((text, i) => { byId("w" + i).textContent = film.texts[text]; });
  queues.forEach(([share, full, text, dots], i) => {
    const bar = byId("f" + i);
    bar.setAttribute("class", full ? "full" : "level");
    bar.setAttribute("width", share);
    byId("t" + i).textContent = film.texts[text];
    for (let d = 0; d < film.dots; d++) {
      const dot = byId("d" + i + "-" + d), place = dots[d];
      dot.classList.toggle("hid", !place);
      if (place) { dot.setAttribute("cx", place[0]); dot.setAttribute("cy", place[1]);
                   dot.style.cx = place[0] + "px"; dot.style.cy = place[1] + "px"; }
    }
  });
  byId("cycle").textContent = "cycle " + cycle + " of " + film.cycles;
  byId("place").value = at;
  byId("diagram").setAttribute("aria-label", film.title + ", cycle " + cycle);
  history.replaceState(null, "", "#cycle=" + cycle);
}
function play() {
  if (timer) { clearInterval(timer); timer = 0; }
  else timer = setInterval(
    () => { if (at + 1 < film.frames.length) show(at + 1); else play(); }, 600);
  byId("play").textContent = timer ? "Stop" : "Play";
}
function fromAddress() {
  const asked = /^#cycle=(\\d+)$/.exec(location.hash);
  if (!asked) return show(0);
  let n = film.frames.findIndex(frame => frame[0] > Number(asked[1]));
  show(n < 0 ? film.frames.length - 1 : n - 1);
}
byId("first").onclick = () => show(0);
byId("back").onclick = () => show(at - 1);
byId("on").onclick = () => show(at + 1);
byId("last").onclick = () => show(film.frames.length - 1);
byId("play").onclick = play;
byId("place").oninput = event => show(Number(event.target.value));
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.id === "place") return;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: film.frames.length - 1 };
  if (event.key in to) { show(to[event.key]); event.preventDefault(); }
  if (event.key === " " && event.target.tagName !== "BUTTON") { play(); event.preventDefault(); }
});
addEventListener("hashchange", fromAddress);
fromAddress();
"""


def page(diagram: Diagram, film: Sequence[Frame], title: str, timeline: Timeline) -> str:
    """The whole page."""
    netlist = diagram.netlist
    texts: dict[str, int] = {}
    frames = [_packed(diagram, frame, texts) for frame in film]
    data = {"title": title, "cycles": timeline.cycles, "dots": DOTS,
            "frames": frames, "texts": list(texts)}  # fmt: skip
    packed = script_json(data)
    first = film[0]
    now = "\n".join(
        f'<tr><th scope="row">{shown(actor.name)}</th><td id="w{i}">{shown(words)}</td></tr>'
        for i, (actor, words) in enumerate(zip(netlist.actors, first.words, strict=True))
    )
    heads = "".join(f'<th scope="col">{shown(actor.name)}</th>' for actor in netlist.actors)
    rows = "\n".join(
        f'<tr><th scope="row">{frame.cycle}</th>'
        + "".join(f"<td>{shown(words)}</td>" for words in frame.words)
        + "</tr>"
        for frame in film[:FIRST]
    )
    heading = shown(title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-{digest(SCRIPT)}'">
<title>{heading}</title><style>{STYLE}</style></head><body>
<h1>{heading}</h1>
<p class="note">{timeline.cycles:,} cycles, {len(film):,} moments in which something changes. A cell
is a lane. Beside a channel: the tokens that its fullest queue holds of how many it can hold (and
those in all its queues); the bar shows the same, vermilion when full. Dots are tokens on their
way.</p>
<div class="stage" tabindex="0" aria-label="Block diagram">{diagram.svg(first, title, words=False)}
</div>
<div class="bar"><button id="first" aria-label="first moment">|&lt;</button>
<button id="back" aria-label="one moment back">&lt;</button>
<button id="on" aria-label="one moment forward">&gt;</button>
<button id="last" aria-label="last moment">&gt;|</button><button id="play">Play</button>
<input id="place" type="range" min="0" max="{len(film) - 1}" value="0" aria-label="moment">
<output id="cycle">cycle {first.cycle} of {timeline.cycles}</output></div>
<p class="note script">Keys: left and right step, Home and End jump, space plays.</p>
<table class="now" aria-live="polite">
<caption class="note">What each actor does in this cycle</caption>
<tbody>{now}</tbody></table>
<h2>The first moments</h2>
<div class="scroll"><table><thead><tr><th scope="col">cycle</th>{heads}</tr></thead>
<tbody>{rows}</tbody></table></div>
<script type="application/json" id="film">{packed}</script>
<script>{SCRIPT}</script>
</body></html>
"""


def _packed(diagram: Diagram, frame: Frame, texts: dict[str, int]) -> list[Any]:
    """A frame as the script reads it; texts are numbered as they come."""

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    queues = []
    for i, (channel, queue) in enumerate(zip(diagram.netlist.channels, frame.queues, strict=True)):
        width = round(level(channel, queue) * diagram.places[i].width, 1)
        words = number(level_words(channel, queue))
        queues.append([width, int(is_full(channel, queue)), words, diagram.dots(i, queue)])
    states = ["".join(map(str, each)) for each in frame.states]
    return [frame.cycle, states, [number(printable(text)) for text in frame.words], queues]
