"""Figures of the sparse tensor core: measured and simulated, when 2:4 pays, waves, any N:M.

    python -m sparqsim.scripts.scenarios.sparse_tensor_core_figures [--out docs/figures]

``stc_measured``: the GEMMs of ``a100_sparse.csv``. ``stc_h100``: those of ``h100_gemm.csv``, and
their clocks. ``stc_when``: speed-up of 2:4 over the same
machine dense, over size, tokens and depth. ``stc_waves``: tensor cores over the run of a 4096^3
product. ``stc_nm``: cycles and storage of N:M on the preset ``any-nm`` beside M/N.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from msgspec.structs import replace

from sparqsim.architectures import presets
from sparqsim.architectures.sparse_tensor_core import SparseTensorCore
from sparqsim.base import output_folder, written_whole
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import open_frame
from sparqsim.scripts.validation import _silicon
from sparqsim.scripts.validation._h100 import SILICON as H100
from sparqsim.scripts.validation.sparse_tensor_core import (
    BOUND,
    REFERENCE,
    Row,
    milliseconds,
    validate,
)
from sparqsim.simulator.engines import simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
GREY, BLUE, ORANGE, GREEN, PINK = "#9aa5b1", "#0072b2", "#d55e00", "#009e73", "#cc79a7"
NAMES = {"dense_ms": "dense", "sparse_ms": "2:4"}


def measured(content: dict[str, Any]) -> Figure:
    """Times of the measured products beside ours, over the time at the dense peak."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.add_subplot()
    rows: list[Row] = [row for row in content["rows"] if row.quantity in NAMES]
    for place, row in enumerate(rows):
        rows_, columns, depth = map(int, row.shape.split(" x "))
        ideal = 2 * rows_ * columns * depth / 312e12 * 1e3
        colour = GREEN if row.fitted else BLUE if row.within else ORANGE
        for offset, value, shade in ((-0.2, row.measured, GREY), (0.2, row.simulated, colour)):
            axes.bar(place + offset, value / ideal, 0.38, color=shade)
        label = "fitted" if row.fitted else f"{100 * row.error:+.1f} %"
        axes.annotate(
            label + ("" if row.within else "\nmiss"),
            (place, max(row.measured, row.simulated) / ideal),
            (0, 4),
            textcoords="offset points",
            ha="center",
        )
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.text(len(rows) - 0.5, 1, "dense peak", va="bottom", fontsize=8)
    axes.text(len(rows) - 0.5, 0.5, "2:4 peak", va="bottom", fontsize=8)
    axes.set_xlim(-0.6, len(rows) + 0.1)
    labels = ["\n".join([*row.shape.split(" x "), NAMES[row.quantity]]) for row in rows]
    axes.set_xticks(range(len(rows)), labels)
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    axes.set_ylim(0.4, 16)
    axes.set_ylabel("time over that at the dense peak")
    axes.set_title(
        f"A100, fp16: measured (grey) and simulated; bound {100 * BOUND:.0f} % where not fitted"
    )
    return figure


