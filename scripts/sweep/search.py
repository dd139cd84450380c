"""A search: optuna (extra ``search``) proposes the points of a block's space.

Points are run in generations, by the same runners and into the same store as those of a grid. A
search is repeated from its seed: what it proposed before is in the store already and costs nothing,
so it goes on where it was left, and comes to the same end however many workers run its points.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.scripts.sweep.expression import Expression
from sparqsim.scripts.sweep.file import Search, Sweep
from sparqsim.scripts.sweep.plan import Keyed
from sparqsim.scripts.sweep.points import Point
from sparqsim.scripts.sweep.runner import Runner, carry_out
from sparqsim.scripts.sweep.sampling import Axis
from sparqsim.scripts.sweep.space import Space
from sparqsim.scripts.sweep.store import Record, Store
from sparqsim.scripts.sweep.watch import Watch, goal_of, value_of

ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Study:
    """A search over the space of the one block of a sweep.

    Raises
    ------
    InputError
        If optuna is not installed, or the method cannot search the space.
    """

    def __init__(
        self, sweep: Sweep, store: Store, runner: Runner, *, retry_failed: bool = False
    ) -> None:
        assert sweep.file.search is not None
        self.sweep, self.store, self.runner, self.retry = sweep, store, runner, retry_failed
        self.search: Search = sweep.file.search
        self.space = Space(sweep, 0, searched=True)
        if not self.space.axes:
            raise InputError(f"{self.space.place()}: nothing varies in this block")
        self.keyed = Keyed()
        self.objectives = [*self.search.minimise, *self.search.maximise]
        for kind in ("minimise", "maximise"):
            for place, text in enumerate(getattr(self.search, kind)):
                self._expression(text, kind, place)
        self.constraints = [
            self._expression(text, "constraints", place)
            for place, text in enumerate(self.search.constraints)
        ]
        self.told = 0  # proposals of which numbers came
        self.unusable: InputError | None = None  # why another one is of no use
        self.optuna = _optuna()
        self.distributions = {axis.name: self._distribution(axis) for axis in self.space.axes}

    def _expression(self, text: str, kind: str, place: int) -> Expression:
        try:
            return Expression(text)
        except InputError as error:
            raise InputError(f"{self.sweep.place('search', kind, place)}: {error}") from None

    def _distribution(self, axis: Axis) -> Any:
        kinds = self.optuna.distributions
        if axis.values and axis.is_ordered:
            return kinds.IntDistribution(0, len(axis.values) - 1)
        if axis.values:
            if self.search.method == "cmaes":
                raise InputError(
                    f"{self.sweep.place('search', 'method')}: cmaes searches numbers, but "
                    f"{axis.name} is a list of names; take nsga2 or tpe"
                )
            return kinds.CategoricalDistribution(axis.values)
        kind = kinds.IntDistribution if axis.is_whole else kinds.FloatDistribution
        return kind(axis.low, axis.high, log=axis.log)

    def _sampler(self) -> Any:
        search, samplers = self.search, self.optuna.samplers
        if search.method == "nsga2":
            return samplers.NSGAIISampler(seed=search.seed, population_size=search.generation)
        if search.method == "tpe":
            return samplers.TPESampler(seed=search.seed, constant_liar=True)
        if search.method == "cmaes":
            return samplers.CmaEsSampler(seed=search.seed)
        return samplers.RandomSampler(seed=search.seed)

    # ------------------------------------------------------------------ generations

    def run(self, *, limit: int | None = None, quiet: bool = False) -> tuple[Watch, frozenset[str]]:
        """Propose and run points; returns what was seen, and the keys of all its points.

        Parameters
        ----------
        limit
            Points at most that are run now; those that are stored do not count.
        """
        search = self.search
        directions = ["minimize"] * len(search.minimise) + ["maximize"] * len(search.maximise)
        study = self.optuna.create_study(directions=directions, sampler=self._sampler())
        watch = Watch(search.trials, goal_of(self.sweep.file), quiet=quiet)
        keys: set[str] = set()
        with watch:
            for start in range(0, search.trials, search.generation):
                size = min(search.generation, search.trials - start)
                trials = [study.ask(self.distributions) for _ in range(size)]
                points = [self._point(trial.params) for trial in trials]
                left = self._missing(points)
                if limit is not None:
                    left, cut = left[: limit - watch.done], len(left) > limit - watch.done
                else:
                    cut = False
                carry_out(Given(left), np.arange(len(left)), self.store, self.runner, watch)
                keys |= {point.key for point in points if point is not None}
                if cut:
                    break
                for trial, point in zip(trials, points, strict=True):
                    self._tell(study, trial, point)
                if self.unusable and not self.told:
                    raise self.unusable
        if not keys:
            raise InputError(f"{self.space.place('where')}: no proposal meets the constraints")
        return watch, frozenset(keys)

    def _point(self, params: dict[str, Any]) -> Point | None:
        """The point of a proposal; None where it does not meet the block's constraints."""
        values = {}
        for axis in self.space.axes:
            value = params[axis.name]
            values[axis.name] = axis.values[value] if axis.values and axis.is_ordered else value
        point = self.space.point(values)
        return None if point is None else self.keyed.point(point)

    def _missing(self, points: list[Point | None]) -> list[Point]:
        """Those that are to be run, each once."""
        some = {point.key: point for point in points if point is not None}
        known = self.store.index.status(list(some))
        return [
            point
            for key, point in some.items()
            if key not in known or (self.retry and known[key] == "failed")
        ]

    def _tell(self, study: Any, trial: Any, point: Point | None) -> None:
        """What came of a proposal; it failed if its point did, or lacks what is asked for."""
        record = self.store.read(point.key) if point is not None else None
        values = None
        if record is not None and record.status == "done":
            try:
                values = [self._number(record, name) for name in self.objectives]
                lacks = [self._lack(record, place) for place in range(len(self.constraints))]
            except InputError as error:
                self.unusable, values = error, None
        if values is None:
            study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            return
        self.told += 1
        for constraint, lack in zip(self.constraints, lacks, strict=True):
            trial.set_constraint(constraint.text, lack)
        study.tell(trial, values)

    def _number(self, record: Record, name: str) -> float:
        try:
            value = value_of(record, name)
        except KeyError:
            value = None
        if not isinstance(value, int | float) or not math.isfinite(value):
            there = ", ".join(record.measures)
            raise InputError(
                f"{self.sweep.place('search')}: {name!r} is no number of the report; short names "
                f"are {there}"
            )
        return float(value)

    def _lack(self, record: Record, place: int) -> float:
        try:
            return violation(self.constraints[place], lambda name: value_of(record, name))
        except InputError as error:
            raise InputError(
                f"{self.sweep.place('search', 'constraints', place)}: {error}"
            ) from None


class Given:
    """Points that are at hand, by their place."""

    def __init__(self, points: list[Point]) -> None:
        self.given = points

    def points(self, numbers: NDArray[np.int64]) -> Iterator[Point]:
        """Points by their numbers."""
        return (self.given[number] for number in numbers.tolist())


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("a search needs optuna: pip install 'sparqsim[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    import warnings

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def violation(expression: Expression, names: Callable[[str], Any]) -> float:
    """By how much a constraint is not met; 0 or less where it is.

    An order of two numbers says by how much; anything else is met or not.
    """
    node = expression.tree
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ORDERS):
        left, right = (
            Expression(ast.unparse(side)).value(names) for side in (node.left, node.comparators[0])
        )
        if isinstance(left, int | float) and isinstance(right, int | float):
            lack = left - right if isinstance(node.ops[0], ast.Lt | ast.LtE) else right - left
            strict = isinstance(node.ops[0], ast.Lt | ast.Gt)
            return float(lack) if lack or not strict else 1.0
    return 0.0 if expression.value(names) else 1.0
