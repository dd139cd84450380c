"""The page of ``sparqsim explore``: choices to turn, and a model's bytes against memories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec

from sparqsim.simulator.pages.charts import HUES, Axis, Plot, legend, percent, with_unit
from sparqsim.simulator.pages.html import (
    Html,
    Number,
    Table,
    contents,
    document,
    h,
    script_json,
    section,
)
from sparqsim.simulator.pages.parts import captioned, facts, joules
from sparqsim.simulator.report import Roof

BITS = (32, 16, 8, 4, 3, 2, 1)
# Memory of three classes of platforms, as lectures on efficient machine learning tell them.
PLATFORMS = {"cloud, 24 GB": 24e9, "mobile, 4 GB": 4e9, "tiny, 500 KB": 500e3}
TERA = 1e12  # bytes, and bytes a second, that a large model needs and more
TOKENS_PER_S = 10  # assumed: about as fast as people read


class Explored(msgspec.Struct, frozen=True, kw_only=True):
    """A point of the grid and what came of it; ``why`` says why it did not run.

    ``bandwidth`` is a factor to the machine's own. ``seconds`` is 0 where it did not run.
    """

    machine: str
    recipe: str
    batch: int | None
    context: int | None
    bandwidth: float
    seconds: float = 0.0
    energy_pj: float | None = None
    macs: int = 0
    dram_bytes: float | None = None
    utilization: float = 0.0
    bound_by: str = ""
    roof: Roof | None = None
    layers_run: int = 0
    layers_of_network: int = 0
    why: str = ""

    @property
    def words(self) -> str:
        """Its choices."""
        told = [self.machine, f"recipe {self.recipe}", f"{self.bandwidth:g} x bandwidth"]
        if self.batch is not None:
            told.append(f"batch {self.batch}")
        if self.context is not None:
            told.append(f"context {self.context}")
        return ", ".join(told)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a model; keys and values that decoding a token reads at a context."""

    name: str
    parameters: int
    cached: int
    context: int | None


def explore_page(work: str, points: Sequence[Explored], models: Sequence[Model]) -> str:
    """The points as a page of HTML; the first that ran is shown at first."""
    title = f"Explore {work}"
    first = next(point for point in points if point.seconds)
    sections = [
        section("Choose", *_chooser(points, first)),
        section("How large is the model?", *_sizes(models)),
        section("All points", _table(points)),
    ]
    told = "Every point was simulated beforehand; the page only looks them up."
    body = [h("h1", title), h("p", told, class_="sub"), contents(sections), *sections]
    script = (files("sparqsim.scripts") / "explore.js").read_text(encoding="utf-8")
    return document(title, body, [script])


# ------------------------------------------------------------------ the grid


def _told(point: Explored) -> dict[str, str]:
    """What a point says, by the places where it is shown."""
    watts = ""
    if point.energy_pj is not None:
        watts = f"{with_unit(point.energy_pj * 1e-12 / point.seconds, 'W')} on average"
    dram = "no DRAM" if point.dram_bytes is None else with_unit(point.dram_bytes, "B")
    rate = ""
    if point.dram_bytes:
        rate = with_unit(point.dram_bytes / point.seconds, "B/s")
    return {
        "time": with_unit(point.seconds, "s"),
        "energy": joules(point.energy_pj),
        "watts": watts,
        "use": percent(point.utilization),
        "bound": point.bound_by,
        "dram": dram,
        "rate": rate,
        "layers": f"{point.layers_run} of {point.layers_of_network}",
    }


def _chooser(points: Sequence[Explored], first: Explored) -> list[Html]:
    ran = [point for point in points if point.seconds]
    under = [point for point in ran if point.dram_bytes and point.macs and point.roof]
    told = _told(first)
    shown = facts([
        ("Time", told["time"], "of all layers that run"),
        ("Energy", told["energy"], told["watts"]),
        ("Multipliers busy", told["use"], "on effectual MACs"),
        ("Bound by", told["bound"], "most of the time"),
        ("DRAM", told["dram"], told["rate"]),
        ("Layers run", told["layers"], ""),
    ])  # fmt: skip
    plot = _plot(ran, under)
    machines = list(dict.fromkeys(point.machine for point in points))
    hues = {name: f"c{place % HUES}" for place, name in enumerate(machines)}
    data = []
    for point in points:
        each: dict[str, Any] = {
            "at": [point.machine, point.recipe, str(point.batch), str(point.context),
                   f"{point.bandwidth:g}"],
        }  # fmt: skip
        if not point.seconds:
            each["why"] = point.why
        else:
            each |= {"told": _told(point), "s": point.seconds, "pj": point.energy_pj}
        if plot is not None and point in under:
            x, y = _place(point)
            plot.dot(x, y, f"dot {hues[point.machine]}", point.words)
            each |= {"dot": plot.places([x], [y]), "roof": _roof(plot, point)}
        data.append(each)
    parts = [
        h("p", first.words, id="chosen", role="status"),
        h("div", shown, id="facts"),
        _bars(),
    ]
    if plot is not None:
        plot.marks.append(h("polyline", points="", class_="roof", id="roof"))
        plot.marks.append(h("path", d="", class_="ring", id="ring"))
        caption = (
            "All points: effectual MACs a second over effectual MACs a byte of DRAM, of the whole "
            "work. The large dot is the chosen point, the line the roof of its longest layer."
        )
        parts += [legend((hues[name], name) for name in machines), captioned(plot.html(), caption)]
    parts.append(h("script", script_json(data), type="application/json", id="points"))
    return [h("div", class_="controls", id="controls"), *parts]


