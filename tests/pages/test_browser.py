"""Do the pages work in a browser: quiet, alone, sorted, opened, and unharmed by hostile names?"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from pages.browser import needs_browser, opened

import sparqsim
from sparqsim.architectures.compare import compare
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import run
from sparqsim.architectures.network import run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.scripts.sweep.page import store_page
from sparqsim.simulator.animation import film, write_animation
from sparqsim.simulator.comparison import ComparisonReport
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern
from sparqsim.simulator.pages import comparison_page, layer_page, network_page
from sparqsim.simulator.report import NetworkReport
from sparqsim.simulator.sketch import INTERVALS
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.tensors import synthetic
from sparqsim.workloads.work import load

pytestmark = needs_browser
HOSTILE = (
    "\"'><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
)
# Wide tables and drawings scroll in a frame of their own; nothing else is wider than the window.
FITS = "found.fits = document.documentElement.scrollWidth <= innerWidth;"
SORTS = """
const table = [...document.querySelectorAll('table.data')].find(t =>
  t.tHead.rows[0].cells.length > 5
  && [...t.tHead.rows[0].cells].some(head => head.textContent === 'cycles'));
const heads = [...table.tHead.rows[0].cells];
const place = heads.findIndex(head => head.textContent === 'cycles');
const column = () => [...table.tBodies].flatMap(body => [...body.rows])
  .filter(row => row.className !== 'more').map(row => row.cells[place].dataset.v)
  .filter(v => v !== undefined).map(Number);
found.before = column();
heads[place].querySelector('button').click();
found.up = column();
found.told = heads[place].getAttribute('aria-sort');
heads[place].querySelector('button').click();
found.down = column();
"""


def is_quiet(page: object) -> None:
    """No line in the console, nothing asked of anyone, and the probe ran to its end."""
    assert page.console == [] and page.found["requests"] == []  # type: ignore[attr-defined]
    assert "error" not in page.found, page.found["error"]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def network() -> NetworkReport:
    """A network of which a layer has a hostile name."""
    report = run_network(get_machine("bitfusion")(), load("resnet18"), verify=False, paths=True)
    rows = list(report.rows)
    rows[0] = msgspec.structs.replace(rows[0], name=HOSTILE)
    return msgspec.structs.replace(report, rows=rows, network=HOSTILE)


def test_a_layer_opens_and_is_quiet(tmp_path: Path) -> None:
    """With everything over time; on a narrow window nothing sticks out."""
    layer = Linear(name=HOSTILE, in_features=96, out_features=40)
    tensors = synthetic(layer, np.random.default_rng(0), weight_density=0.3, activation_density=0.4)
    result = run(EIE(pes=8), tensors, verify=False)
    text = layer_page(result.report, result.timeline, result.traffic)
    probe = FITS + "found.title = document.title; found.images = document.images.length;"
    page = opened(text, tmp_path, probe, width=500)
    is_quiet(page)
    assert page.found["fits"] and page.found["images"] == 1  # the load of the lanes
    assert page.found["title"].startswith(HOSTILE[:20])


def test_a_network_sorts_filters_and_opens(network: NetworkReport, tmp_path: Path) -> None:
    """Layers by cycles, up and down; by words; a layer shows its account when it is opened."""
    filters = """
    const input = table.parentElement.previousElementSibling.querySelector('input');
    input.value = 'layer1.0 conv1';
    input.dispatchEvent(new Event('input'));
    found.filtered = [...table.tBodies].map(body => body.rows[0].cells[0].textContent);
    const first = table.tBodies[0];
    const under = first.querySelector('tr.more');
    found.closed = getComputedStyle(under).display;
    first.querySelector('summary').click();
    found.opened = getComputedStyle(under).display;
    found.diagram = under.querySelector('use').getBoundingClientRect().width;
    found.load = under.querySelector('img').naturalWidth;
    found.title = document.title;
    """
    page = opened(network_page(network), tmp_path, FITS + SORTS + filters, width=500)
    is_quiet(page)
    found = page.found
    assert found["before"] != found["up"] == sorted(found["before"]) == found["down"][::-1]
    assert found["told"] == "ascending" and found["fits"]
    assert found["filtered"] == ["layer1.0.conv1"]
    assert found["closed"] == "none" and found["opened"] == "table-row"
    assert found["diagram"] > 300 and found["load"] == INTERVALS  # what its run looked like
    assert found["title"].startswith(HOSTILE[:20])


def test_a_comparison_is_quiet(tmp_path: Path) -> None:
    """Layers over the first machine's, each of which opens."""
    machines = {"bitfusion": get_machine("bitfusion")(), HOSTILE: get_machine("tpu")()}
    report: ComparisonReport = compare([load("resnet18")], machines, verify=False, paths=True)
    probe = FITS + "found.rows = document.querySelectorAll('tr.more').length;"
    page = opened(comparison_page(report), tmp_path, probe, width=500)
    is_quiet(page)
    assert page.found["rows"] == len(report.networks[0].shared_layers) and page.found["fits"]