def h100(content: dict[str, Any]) -> Figure:
    """Simulated over measured times of every product by its time, and the clocks."""
    from matplotlib.figure import Figure

    rows: list[_silicon.Compared] = content["rows"]
    formats = list(dict.fromkeys(row.dtype for row in rows))
    colours = dict(zip(_silicon.REGIMES, (PINK, GREEN, ORANGE, BLUE), strict=True))
    figure = Figure(figsize=(4.2 * (len(formats) + 1), 4.4), layout="constrained")
    times = figure.subplots(1, len(formats) + 1, squeeze=False)[0]
    clocks, bound = times[-1], content["bound"]
    for axes, dtype in zip(times, formats, strict=False):
        axes.axhspan(1 - bound, 1 + bound, color="0.93", linewidth=0)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set(xscale="log", ylim=(0.5, 1.5), title=dtype, xlabel="measured time (us)")
    times[0].set_ylabel("simulated over measured time")
    for row in rows:
        filled = row.library == "dense"
        style: dict[str, Any] = {
            "marker": "o" if filled else "^", "markersize": 5, "linestyle": "",
            "color": colours[row.regime],
            "markerfacecolor": colours[row.regime] if filled else "none",
        }  # fmt: skip
        at = 1e3 * row.measured, row.simulated / row.measured
        times[formats.index(row.dtype)].plot(*at, **style)
        clocks.plot(row.measured_clock_mhz, row.clock_mhz, **style)
    clocks.plot((1150, 2000), (1150, 2000), color="black", linewidth=0.8)
    clocks.set(xlabel="measured clock (MHz)", ylabel="simulated clock (MHz)", title="clocks")
    for name, colour in colours.items():
        times[0].plot([], [], "s", color=colour, label=name)
    times[0].plot([], [], "o", color="0.4", label="dense")
    times[0].plot([], [], "^", color="0.4", markerfacecolor="none", label="2:4")
    times[0].legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    return figure


def preset(name: str) -> SparseTensorCore:
    """A GPU by the name of its preset."""
    machine = presets.load(name)
    assert isinstance(machine, SparseTensorCore)
    return machine


def speedup(
    machine: SparseTensorCore, shape: tuple[int, int, int], dtype: str, pattern: str = "native"
) -> float:
    """Time of the dense product over that of the sparse one."""
    dense, sparse = (milliseconds(machine, shape, p, dtype) for p in ("dense", pattern))
    return dense / sparse


def when(call_us: float) -> Figure:
    """Speed-up of 2:4 over size, tokens and depth."""
    from matplotlib.figure import Figure

    a100 = preset("a100-40gb")
    called = replace(a100, sparse_call_us=call_us)
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels: tuple[tuple[str, str, tuple[int, ...], Callable[[int], tuple[int, int, int]]], ...] = (
        ("M = N = K", "square products, fp16", (256, 512, 1024, 2048, 4096, 8192),
         lambda size: (size, size, size)),
        ("tokens N", "4096 x N x 4096, fp16", (1, 8, 32, 128, 512, 2048, 8192),
         lambda size: (4096, size, 4096)),
        ("depth K", "10240 x 10240 x K, int8", (256, 512, 1024, 2048, 4096, 10240),
         lambda size: (10240, 10240, size)),
    )  # fmt: skip
    for number, (label, title, sizes, shape) in enumerate(panels):
        axes = figure.add_subplot(1, 3, number + 1)
        lines: tuple[tuple[str, SparseTensorCore, str], ...] = (
            ("A100 40 GB, kernel", a100, BLUE),
            (f"  with a library call of {call_us:.0f} us", called, PINK),
            ("H100", preset("h100"), ORANGE),
            ("Orin", preset("orin"), GREEN),
        )
        for name, machine, colour in lines:
            if number == 2 and colour == PINK:
                continue
            dtype = "int8" if number == 2 else "fp16"
            values = [speedup(machine, shape(size), dtype) for size in sizes]
            axes.plot(sizes, values, "o-", color=colour, markersize=4, label=name)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.axhline(2, color="black", linewidth=0.8, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_ylim(0, 2.5)
        axes.set_xlabel(label)
        axes.set_title(title)
        if not number:
            axes.set_ylabel("speed-up of 2:4 over dense")
        if not number:
            axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.39))
    return figure


