"""The space of one block: what is fixed, what varies, what is derived; and the point of each place.

Names are dotted as in the file: ``work``, ``work.batch``, ``recipe.weights.format``, ``machine``,
``machine.rows``, ``seed``, ``variables.n``. An expression may use any end of one that is not
ambiguous, and every field of the machine, given or not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.machine import Machine
from sparqsim.architectures.registry import get_machine
from sparqsim.base import InputError
from sparqsim.scripts.sweep.expression import Expression
from sparqsim.scripts.sweep.file import Block, Range, RecipeValues, Sweep, Value, WorkValues
from sparqsim.scripts.sweep.points import Point, Synthetic, Work, configured, numbers_needed
from sparqsim.scripts.sweep.sampling import Axis, Drawn, Grid, axis_of, drawn
from sparqsim.workloads import recipes
from sparqsim.workloads.layers import unknown
from sparqsim.workloads.recipes import Recipe

CLASSES = ("weights", "activations", "embeddings")
DATASHEET: dict[str, Callable[[Machine], float | None]] = {
    "area_mm2": lambda machine: area.mm2 if (area := machine.area()) else None,
    "peak_macs_per_s": lambda machine: peak.macs_per_s if (peak := machine.peak()) else None,
    "bandwidth_bytes_per_s": lambda machine: machine.bandwidth(),
}
BRACES = re.compile(r"\{([\w.]+)\}")


class Space:
    """The points of a block.

    Raises
    ------
    InputError
        If a name is unknown, a value cannot vary so, or an expression is none; the place is named.
    """

    def __init__(self, sweep: Sweep, number: int, *, searched: bool = False) -> None:
        self.sweep, self.number = sweep, number
        self.block: Block = sweep.file.block[number]
        self.fixed: dict[str, Any] = {}
        self.axes: list[Axis] = []
        self.derived: dict[str, Expression] = {}
        sampled = searched or self.block.sample is not None
        for name, (path, value) in _values(self.block).items():
            self._sort(name, path, value, sampled)
        self.names = (*self.fixed, *(axis.name for axis in self.axes), *self.derived)
        self.machines = self._machines()
        self.where = [
            self._expression(text, "where", place) for place, text in enumerate(self.block.where)
        ]
        self.derived = self._in_order()
        self._check_fields()
        axes = tuple(self.axes)
        if self.block.sample is None:
            self.places: Grid | Drawn = Grid(axes)
        else:
            if not axes:
                raise InputError(f"{self.place('sample')}: nothing varies in this block")
            self.places = Drawn(axes, drawn(self.block.sample, len(axes)))

    def place(self, *path: str | int) -> str:
        """Where a key of this block stands, for error messages."""
        return self.sweep.place("block", self.number, *path)

    # ------------------------------------------------------------------ when it is built

    def _sort(self, name: str, path: tuple[str, ...], value: Value, sampled: bool) -> None:
        """Put a value with the fixed, the varying or the derived ones."""
        if isinstance(value, Range) and value.derived is not None:
            self.derived[name] = self._expression(value.derived, *path)
        elif isinstance(value, Range | list):
            try:
                self.axes.append(axis_of(name, value, sampled))
            except ValueError as error:
                raise InputError(f"{self.place(*path)}: {error}") from None
        else:
            self.fixed[name] = value

    def _expression(self, text: str, *path: str | int) -> Expression:
        try:
            return Expression(text)
        except InputError as error:
            raise InputError(f"{self.place(*path)}: {error}") from None

    def _taken(self, name: str) -> list[Any]:
        """All values of a name with few: what is fixed, or a list."""
        if name in self.fixed:
            return [self.fixed[name]]
        return [value for axis in self.axes if axis.name == name for value in axis.values]

    def _machines(self) -> dict[str, type[Machine]]:
        names = self._taken("machine")
        if not names or not all(isinstance(name, str) for name in names):
            raise InputError(
                f"{self.place('machine')}: a machine must have a name, or a list of names: "
                'machine = { name = "eie", pes = 16 }'
            )
        found = {}
        for name in names:
            try:
                found[name] = get_machine(name)
            except InputError as error:
                raise InputError(f"{self.place('machine')}: {error}") from None
        return found

    def _check_fields(self) -> None:
        """Every field is one of every machine's, and every name in an expression is there."""
        for name in self.names:
            if name.startswith("machine.") and name != "machine.preset":
                field = name.removeprefix("machine.")
                for machine, kind in self.machines.items():
                    if field not in kind.__struct_fields__:
                        message = unknown(
                            f"the machine {machine} has no field", field, kind.__struct_fields__
                        )
                        raise InputError(f"{self.place('machine', field)}: {message}")
        fields = [
            f"machine.{field}" for k in self.machines.values() for field in k.__struct_fields__
        ]
        known = tuple(dict.fromkeys((*self.names, *fields)))
        for name, expression in self.derived.items():
            self._check_names(expression, known, *name.split("."))
        for place, expression in enumerate(self.where):
            self._check_names(expression, (*known, *DATASHEET), "where", place)
        for text in self._taken("work"):
            for name in BRACES.findall(text):
                self._check_names(Expression(name), known, "work")

    def _check_names(
        self, expression: Expression, known: tuple[str, ...], *path: str | int
    ) -> None:
        for name in expression.names:
            try:
                resolved(name, known)
            except InputError as error:
                raise InputError(f"{self.place(*path)}: {error}") from None

    def _in_order(self) -> dict[str, Expression]:
        """Derived values, each behind those that it needs."""
        ordered: dict[str, Expression] = {}
        waiting = dict(self.derived)
        while waiting:
            ready = [
                name
                for name, expression in waiting.items()
                if not any(_is_meant(each, other) for each in expression.names for other in waiting)
            ]
            if not ready:
                first = next(iter(waiting))
                names = ", ".join(waiting)
                raise InputError(
                    f"{self.place(*first.split('.'))}: derived values depend on each other: {names}"
                )
            ordered |= {name: waiting.pop(name) for name in ready}
        return ordered

    # ------------------------------------------------------------------ one place

    def point(self, values: Mapping[str, Any]) -> Point | None:
        """The point, without its key, of the values that vary; None where a constraint is not met.

        Raises
        ------
        InputError
            If an expression has no value, the machine refuses a field, or there is no such recipe.
        """
        found = self.fixed | dict(values)
        kind = self.machines[found["machine"]]
        given = self._preset(found, kind)

        def value(name: str) -> Any:
            full = resolved(name, _known(tuple(found), kind))
            if full in found:
                return found[full]
            return given.get(full.removeprefix("machine."), KeyError)

        for name, expression in self.derived.items():
            found[name] = self._evaluated(expression, value, found, *name.split("."))
        fields = given | {
            name.removeprefix("machine."): each
            for name, each in found.items()
            if name.startswith("machine.") and name != "machine.preset"
        }
        try:
            machine = configured(kind, fields)
        except InputError as error:
            raise InputError(
                f"{self.place('machine')}: {error}{_of(found)}; leave it out, for example by a "
                "constraint in where"
            ) from None
        for place, expression in enumerate(self.where):

            def told(name: str, machine: Machine = machine) -> Any:
                return DATASHEET[name](machine) if name in DATASHEET else value(name)

            if not self._evaluated(expression, told, found, "where", place):
                return None
        return self._made(found, machine, value)

    def _preset(self, found: Mapping[str, Any], kind: type[Machine]) -> dict[str, Any]:
        """All fields of a configuration that differs in nothing from its preset or defaults."""
        try:
            return _fields_of(found.get("machine.preset"), kind)
        except InputError as error:
            raise InputError(f"{self.place('machine', 'preset')}: {error}") from None

    def _evaluated(
        self,
        expression: Expression,
        value: Callable[[str], Any],
        found: Mapping[str, Any],
        *path: str | int,
    ) -> Any:
        try:
            return expression.value(value)
        except InputError as error:
            raise InputError(f"{self.place(*path)}: {error}{_of(found)}") from None

    def _made(self, found: dict[str, Any], machine: Machine, value: Callable[[str], Any]) -> Point:
        block = self.block
        numbers = numbers_needed(machine, block.verify)
        name = BRACES.sub(lambda match: str(value(match[1])), found["work"])
        options = {
            key.removeprefix("work."): each
            for key, each in found.items()
            if key.startswith("work.")
        }
        draws = {key: options.pop(key) for key in Synthetic.__struct_fields__ if key in options}
        try:
            work = msgspec.convert({"name": name, **options, "numbers": numbers}, Work)
            synthetic = msgspec.convert(draws, Synthetic)
        except msgspec.ValidationError as error:
            raise InputError(f"{self.place('work')}: {error}") from None
        if not numbers:
            self._refuse_idle(found, machine)
        shown = {**found, "work": name}
        seed = found["seed"]
        if type(seed) is not int or seed < 0:
            raise InputError(f"{self.place('seed')}: a seed is a whole number from 0, got {seed!r}")
        return Point(
            key="",
            work=work,
            recipe=self._recipe(found),
            machine=found["machine"],
            fields=msgspec.to_builtins(machine),
            seed=seed if numbers else None,
            synthetic=synthetic,
            verify=block.verify,
            requantize=block.requantize,
            values={key: shown[key] for key in sorted(shown) if shown[key] is not None},
        )

    def _refuse_idle(self, found: Mapping[str, Any], machine: Machine) -> None:
        """Refuse values that would change nothing without numbers."""
        varying = {axis.name for axis in self.axes}
        for name in ("seed", *(f"work.{field}" for field in Synthetic.__struct_fields__)):
            if name in varying or (name != "seed" and name in found):
                raise InputError(
                    f"{self.place(*name.split('.'))}: it changes nothing: without verification the "
                    f"time of {machine.name} does not depend on the numbers"
                )

    def _recipe(self, found: Mapping[str, Any]) -> Recipe | None:
        named = found.get("recipe")
        fields = tuple(
            (name.removeprefix("recipe."), each)
            for name, each in found.items()
            if name.startswith("recipe.")
        )
        if named is None and not fields:
            return None
        try:
            return recipe_of(named, fields)
        except InputError as error:
            raise InputError(f"{self.place('recipe')}: {error}{_of(found)}") from None


