"""A store on one page of HTML that stands alone: a table to sort, the Pareto front, every report.

Nothing is loaded from elsewhere. Reports are packed (zlib) and unpacked by the browser when a row
is opened, so that a page of ten thousand points can still be mailed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from pathlib import Path
from typing import Any

from sparqsim.base import InputError, written_whole
from sparqsim.scripts.sweep.file import Figure
from sparqsim.scripts.sweep.frame import Points
from sparqsim.scripts.sweep.plots import draw
from sparqsim.simulator.page import STYLE, escape
from sparqsim.simulator.plots import write_figure

MEASURES = (
    *("cycles", "seconds", "energy_pj", "edp_js", "utilization", "load_balance", "bound_by"),
    *("sqnr_db", "accuracy", "area_mm2", "dram_read_bits", "verified"),
)
MORE_STYLE = """
main{max-width:none}td,th{white-space:nowrap}th{cursor:pointer;position:sticky;top:0;background:#fff}
tbody tr{cursor:pointer}tbody tr:hover{background:#f4f8fb}tr.open{background:#e8f1f7}
pre{white-space:pre-wrap;font-size:.8rem;max-height:60vh;overflow:auto;border-left:3px solid
var(--blue);padding-left:1rem}
"""
SCRIPT = """
const rows=JSON.parse(document.getElementById('rows').textContent);
const body=document.querySelector('#points tbody');
const heads=[...document.querySelectorAll('#points th')];
let sorted=-1,down=false;
function show(value){return value===null?'–':typeof value==='number'&&!Number.isInteger(value)?
value.toPrecision(4):String(value)}
function fill(){body.replaceChildren(...rows.map(row=>{const line=document.createElement('tr');
row.cells.forEach(value=>{const cell=document.createElement('td');
if(typeof value==='number')cell.className='n';cell.textContent=show(value);line.append(cell)});
line.onclick=()=>open(line,row);return line}))}
async function open(line,row){if(line.classList.toggle('open')){const bytes=Uint8Array.from(
atob(row.report),c=>c.charCodeAt(0));const text=await new Response(new Blob([bytes]).stream()
.pipeThrough(new DecompressionStream('deflate'))).text();const under=document.createElement('tr');
const cell=document.createElement('td');cell.colSpan=heads.length;const block=
document.createElement('pre');block.textContent=JSON.stringify(JSON.parse(text),null,1);
cell.append(block);under.append(cell);line.after(under)}else line.nextSibling.remove()}
heads.forEach((head,place)=>head.onclick=()=>{down=place===sorted?!down:false;sorted=place;
rows.sort((a,b)=>{let x=a.cells[place],y=b.cells[place];if(x===null)return 1;if(y===null)return -1;
return (x<y?-1:x>y?1:0)*(down?-1:1)});fill()});
fill();
"""


def write_store_page(points: Points, path: str | os.PathLike[str], title: str) -> Path:
    """Write :func:`store_page` to a file, whole or not at all; returns the path."""
    text = store_page(points, title)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def store_page(points: Points, title: str) -> str:
    """The points of a store as a page of HTML.

    Raises
    ------
    InputError
        If no point is done.
    """
    if not len(points):
        raise InputError(f"no point in {points.path} is done; there is nothing to show")
    names = [*points.varying, *(name for name in MEASURES if name in points.columns)]
    rows = [
        {
            "cells": [row.columns.get(name) for name in names],
            "report": base64.b64encode(zlib.compress(points.content(row.key), 9)).decode(),
        }
        for row in points.done
    ]
    head = "".join(f"<th>{escape(_heading(name))}</th>" for name in names)
    failed = "".join(
        f"<tr><td>{escape(row.key[:8])}</td><td>{escape(row.message)}</td></tr>"
        for row in points.failed
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{len(points):,} points, {len(points.failed):,} failed · model '
        f"{escape(points.done[0].model)} · click a heading to sort, a row to open its report</p>",
        _picture(points),
        f'<h2>Points</h2><div class="scroll"><table id="points"><thead><tr>{head}</tr></thead>'
        "<tbody></tbody></table></div>",
    ]
    if failed:
        body.append(f"<h2>Failed</h2><table><tbody>{failed}</tbody></table>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{STYLE}{MORE_STYLE}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main>\n"
        f'<script type="application/json" id="rows">{_safe(rows)}</script>\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _safe(rows: list[dict[str, Any]]) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(rows, separators=(",", ":")).replace("<", "\\u003c")


def _heading(name: str) -> str:
    return name.removeprefix("machine.").removeprefix("variables.").replace("_", " ")


def _picture(points: Points) -> str:
    """Time against energy, with the front."""
    hue = next((name for name in points.varying if len(points.distinct(name)) <= 8), "")
    figure = Figure(
        name="pareto", kind="pareto", x="seconds", y="energy_pj", hue=hue,
        title="Time and energy; the points that no other beats in both are circled",
    )  # fmt: skip
    file = io.BytesIO()
    write_figure(draw(points, figure), file, "svg", "Pareto front")
    data = base64.b64encode(file.getvalue()).decode()
    return (
        '<figure id="pareto"><img style="max-width:860px" alt="Time and energy of the points" '
        f'src="data:image/svg+xml;base64,{data}"></figure>'
    )
