"""Do the figures show the numbers? What is drawn is read back from the axes and compared."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from netlists import netlists

from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import run
from sparqsim.base import InputError
from sparqsim.simulator import plots, plots_over_time
from sparqsim.simulator.deadlock import Deadlock
from sparqsim.simulator.diagram import draw_topology
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.queues import held
from sparqsim.simulator.report import Balance, PathStep, Report, balance_of, path_of, stalls_of
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.traffic import Access, Traffic, moved


def small_run(record: str = "full") -> tuple[Report, Timeline, Traffic]:
    rng = np.random.default_rng(0)
    counts, active = rng.integers(0, 5, (8, 60)), np.arange(0, 60, 2)
    machine = EIE(pes=8)
    result = run(machine, machine.program_from_counts(counts, active), record=record)
    return result.report, result.timeline, result.traffic


@pytest.fixture(scope="module")
def result() -> tuple[Report, Timeline, Traffic]:
    return small_run()


def accelerator() -> Netlist:
    """Ten actors with every pattern, cycles, a channel of an actor to itself, two resources."""
    late = np.repeat([0, 1], [20, 20])
    actors = [
        Actor(name="dram_read", firings=40, busy=6, resource="dram"),
        Actor(name="weights", firings=40, busy=3, part="Weight buffer"),
        Actor(name="acts", firings=40, busy=2, part="Activation buffer", resource="sram"),
        Actor(name="match", lanes=16, firings=40, busy=3, part="Index matcher"),
        Actor(name="mac", lanes=16, firings=40, busy=4, part="Multipliers"),
        Actor(name="reduce", firings=40, part="Adder tree"),
        Actor(name="scale", firings=40),
        Actor(name="chain", lanes=16, firings=40),
        Actor(name="out", firings=40, busy=2, part="Output buffer", resource="sram"),
        Actor(name="dram_write", firings=40, busy=6, resource="dram"),
    ]
    rows = [
        ("w", "dram_read", "weights", 4, Pattern.LANE, 1),
        ("a", "dram_read", "acts", 4, Pattern.LANE, 1),
        ("w_row", "weights", "match", 2, Pattern.BROADCAST, 1),
        ("a_row", "acts", "match", 2, Pattern.BROADCAST, 1),
        ("pairs", "match", "mac", 8, Pattern.LANE, 1),
        ("partial", "mac", "chain", 4, Pattern.SHIFT, 1),
        ("sums", "mac", "reduce", 4, Pattern.GATHER, 1),
        ("chained", "chain", "reduce", 50, Pattern.GATHER, 1),
        ("reduced", "reduce", "scale", 4, Pattern.LANE, 1),
        ("scales", "acts", "scale", 64, Pattern.LANE, 1),
        ("results", "scale", "out", 4, Pattern.LANE, 1),
        ("stores", "out", "dram_write", 4, Pattern.LANE, 1),
        ("credit", "dram_write", "dram_read", 64, Pattern.LANE, late),
        ("free_row", "mac", "acts", 64, Pattern.GATHER, late),
        ("again", "scale", "scale", 64, Pattern.LANE, late),
    ]
    channels = [
        Channel(name=n, source=s, target=t, capacity=c, pattern=p, consume=k)
        for n, s, t, c, p, k in rows
    ]
    resources = [Resource(name="dram"), Resource(name="sram", servers=2)]
    return Netlist(actors, channels, resources, name="accelerator")


def steps(ax, index: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = [p for p in ax.patches if isinstance(p, StepPatch)][index].get_data()
    return np.asarray(data.values), np.asarray(data.edges), np.asarray(data.baseline)


def legend_texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ------------------------------------------------------------------ the work of lanes


@pytest.mark.parametrize("lanes", [1, 7, 64, 65, 1000])
def test_load_balance_shows_every_lane(lanes: int) -> None:
    """Bars (steps above 64 lanes) are the lanes' work; lines stand at the mean and the run."""
    work = np.random.default_rng(lanes).integers(0, 100, lanes)
    balance = Balance(
        actor="mac",
        lanes=lanes,
        work_cycles=work.tolist(),
        mean_field_cycles=float(work.mean()),
        busiest_cycles=int(work.max()),
        busiest_over_mean=2.0,
        efficiency=0.5,
    )
    ax = plots.load_balance(balance, 120)
    if lanes <= 64:
        drawn = [bar.get_height() for bar in ax.patches]
    else:
        drawn = steps(ax)[0]
    np.testing.assert_array_equal(drawn, work)
    assert [line.get_ydata()[0] for line in ax.lines] == [work.mean(), 120]
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] >= 120
    assert "busiest lane 100.0 %" in ax.get_title(loc="left")
    texts = [text.get_text().strip() for text in ax.texts]
    assert texts == ["run 120", f"mean {work.mean():,.0f}"]


