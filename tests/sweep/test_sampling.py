"""Do values vary as the file says? Grids are whole, samples cover their space and repeat."""

from __future__ import annotations

import numpy as np
import pytest

from sparqsim.base import InputError
from sparqsim.scripts.sweep.file import Range, Sample, load
from sparqsim.scripts.sweep.plan import Plan
from sparqsim.scripts.sweep.sampling import Axis, Drawn, Grid, drawn, steps


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"from_": 2, "to": 8, "step": 3}, (2, 5, 8)),
        ({"from_": 0.1, "to": 0.3, "step": 0.1}, (0.1, 0.2, 0.30000000000000004)),
        ({"from_": 1, "to": 2, "count": 3}, (1, 2)),
        ({"from_": 1.0, "to": 2.0, "count": 3}, (1.0, 1.5, 2.0)),
        ({"from_": 2, "to": 256, "count": 8, "scale": "log"}, (2, 4, 8, 16, 32, 64, 128, 256)),
    ],
)
def test_a_range_has_both_its_ends(given: dict, values: tuple) -> None:
    """Whole numbers between whole numbers, none twice."""
    assert steps(Range(**given)) == values


def test_a_grid_is_every_combination_once() -> None:
    """The last axis is the fastest."""
    grid = Grid((Axis("a", (1, 2)), Axis("b", ("x", "y", "z"))))
    found = [grid[place] for place in range(grid.size)]
    assert found == [{"b": b, "a": a} for a in (1, 2) for b in "xyz"]


@pytest.mark.parametrize("kind", ["random", "latin-hypercube", "sobol"])
def test_a_sample_covers_its_space_and_repeats(kind: str) -> None:
    """Every value is within its ends; the same seed gives the same sample, another one another.

    A Latin hypercube has one point in each of ``count`` strips of each axis; so has a Sobol
    sequence at a power of two.
    """
    sample = Sample(kind=kind, count=64, seed=3)
    places = drawn(sample, 3)
    assert places.shape == (64, 3) and (places >= 0).all() and (places < 1).all()
    assert np.array_equal(places, drawn(sample, 3))
    assert not np.array_equal(places, drawn(Sample(kind=kind, count=64, seed=4), 3))
    strips = [len(set((axis * 64).astype(int))) for axis in places.T]
    assert (strips == [64] * 3) == (kind != "random")


def test_sampled_values_keep_to_their_axes() -> None:
    """Whole numbers reach both ends, a list has only its values, a log axis equal ratios."""
    axes = (
        Axis("whole", low=1, high=4),
        Axis("list", ("x", "y")),
        Axis("log", low=1.0, high=100.0, log=True),
    )
    sample = Drawn(axes, drawn(Sample(kind="sobol", count=256), 3))
    found = [sample[place] for place in range(256)]
    assert [sum(row["whole"] == n for row in found) for n in range(1, 5)] == [64] * 4
    assert sum(row["list"] == "x" for row in found) == 128
    assert sum(row["log"] < 10 for row in found) == 128


def test_a_sampled_block_meets_its_constraints_and_has_no_point_twice() -> None:
    """What is excluded and what was double is counted."""
    block = {
        "work": "gemm:16x16x16",
        "verify": False,
        "machine": {
            "name": "plain",
            "rows": {"from": 1, "to": 8},
            "columns": {"from": 1, "to": 8},
        },
        "where": ["rows <= columns"],
        "sample": {"kind": "latin-hypercube", "count": 200},
    }
    plan = Plan(load({"block": [block]}))
    shapes = [(p.fields["rows"], p.fields["columns"]) for p in plan.points(plan.numbers)]
    assert len(set(shapes)) == len(shapes) <= 36
    assert all(rows <= columns for rows, columns in shapes)
    assert plan.excluded and plan.doubled
    assert len(shapes) + plan.excluded + plan.doubled == 200


def test_a_constraint_may_ask_for_the_datasheet() -> None:
    """Area, peak and bandwidth of the configuration."""
    block = {
        "work": "eie/nt-we",
        "machine": {"name": "eie", "pes": [16, 64, 256]},
        "where": ["area_mm2 < 50", "peak_macs_per_s > 20e9"],
    }
    plan = Plan(load({"block": [block]}))
    assert [point.fields["pes"] for point in plan.points(plan.numbers)] == [64]


def test_a_key_is_of_what_the_result_hangs_on() -> None:
    """A default given is the same point; a field, the seed, a recipe, the work is another one; the
    seed of a run that needs no numbers is none."""

    def key(machine: dict | None = None, **more: object) -> str:
        fields = {"name": "plain", **(machine or {})}
        block = {"work": "gemm:16x16x16", "machine": fields, **more}
        plan = Plan(load({"block": [block]}))
        return plan.keys[0].decode()

    first = key()
    assert key({"rows": 16}) == first or key({"rows": 8}) != first
    others = [
        key({"rows": 3}),
        key(seed=1),
        key(recipe="w4a8"),
        key(work="gemm:16x16x17"),
        key(verify=False),
        key(requantize=True),
    ]
    assert len({first, *others}) == 7
    assert key(verify=False, seed=1) == key(verify=False)


def test_ambiguous_names_are_asked_about() -> None:
    """The end of a name will do, unless it is the end of two."""
    block = {
        "work": "gemm:16x16x16",
        "machine": {"name": "plain", "rows": 8},
        "variables": {"rows": 3},
        "where": ["rows > 2"],
    }
    with pytest.raises(InputError, match=r"'rows' may be .*machine.rows.*; say which"):
        Plan(load({"block": [block]}))