def waves() -> Figure:
    """Busy share of the tensor cores over the run, dense and 2:4, and where SM time went."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(3, 1))
    axes, bars = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    a100 = preset("a100-40gb")
    kinds = (("busy", BLUE), ("starved", ORANGE), ("finished", GREY))
    for place, (name, colour) in enumerate((("dense", BLUE), ("2:4", ORANGE))):
        timeline = simulate(a100.gemm(4096, 4096, 4096, pattern=name).netlist)
        edges, share = timeline.utilization_over_time("mma", 300)
        axes.stairs(100 * share, edges / timeline.netlist.clock_hz * 1e6, color=colour, label=name)
        totals = timeline.lane_times("mma").totals()
        whole = timeline.cycles * timeline.netlist.actor("mma").lanes
        bottom = 0.0
        for kind, shade in kinds:
            part = 100 * totals[kind] / whole
            bars.bar(place, part, 0.6, bottom=bottom, color=shade, label=None if place else kind)
            if part > 3:
                bars.text(place, bottom + part / 2, f"{part:.0f} %", ha="center", va="center")
            bottom += part
    axes.set_xlabel("time (us)")
    axes.set_ylabel("SMs whose tensor cores are in a step (%)")
    axes.set_ylim(0, 119)
    axes.set_title("4096 x 4096 x 4096 on the A100: five waves, the last one not full")
    axes.legend(frameon=False, loc="upper right", ncols=2)
    bars.set_xticks([0, 1], ["dense", "2:4"])
    bars.set_ylabel("SM time (%)")
    bars.set_ylim(0, 119)
    bars.legend(frameon=False, loc="upper center", ncols=3, fontsize=8, columnspacing=0.8)
    return figure


def any_nm() -> Figure:
    """Gain and storage of N:M on a core that takes any."""
    from matplotlib.figure import Figure

    patterns = ((3, 4), (4, 8), (2, 4), (1, 2), (6, 16), (1, 4), (2, 8), (4, 16), (1, 8), (2, 16))
    figure = Figure(figsize=(10, 4), layout="constrained")
    gain, storage = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    place = np.arange(len(patterns))
    labels = [f"{n}:{m}" for n, m in patterns]
    shape = (1024, 1024, 4096)
    for offset, dtype, colour in ((-0.2, "fp16", BLUE), (0.2, "int8", ORANGE)):
        gains, shares = [], []
        for n, m in patterns:
            machine, pattern = preset("any-nm"), f"{n}:{m}"
            gains.append(speedup(machine, shape, dtype, pattern))
            cores = machine.cores(dtype, pattern)
            shares.append(100 * cores.weight_bits / cores.kind.bits)
        gain.bar(place + offset, gains, 0.38, color=colour, label=dtype)
        storage.bar(place + offset, shares, 0.38, color=colour, label=dtype)
    for axes, ideal, name in (
        (gain, [m / n for n, m in patterns], "M/N"),
        (storage, [100 * n / m for n, m in patterns], "values alone, N/M"),
    ):
        for at, value in zip(place, ideal, strict=True):
            axes.plot([at - 0.42, at + 0.42], [value, value], color="black", linewidth=1.2,
                      label=None if at else name)  # fmt: skip
        axes.set_xticks(place, labels)
        axes.legend(frameon=False)
    gain.set_ylabel("speed-up over dense")
    gain.set_title("a core that takes any N:M, 1024 x 1024 x 4096")
    storage.set_ylabel("weights stored (% of dense bits)")
    storage.set_title("values and ceil(log2 M) bits of position")
    return figure


def _tidy(figure: Figure) -> Figure:
    each: Axes
    for each in figure.axes:
        open_frame(each)
    return figure


@click.command()
@click.option("--out", default=str(ROOT / "docs" / "figures"), show_default=True, metavar="DIR")
def main(out: str) -> None:
    """Draw the figures of the sparse tensor core."""
    folder = output_folder(out)
    with PatientBar() as bar:
        content = validate(REFERENCE, bar)
        silicon = _silicon.validate(H100, None, bar)
    figures = {
        "stc_measured": measured(content),
        "stc_h100": h100(silicon),
        "stc_when": when(content["fit"].sparse_call_us),
        "stc_waves": waves(),
        "stc_nm": any_nm(),
    }
    for name, figure in figures.items():
        with written_whole(folder / f"{name}.png") as path:
            _tidy(figure).savefig(path, dpi=130)


if __name__ == "__main__":
    main()