@pytest.mark.parametrize("lanes", [4, 100])
def test_lane_stalls_stack_to_the_run(lanes: int) -> None:
    """The states of each lane stack to the run's cycles, each as thick as its time."""
    busy = np.random.default_rng(0).integers(1, 9, (20, lanes))
    net = Netlist(
        [
            Actor(name="feed", firings=20),
            Actor(name="mac", lanes=lanes, busy=busy),
            Actor(name="sink", firings=20, busy=3),
        ],
        [
            Channel(name="q", source="feed", target="mac", capacity=2, pattern=Pattern.BROADCAST),
            Channel(name="r", source="mac", target="sink", capacity=1, pattern=Pattern.GATHER),
        ],
    )
    timeline = simulate(net)
    times = timeline.lane_times("mac")
    expected = [
        v for k in plots.STATES if (v := getattr(times, k)).any()
    ]  # a state that nobody was in is not drawn
    ax = plots.lane_stalls(timeline, "mac")
    if lanes <= 64:
        drawn = [np.array([bar.get_height() for bar in group]) for group in ax.containers]
    else:
        drawn = [steps(ax, i)[0] - steps(ax, i)[2] for i in range(len(expected))]
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(np.sum(drawn, axis=0), timeline.cycles)
    assert len(legend_texts(ax)) == len(expected) > 2


def test_stalls_are_shares_of_the_run() -> None:
    """Each actor's bar is 100 % long and cut as its lane-cycles are."""
    timeline = simulate(accelerator())
    parts = stalls_of(timeline)
    ax = plots.stalls(parts)
    widths = np.array([[bar.get_width() for bar in group] for group in ax.containers])
    np.testing.assert_allclose(widths.sum(axis=0), 100)
    kinds = [k for k in plots.STATES if any(getattr(p, k) for p in parts.values())]
    for row, (name, part) in enumerate(parts.items()):
        total = part.lanes * timeline.cycles
        expected = [100 * getattr(part, kind) / total for kind in kinds]
        np.testing.assert_allclose(widths[:, row], expected)
        assert name in ax.get_yticklabels()[row].get_text()
    assert "waiting (resource)" in legend_texts(ax)


def test_critical_path_adds_up() -> None:
    """The pieces add up to the run; those under 2 % are one piece."""
    ax = plots.critical_path(path_of(simulate(accelerator())))
    assert sum(bar.get_width() for bar in ax.patches) == simulate(accelerator()).cycles
    shares = [0.9, 0.05, 0.02, 0.019, 0.011]
    path = [
        PathStep(kind="computing", where=f"a{i}", cycles=round(1000 * s), share=s)
        for i, s in enumerate(shares)
    ]
    ax = plots.critical_path(path)
    assert [bar.get_width() for bar in ax.patches] == [900, 50, 20, 30]
    assert legend_texts(ax)[0] == "computing: a0, 900 (90.0 %)"
    assert legend_texts(ax)[-1] == "elsewhere, 30 (3.0 %)"
    with pytest.raises(InputError, match="no critical path to draw"):
        plots.critical_path([])


# ------------------------------------------------------------------ over time


def test_utilization_strips_hold_the_busy_cycles(result) -> None:
    """The area of a strip is the actor's utilisation."""
    timeline = result[1]
    ax = plots_over_time.utilization_over_time(timeline)
    for i, actor in enumerate(timeline.netlist.actors):
        height, edges, foot = steps(ax, i)
        mean = np.average((height - foot) / 0.82, weights=np.diff(edges))
        assert mean == pytest.approx(timeline.utilization(actor.name))
    assert len(plots_over_time.utilization_over_time(timeline, ["ccu"]).get_yticks()) == 1


def test_occupancy_shows_mean_band_and_capacity(result) -> None:
    """The line is the mean of the queues, the band least to most, the level the capacity."""
    timeline = result[1]
    ax = plots_over_time.queue_occupancy(timeline, "queue")
    tokens = held(timeline, "queue", plots_over_time.OVER_TIME).tokens
    high, edges, low = steps(ax, 0)
    np.testing.assert_array_equal(high, tokens.max(axis=1))
    np.testing.assert_array_equal(low, tokens.min(axis=1))
    np.testing.assert_array_equal(steps(ax, 2)[0], tokens.mean(axis=1))
    assert [line.get_ydata()[0] for line in ax.lines] == [7]
    assert edges[-1] == timeline.cycles
    single = plots_over_time.queue_occupancy(timeline, "nonzeros")
    assert legend_texts(single)[0] == "tokens held"


