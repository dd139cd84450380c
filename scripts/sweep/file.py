"""The file of a sweep: strict TOML, or the same as a plain dict.

::

    title = "EIE: queue slots and PEs"

    [[block]]
    work = ["eie/alex-6", "eie/alex-7"]       # a list: one after the other
    verify = false

    [block.machine]
    name = "eie"
    queue_slots = { from = 2, to = 64, count = 6, scale = "log" }
    pes = [16, 64]

    [[block]]                                 # as many blocks as there are kinds of points
    work = { name = "resnet50", batch = [1, 4] }
    recipe = { name = "w4a8", weights.format = ["int4", "int8"] }
    machine = { name = "bitfusion", rows = { from = 8, to = 64 }, columns = { derived = "rows" } }
    where = ["rows * columns <= 1024"]
    sample = { kind = "sobol", count = 64 }

A value that varies is a list, ``{ from, to }`` with a ``step`` or a ``count`` (``scale = "log"``
for equal ratios; neither is needed in a sampled block), or ``{ derived = "expression" }``. Names in
expressions are those of the file, ``machine.rows`` or shorter, ``rows``. ``[block.variables]`` has
names of one's own, for expressions and, in braces, for the work: ``gemm:{n}x{n}x{n}``.

Every key is checked before any work; an error message names the line, or the key of a dict.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from sparqsim.base import InputError, read_text
from sparqsim.workloads.layers import unknown

SHIPPED = Path(__file__).resolve().parents[2] / "sweeps"
SCHEMA = Path(__file__).resolve().parent / "sweep.schema.json"

LARGEST = 1e300  # of a range's numbers, so that what is between them is finite
MOST_POINTS = 10_000_000  # of a sweep, and values of a range

Scalar = bool | int | float | str
Described = Annotated[str, Meta(description="What it is for, in a line.")]


class Range(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that varies: from one number to another, or derived from others."""

    from_: int | float | None = field(default=None, name="from")
    to: int | float | None = None
    step: int | float | None = None
    count: Annotated[int, Meta(ge=1)] | None = None
    scale: Literal["linear", "log"] = "linear"
    derived: str | None = None

    def __post_init__(self) -> None:
        ends = (self.from_, self.to)
        if self.derived is not None:
            if ends != (None, None) or self.step or self.count:
                raise ValueError("a derived value has no from, to, step or count")
            return
        if self.from_ is None or self.to is None:
            raise ValueError("a range needs from and to (or give derived)")
        for name in ("from_", "to", "step"):
            number = getattr(self, name)
            if number is not None and not abs(number) <= LARGEST:
                what = f"{name.rstrip('_')} must be -{LARGEST:g} to {LARGEST:g}"
                raise ValueError(f"{what}, got {str(number)[:16]}")
        if not self.from_ < self.to:
            raise ValueError(f"from must be below to, got {self.from_} and {self.to}")
        if self.step is not None and self.count is not None:
            raise ValueError("a range has a step or a count, not both")
        if self.step is not None and not self.step > 0:
            raise ValueError(f"step must be above 0, got {self.step}")
        if self.scale == "log" and self.step is not None:
            raise ValueError("a log range has a count, not a step")
        if self.scale == "log" and not self.from_ > 0:
            raise ValueError(f"a log range must begin above 0, got {self.from_}")
        if self.count == 1:
            raise ValueError("a range has a count of 2 or more")
        count = self.count or (self.step and (self.to - self.from_) / self.step) or 0
        if count > MOST_POINTS:
            raise ValueError(f"a range has at most {MOST_POINTS:,} values, got {count:.6g}")


Value = Scalar | list[Scalar] | Range
Texts = str | list[str]