# ------------------------------------------------------------------ names and values


def _values(block: Block) -> dict[str, tuple[tuple[str, ...], Value]]:
    """Path and value of everything a block gives, by dotted names."""
    found: dict[str, tuple[tuple[str, ...], Value]] = {}

    def put(name: str, path: tuple[str, ...], value: Any) -> None:
        if value is not None:
            found[name] = path, value

    work = block.work
    if isinstance(work, WorkValues):
        put("work", ("work", "name"), work.name)
        for field in msgspec.structs.fields(WorkValues)[1:]:
            put(f"work.{field.name}", ("work", field.name), getattr(work, field.name))
    else:
        put("work", ("work",), work)
    recipe = block.recipe
    if isinstance(recipe, RecipeValues):
        put("recipe", ("recipe", "name"), recipe.name)
        for kind in CLASSES:
            tensors = getattr(recipe, kind)
            for name in tensors.__struct_fields__:
                put(f"recipe.{kind}.{name}", ("recipe", kind, name), getattr(tensors, name))
    else:
        put("recipe", ("recipe",), recipe)
    machine = block.machine if isinstance(block.machine, dict) else {"name": block.machine}
    put("machine", ("machine",), machine.get("name"))
    for name, value in machine.items():
        if name != "name":
            put(f"machine.{name}", ("machine", name), value)
    put("seed", ("seed",), block.seed)
    for name, value in block.variables.items():
        put(f"variables.{name}", ("variables", name), value)
    return found