def test_queue_panels_show_all_or_the_fullest(result) -> None:
    """One panel per channel; of more than twelve the fullest, and the title says so."""
    figure = plots_over_time.queue_panels(result[1])
    titles = [ax.get_title(loc="left").split(" (")[0] for ax in figure.axes]
    assert titles == [c.name for c in result[1].netlist.channels]
    timeline = simulate(accelerator())
    figure = plots_over_time.queue_panels(timeline)
    titles = [ax.get_title(loc="left").split(" (")[0] for ax in figure.axes]
    fill = {
        c.name: held(timeline, c.name, 10**6).tokens.mean() / c.capacity
        for c in timeline.netlist.channels
    }
    assert set(titles) == set(sorted(fill, key=lambda name: fill[name])[-12:])
    assert "12 fullest of 15" in figure.get_suptitle()
    idle = Netlist(
        [Actor(name="a", firings=3), Actor(name="b", firings=3)],
        [Channel(name="q", source="a", target="b", capacity=1, produce=0, consume=0)],
    )
    with pytest.raises(InputError, match="no channel of this run ever holds a token"):
        plots_over_time.queue_panels(simulate(idle))


def test_bandwidth_shows_what_moved(result) -> None:
    """The filled steps are reads, the line writes; a panel a memory, its mean the report's."""
    net = Netlist([Actor(name="dma", busy=np.array([10, 30, 5]))], clock_hz=2e9)
    timeline = simulate(net)
    accesses = [Access(actor="dma", read_bits=np.array([80, 0, 0])),
                Access(actor="dma", written_bits=np.array([0, 240, 0]))]  # fmt: skip
    flow = moved(timeline, accesses)
    ax = plots_over_time.bandwidth(timeline, "dram", accesses)
    (read, *_), (written, *_) = steps(ax), steps(ax, 1)
    np.testing.assert_allclose(read, flow.read_gbytes_per_s)
    np.testing.assert_allclose(written, flow.written_gbytes_per_s)
    np.testing.assert_allclose(read[:10], 2.0)  # 8 bits a cycle of half a nanosecond
    assert "read 0.444, written 1.33" in ax.get_title(loc="left")
    report, timeline, traffic = result
    figure = plots_over_time.bandwidth_panels(timeline, traffic)
    assert len(figure.axes) == len(traffic) == 2
    for ax, memory in zip(figure.axes, traffic, strict=True):
        mean = f"read {report.memory[memory].read_gbytes_per_s:,.3g} GB/s on average"
        assert ax.get_title(loc="left") == f"{memory}: {mean}"
    with pytest.raises(InputError, match="names no memory's traffic"):
        plots_over_time.bandwidth_panels(timeline, {})


# ------------------------------------------------------------------ topology


def overlap(a, b) -> bool:
    return a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1


@pytest.mark.parametrize("which", ["eie", "accelerator"])
def test_topology_names_everything_legibly(result, which: str) -> None:
    """Every actor, channel and resource is named once, and no two texts lie on each other."""
    net = accelerator() if which == "accelerator" else result[1].netlist
    ax = draw_topology(net)
    ax.figure.draw_without_rendering()
    shown = [text.get_text() for text in ax.texts]
    for part in (*net.actors, *net.channels, *net.resources):
        assert shown.count(part.name) == 1
    assert shown.count("holds 7") == sum(c.capacity == 7 for c in net.channels)
    boxes = [(text.get_text(), text.get_window_extent()) for text in ax.texts]
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        assert not overlap(a, b), f"{one} lies on {two}"
    page = ax.figure.bbox
    for name, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1, f"{name} leaves the page"
        assert page.y0 <= box.y0 and box.y1 <= page.y1, f"{name} leaves the page"
    kinds = {c.pattern for c in net.channels}
    legend = " ".join(legend_texts(ax))
    assert all((kind.value in legend) == (kind in kinds) for kind in Pattern)


def test_topology_shows_flow_from_left_to_right() -> None:
    """A channel's target stands right of its source, but for those that close a cycle."""
    from sparqsim.simulator.topology import arrange, topology_of

    layout = arrange(topology_of(accelerator()))
    assert {w.name for w in layout.back} == {"credit", "free_row", "again"}
    for wire in layout.forward:
        assert wire.stops[0].right < wire.stops[-1].left
        assert [b.x for b in wire.stops] == sorted(b.x for b in wire.stops)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(netlists())