def _bars() -> Html:
    """Bars that the script fills: time and energy of the chosen point over the largest."""
    return h(
        "div",
        h("p", "Time over the longest of all points", class_="note"),
        h("div", h("span", class_="busy", id="time-bar", style="width:0%"), class_="bar"),
        h("p", "Energy over the largest of all points", class_="note"),
        h("div", h("span", class_="c4", id="energy-bar", style="width:0%"), class_="bar"),
        class_="bars",
        aria_hidden="true",
    )


def _place(point: Explored) -> tuple[float, float]:
    assert point.dram_bytes
    return point.macs / point.dram_bytes, point.macs / point.seconds


def _plot(ran: Sequence[Explored], under: Sequence[Explored]) -> Plot | None:
    if not under:
        return None
    places = [_place(point) for point in under]
    roofs = [point.roof for point in under if point.roof is not None]
    knees = [roof.macs_per_s / roof.bytes_per_s for roof in roofs if roof.bytes_per_s]
    x = Axis.around([*(x for x, _ in places), *knees], "MACs a byte of DRAM")
    y = Axis.around([*(y for _, y in places), *(r.macs_per_s for r in roofs)], "MACs a second")
    return Plot(x, y, f"Roofline of {len(under)} of {len(ran)} points", height=360)


def _roof(plot: Plot, point: Explored) -> str:
    """The roof of a point, as SVG has points."""
    roof = point.roof
    assert roof is not None
    if not roof.bytes_per_s:
        return plot.places([plot.x.low, plot.x.high], [roof.macs_per_s] * 2)
    knee = roof.macs_per_s / roof.bytes_per_s
    low = max(plot.x.low, plot.y.low / roof.bytes_per_s)
    across = [low, knee, max(plot.x.high, knee)]
    return plot.places(across, [low * roof.bytes_per_s, roof.macs_per_s, roof.macs_per_s])


def _table(points: Sequence[Explored]) -> Html:
    """A row a point; of batch and context those that were chosen."""

    def whole(value: int | None) -> Number:
        return Number("–" if value is None else f"{value:,}", value)

    turned = [
        name
        for name in ("batch", "context")
        if any(getattr(point, name) is not None for point in points)
    ]
    rows = []
    for point in points:
        head = [point.machine, point.recipe, *(whole(getattr(point, name)) for name in turned),
                Number(f"{point.bandwidth:g}", point.bandwidth)]  # fmt: skip
        if not point.seconds:
            nothing = Number("–", None)
            rows.append([*head, nothing, nothing, nothing, nothing, f"not run: {point.why}"])
            continue
        told = _told(point)
        rows.append([
            *head, Number(told["time"], point.seconds), Number(told["energy"], point.energy_pj),
            Number(told["use"], point.utilization), Number(told["dram"], point.dram_bytes),
            point.bound_by,
        ])  # fmt: skip
    columns = (
        "machine", "recipe", *turned, "x bandwidth", "time", "energy", "use", "DRAM", "bound by",
    )  # fmt: skip
    return Table("All points of the grid.", columns, rows).html()


# ------------------------------------------------------------------ the model's bytes


def _sizes(models: Sequence[Model]) -> list[Html]:
    """Bytes against 1 TB, bytes a second against 1 TB/s, and which platform holds them."""
    told = (
        "Weights at so many bits each, against a terabyte; what decoding reads a second (every "
        "weight once a token, and the cache of keys and values at 16 bits) against a terabyte a "
        f"second, at {TOKENS_PER_S} tokens a second; and which platform's memory holds the weights."
    )
    found = [h("p", told)]
    for model in models:
        cache = f", {model.cached:,} cached numbers" if model.cached else ""
        at = f" at a context of {model.context:,}" if model.context else ""
        caption = f"{model.name}: {model.parameters:,} parameters{cache}{at}"
        columns = (
            "bits per weight", "bytes", "of 1 TB", "read a second", "of 1 TB/s", *PLATFORMS
        )  # fmt: skip
        table = Table(caption, columns, [_size_row(model, bits) for bits in BITS], plain=True)
        found.append(h("div", table.html(), data_parameters=str(model.parameters),
                       data_cached=str(model.cached), class_="sizes"))  # fmt: skip
    platforms = json.dumps(list(PLATFORMS.values()))
    found.append(h("div", class_="controls", id="size-controls", data_platforms=Html(platforms),
                   data_tokens=str(TOKENS_PER_S)))  # fmt: skip
    return found


def _times(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"


def _size_row(model: Model, bits: int) -> list[Any]:
    size = model.parameters * bits / 8
    rate = (size + 2 * model.cached) * TOKENS_PER_S
    fits = [
        h("span", "fits", class_="ok") if size <= most
        else h("span", f"{_times(size / most)} times too large", class_="no")
        for most in PLATFORMS.values()
    ]  # fmt: skip
    return [
        f"{bits}", Number(with_unit(size, "B"), size), Number(percent(size / TERA), size),
        Number(with_unit(rate, "B/s"), rate), Number(percent(rate / TERA), rate), *fits,
    ]  # fmt: skip