def test_a_store_sorts_and_opens_its_reports(tmp_path: Path) -> None:
    """Rows by cycles; the report of a row is unpacked when it is clicked."""
    block = {"work": "gemm:{n}x64x32", "variables": {"n": [64, 16, 256]}, "verify": False,
             "machine": {"name": "bitfusion", "rows": [8, 16, 32, 4]}}  # fmt: skip
    points = sparqsim.sweep({"block": [block]}, tmp_path / "store", workers=0)
    opens = """
    table.tBodies[0].rows[0].click();
    for (let wait = 0; wait < 100 && !document.querySelector('tr.under'); wait++)
      await new Promise(done => setTimeout(done, 20));
    found.cycles = JSON.parse(document.querySelector('tr.under pre').textContent).cycles;
    """
    page = opened(store_page(points, ""), tmp_path, SORTS + opens)
    is_quiet(page)
    assert page.found["up"] == sorted(points.column("cycles"))
    assert page.found["cycles"] == page.found["down"][0] == max(points.column("cycles"))


def test_an_animation_steps_by_its_keys(tmp_path: Path) -> None:
    """Right and left, Home and End; every moment of the run in order, each lane in its state and
    each actor in its words; a hostile name does nothing."""
    timeline = simulate(
        Netlist(
            [Actor(name=HOSTILE, firings=4), Actor(name="work", lanes=2, firings=4, busy=3)],
            [Channel(name="queue", source=HOSTILE, target="work", capacity=2,
                     pattern=Pattern.BROADCAST)],
        )
    )  # fmt: skip
    path = write_animation(timeline, tmp_path / "a.html", HOSTILE)
    steps = (
        FITS
        + """
    const byId = id => document.getElementById(id);
    const press = key => document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    const seen = () => [
      Number(byId('cycle').textContent.split(' ')[1]),
      [0, 1].map(lane => Number(byId(`l1-${lane}`).getAttribute('class')[1])),
      byId('w1').textContent];
    found.frames = [seen()];
    for (let n = 1; n < Number(byId('place').max) + 1; n++) {
      press('ArrowRight'); found.frames.push(seen());
    }
    press('ArrowRight'); found.end = seen();
    press('ArrowLeft'); found.back = seen();
    press('Home'); found.home = seen();
    press('End'); found.last = seen();
    found.title = document.title;
    """
    )
    page = opened(path.read_text(encoding="utf-8"), tmp_path, steps, width=500)
    is_quiet(page)
    found = page.found
    told = [
        [frame.cycle, list(frame.states[1]), frame.words[1]]
        for frame in film.frames(timeline, film.moments(timeline))
    ]
    assert found["frames"] == told and len(told) > 5
    assert found["end"] == found["last"] == told[-1] and found["back"] == told[-2]
    assert found["home"] == told[0] and found["fits"]
    assert found["title"].startswith(HOSTILE[:20])