def test_any_topology_can_be_drawn(netlist: Netlist) -> None:
    """Boxes of any netlist stand apart and all its parts are named."""
    from sparqsim.simulator.topology import arrange, topology_of

    layout = arrange(topology_of(netlist))
    for a, b in itertools.combinations(layout.boxes.values(), 2):
        apart = a.right < b.left or b.right < a.left or a.bottom > b.top or b.bottom > a.top
        assert apart
    ax = draw_topology(netlist)
    shown = [text.get_text() for text in ax.texts]
    for part in (*netlist.actors, *netlist.channels, *netlist.resources):
        assert part.name in shown


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(netlists())
def test_any_run_can_be_drawn(netlist: Netlist) -> None:
    """Empty runs, deadlocks, actors without firings: every figure is drawn of any run."""
    try:
        timeline = simulate(netlist)
    except Deadlock as stuck:
        timeline = stuck.timeline
    name = netlist.actors[-1].name
    axes = [
        plots.load_balance(balance_of(timeline, name), timeline.cycles),
        plots.lane_stalls(timeline, name),
        plots.stalls(stalls_of(timeline)),
        plots_over_time.utilization_over_time(timeline),
        *(plots_over_time.queue_occupancy(timeline, c.name) for c in netlist.channels[:2]),
        plots_over_time.bandwidth(timeline, "memory", [Access(actor=name, read_bits=4)]),
    ]
    for ax in axes:
        ax.figure.draw_without_rendering()


# ------------------------------------------------------------------ the set


def test_figures_draw_on_given_axes(result) -> None:
    """Each function draws on the axes it is given, and returns them."""
    report, timeline, traffic = result
    draw = [
        lambda ax: plots.load_balance(report.load_balance, report.cycles, ax),
        lambda ax: plots.lane_stalls(timeline, "arithmetic", ax),
        lambda ax: plots.stalls(report.stalls, ax),
        lambda ax: plots.critical_path(report.critical_path, ax),
        lambda ax: plots_over_time.utilization_over_time(timeline, ax=ax),
        lambda ax: plots_over_time.queue_occupancy(timeline, "queue", ax),
        lambda ax: plots_over_time.bandwidth(timeline, "ptr_sram", traffic["ptr_sram"], ax),
        lambda ax: draw_topology(timeline.netlist, ax),
    ]
    figure = Figure(figsize=(16, 20))
    for function, ax in zip(draw, figure.subplots(4, 2).reshape(-1), strict=True):
        assert function(ax) is ax
        assert ax.get_title(loc="left")
    figure.draw_without_rendering()


def test_axes_have_labels_with_units(result) -> None:
    """Every figure has a title; every drawn axis says what it counts."""
    for name, draw in plots.figures(*result).items():
        figure = draw()
        for ax in figure.axes:
            assert ax.get_title(loc="left") or figure.get_suptitle()
        labels = [label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel())]
        if name != "topology":
            assert any("cycle" in label or "%" in label for label in labels), name


def test_the_set_is_written(result, tmp_path: Path) -> None:
    """All figures, as PNG and if asked as SVG, the same bytes each time; a new folder is made."""
    report, timeline, traffic = result
    names = ["topology", "load_balance", "stalls", "critical_path", "lane_stalls"]
    names += ["utilization", "queues", "bandwidth"]
    paths = plots.save_figures(report, timeline, tmp_path / "new" / "one", traffic=traffic)
    assert [p.name for p in paths] == [f"{name}.png" for name in names]
    plain = plots.save_figures(report, None, tmp_path / "two", svg=True)
    without_time = ["load_balance", "stalls", "critical_path"]
    assert [p.name for p in plain] == [
        f"{n}.{kind}" for n in without_time for kind in ("png", "svg")
    ]
    assert sorted((tmp_path / "two").iterdir()) == sorted(plain)
    for path in (*paths, *plain):
        assert path.read_bytes()[:5] == (b"\x89PNG\r" if path.suffix == ".png" else b"<?xml")
    for path in plain[::2]:
        assert path.read_bytes() == (tmp_path / "new" / "one" / path.name).read_bytes()


def test_a_run_of_sums_has_fewer_figures(tmp_path: Path) -> None:
    """record="summary" leaves out what is over time and keeps the rest."""
    sums = small_run("summary")
    paths = plots.save_figures(*sums[:2], tmp_path, traffic=sums[2])
    assert [p.stem for p in paths] == ["topology", "load_balance", "stalls", "lane_stalls"]


def test_a_file_in_the_way(result, tmp_path: Path) -> None:
    """A folder that cannot be made is an error message."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        plots.save_figures(*result[:2], tmp_path / "file" / "figures")


def test_pyplot_and_matplotlib_stay_out() -> None:
    """Importing the figures imports no matplotlib, and drawing one no pyplot."""
    code = (
        "import sys\n"
        "from sparqsim.simulator import pages, plots as p, trace\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from sparqsim.simulator.report import Stalls\n"
        "p.stalls({'a': Stalls(lanes=1, busy=1, starved=0, blocked=0, waiting=0, finished=0)})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