class WorkValues(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work and its options, as for ``sparqsim run``."""

    name: Texts
    batch: Value | None = None
    sequence: Value | None = None
    context: Value | None = None
    dense: Value | None = None
    calibration: str | None = None
    inputs: str | None = None
    weight_density: Value | None = None
    activation_density: Value | None = None
    correlation: Value | None = None


class TensorValues(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of one class of tensors of a recipe, in place of the recipe's own."""

    format: Value | None = None
    granularity: Value | None = None
    calibration: Value | None = None
    asymmetric: Value | None = None
    dynamic: Value | None = None
    prune: Value | None = None
    density: Value | None = None
    pad: Value | None = None


class RecipeValues(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipe by name or file, and fields in place of its own; without a name an empty one."""

    name: Texts | None = None
    weights: TensorValues = TensorValues()
    activations: TensorValues = TensorValues()
    embeddings: TensorValues = TensorValues()


class Sample(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points drawn from the space of a block, instead of its whole grid."""

    kind: Literal["random", "latin-hypercube", "sobol"]
    count: Annotated[int, Meta(ge=1, le=MOST_POINTS)]
    seed: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.kind == "sobol" and self.count & (self.count - 1):
            raise ValueError(f"count of a Sobol sample must be a power of two, got {self.count}")


class Block(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points of one kind: what is fixed and what varies."""

    work: Texts | WorkValues
    machine: Texts | dict[str, Value]
    name: str = ""
    recipe: Texts | RecipeValues | None = None
    variables: dict[str, Value] = {}
    seed: Value = 0
    verify: bool = True
    requantize: bool = False
    where: list[str] = []
    sample: Sample | None = None


class Search(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Points that optuna proposes from the space of the one block; needs the extra ``search``."""

    method: Literal["nsga2", "tpe", "cmaes", "random"] = "tpe"
    trials: Annotated[int, Meta(ge=1)] = 100
    minimise: list[str] = []
    maximise: list[str] = []
    constraints: list[str] = []
    generation: Annotated[int, Meta(ge=2, le=1 << 16)] = 16
    seed: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        both = [*self.minimise, *self.maximise]
        if not both:
            raise ValueError("a search needs something to minimise or maximise")
        if len(set(both)) < len(both):
            raise ValueError("a measure stands twice in minimise and maximise")
        if self.method == "cmaes" and (len(both) > 1 or self.constraints):
            raise ValueError("cmaes takes one measure and no constraints; take nsga2 or tpe")


class Figure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure of the sweep, as ``sparqsim plot`` draws it."""

    name: Annotated[str, Meta(pattern=r"^[\w-]+$")]
    kind: Literal["lines", "heat", "pareto", "parallel"] = "lines"
    x: str = ""
    y: Texts = []
    hue: str = ""
    panel: str = ""
    value: str = ""
    log_x: bool = False
    log_y: bool = False
    knee: bool = False
    relative_to_first: bool = False
    where: str = ""
    title: str = ""


class SweepFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sweep of Sparqsim: docs/howto/sweep.md tells what the keys mean."""

    block: Annotated[list[Block], Meta(min_length=1)]
    title: Described = ""
    description: str = ""
    minimise: str = ""
    maximise: str = ""
    search: Search | None = None
    figure: list[Figure] = []

    def __post_init__(self) -> None:
        if self.minimise and self.maximise:
            raise ValueError("the best point has minimise or maximise, not both")
        if self.search is not None and len(self.block) > 1:
            raise ValueError(f"a search has one block for its space, got {len(self.block)}")
        if self.search is not None and self.block[0].sample is not None:
            raise ValueError("a search proposes its own points; leave out block.sample")


class Source(Struct, frozen=True, kw_only=True):
    """Where a sweep comes from: what error messages need to name a place in it."""

    name: str
    where: str
    text: str = ""

    def place(self, *path: str | int) -> str:
        """Where a key stands: ``eie.toml, line 12 (block[1].machine.pes)``."""
        dotted = ""
        for part in path:
            dotted += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
        dotted = dotted.removeprefix(".")
        line = line_of(self.text, path) if self.text else None
        told = f"{self.where}, line {line}" if line else self.where
        return f"{told} ({dotted})" if dotted else told


class Sweep(Source, frozen=True, kw_only=True):
    """A sweep as it was read."""

    file: SweepFile


def load(given: str | Path | Mapping[str, Any]) -> Sweep:
    """A sweep from a TOML file, from one that ships with Sparqsim by its name, or from a dict.

    Raises
    ------
    InputError
        If there is no such file, it is no TOML, or a key is unknown, missing or wrong; the line is
        named.
    """
    if isinstance(given, Mapping):
        return _converted(dict(given), Source(name="sweep", where="the sweep"))
    path = _found(given)
    text = read_text(path, "the sweep")
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # of TOML, or of a number without end
        raise InputError(f"{path} is no TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    return _converted(content, Source(name=path.stem, where=str(path), text=text))


def shipped() -> dict[str, Path]:
    """The sweeps that ship with Sparqsim, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def _found(given: str | Path) -> Path:
    path = Path(given)
    known = shipped()
    if not os.path.exists(path) and str(given) in known:
        return known[str(given)]
    if not os.path.exists(path) and path.suffix != ".toml":
        raise unknown("there is no sweep file or shipped sweep", str(given), known)
    return path


def _converted(content: dict[str, Any], source: Source) -> Sweep:
    try:
        file = msgspec.convert(content, SweepFile, strict=True)
    except msgspec.ValidationError as error:
        what, path = _told(error, content)
        raise InputError(f"{source.place(*path)}: {what}") from None
    return Sweep(file=file, **msgspec.structs.asdict(source))


def _told(error: msgspec.ValidationError, content: Any) -> tuple[str, list[str | int]]:
    """What is wrong, and the path of the key, from msgspec's words."""
    words, _, where = str(error).partition(" - at `")
    path: list[str | int] = [
        int(number) if number else name
        for name, number in re.findall(r"\.([\w-]+)|\[(\d+)\]", where.partition("[...]")[0])
    ]
    if "[...]" in where:
        words, path = _within(_at(content, path), words, path)
    match = re.search(r"Object contains unknown field `(.*)`", words)
    if match:
        there = ", ".join(each.encode_name for each in msgspec.structs.fields(_struct(path)))
        return f"there is no key {match[1]!r}; there is {there}", [*path, match[1]]
    match = re.search(r"Object missing required field `(.*)`", words)
    if match:
        return f"the key {match[1]!r} is missing", path
    if words.startswith("Invalid enum value") and path:
        hints = get_type_hints(_struct(path[:-1]))
        names = {each.encode_name: each.name for each in msgspec.structs.fields(_struct(path[:-1]))}
        words += f"; it is one of {', '.join(get_args(hints[names[str(path[-1])]]))}"
    given = _at(content, path)
    shown = "" if isinstance(given, dict | list) else f", got {given!r}"
    return f"{words}{'' if repr(given) in words else shown}", path


def _within(table: Any, words: str, path: list[str | int]) -> tuple[str, list[str | int]]:
    """Which value of a table with names of one's own is wrong: msgspec does not tell."""
    for name, value in table.items():
        try:
            msgspec.convert(value, Value, strict=True)
        except msgspec.ValidationError as error:
            inner = str(error).partition(" - at `")
            more = re.findall(r"\.([\w-]+)", inner[2])
            return inner[0], [*path, name, *more]
    return words, path


def _at(content: Any, path: list[str | int]) -> Any:
    for part in path:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return None
    return content


TABLES: dict[str | int, type[Struct]] = {
    "block": Block,
    "search": Search,
    "figure": Figure,
    "work": WorkValues,
    "recipe": RecipeValues,
    "sample": Sample,
    "weights": TensorValues,
    "activations": TensorValues,
    "embeddings": TensorValues,
}


def _struct(path: list[str | int]) -> type[Struct]:
    """What stands at a path, numbers of rows left out."""
    names = [part for part in path if not isinstance(part, int)]
    return TABLES.get(names[-1], Range) if names else SweepFile


# ------------------------------------------------------------------ lines

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"^\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)


def line_of(text: str, path: tuple[str | int, ...]) -> int | None:
    """The line of a TOML text where a key stands, or the nearest one that encloses it."""
    best, length = None, 0
    counts: dict[str, int] = {}
    prefix: list[str | int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            names = [part.strip().strip("\"'") for part in header[2].split(".")]
            prefix = _placed(names, counts, header[1] == "[[")
            here = prefix
        elif key := _KEY.match(line):
            here = prefix + [part.strip().strip("\"'") for part in key[1].split(".")]
        else:
            continue
        shared = _shared(here, path)
        if shared == min(len(here), len(path)) and shared > length:
            best, length = number, shared
            if shared == len(path):
                return number
    return best


def _placed(names: list[str], counts: dict[str, int], is_array: bool) -> list[str | int]:
    """A header's path: an array of tables has the number of its last row in it."""
    path: list[str | int] = []
    dotted = ""
    for position, name in enumerate(names):
        dotted = f"{dotted}.{name}"
        path.append(name)
        if is_array and position == len(names) - 1:
            counts[dotted] = counts.get(dotted, -1) + 1
        if dotted in counts:
            path.append(counts[dotted])
    return path


def _shared(left: list[str | int], right: tuple[str | int, ...]) -> int:
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return min(len(left), len(right))


def schema() -> dict[str, Any]:
    """JSON schema of the file, for editors."""
    made = msgspec.json.schema(SweepFile)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sparqsim sweep",
    } | made