@cache
def resolved(name: str, known: tuple[str, ...]) -> str:
    """The one name that is meant by it or by its end.

    Raises
    ------
    InputError
        If there is none, or several.
    """
    if name in known:
        return name
    meant = [each for each in known if _is_meant(name, each)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise InputError(f"{name!r} may be {' or '.join(meant)}; say which")
    raise unknown("there is no name", name, known)


def _is_meant(name: str, other: str) -> bool:
    return name == other or other.endswith(f".{name}")


@cache
def _known(names: tuple[str, ...], kind: type[Machine]) -> tuple[str, ...]:
    fields = (f"machine.{field}" for field in kind.__struct_fields__)
    return tuple(dict.fromkeys((*names, *fields)))


@cache
def _fields_of(preset: str | None, kind: type[Machine]) -> dict[str, Any]:
    if preset is not None:
        found: dict[str, Any] = msgspec.to_builtins(presets.load(preset, kind.name))
        return found
    return {
        field.name: msgspec.to_builtins(field.default)
        for field in msgspec.structs.fields(kind)
        if field.default is not msgspec.NODEFAULT
    }


@cache
def recipe_of(name: str | None, fields: tuple[tuple[str, Any], ...]) -> Recipe:
    """A recipe with fields in place of its own; an empty one without a name.

    Raises
    ------
    InputError
        If there is no such recipe, or a field does not go with the others.
    """
    base = Recipe(name="") if name is None else recipes.get(name)
    if not fields:
        return base
    content = msgspec.to_builtins(base)
    for dotted, value in fields:
        kind, _, field = dotted.partition(".")
        content[kind] = {**content[kind], field: value}
    changes = ", ".join(f"{field} = {value}" for field, value in fields)
    content["name"] = f"{base.name} with {changes}" if base.name else changes
    try:
        return msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        raise InputError(str(error).partition(" - at `")[0]) from None


def _of(found: Mapping[str, Any]) -> str:
    """The values of a point, for error messages."""
    told: Iterable[str] = (f"{name} = {value!r}" for name, value in found.items() if name != "seed")
    return f" (at {', '.join(told)})"
