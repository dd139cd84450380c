"""Netlists of single processing elements, which prove the closed forms of :mod:`.folds`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.folds import Charge, Dataflow, Folds, SystolicGrid
from sparqsim.base import InputError
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern

Ints = NDArray[np.int64]


def _later(flags: Ints, free: int) -> Ints:
    """The flags without the first ``free`` that are set: so many places are free at the start."""
    waits = flags.copy()
    waits[np.flatnonzero(flags)[:free]] = 0
    return waits


def accumulator_netlist(*, rows: int, columns: int, steps: int, tiles: int) -> Netlist:
    """Single elements of an array whose columns sum into accumulators, as Bit Fusion's.

    Actor ``row r`` has one lane per element; inputs shift from lane to lane, partial sums go down.
    Actor ``accumulators`` adds a column's sum every step; its firing ``(t + 1) steps - 1`` ends
    tile ``t``.
    """
    count = steps * tiles
    actors = [Actor(name=f"row {r}", lanes=columns, firings=count) for r in range(rows)]
    actors.append(Actor(name="accumulators", lanes=columns, firings=count))
    channels = [_shifted(f"inputs {r}", f"row {r}", 2) for r in range(rows)]
    channels += [
        Channel(name=f"sums {r}", source=f"row {r}", target=actors[r + 1].name, capacity=2)
        for r in range(rows)
    ]
    return Netlist(actors=actors, channels=channels, name="accumulating array")


def _shifted(name: str, actor: str, capacity: int) -> Channel:
    return Channel(
        name=name, source=actor, target=actor, capacity=capacity, pattern=Pattern.SHIFT, offset=1
    )


def element_netlist(grid: SystolicGrid, folds: Folds) -> Netlist:
    """Single elements of a grid working through the folds of a product.

    Actor ``row r`` has one lane per element and fires once a step. Both moving operands (or one and
    the partial sums) come from the left and from above, so operands enter skewed of themselves.
    A stationary operand comes in from the top through ``load r``, an element's next value waiting
    in it beside the one in use. Charged per fold, a fold begins when the last result of the one
    before is there; else folds follow each other, and the sums of an output-stationary grid
    leave through ``out r`` at the bottom, one row per cycle.

    Raises
    ------
    InputError
        If only one of two overheads is charged per fold.
    """
    rows, columns, count = grid.rows, grid.columns, folds.count
    stationary = grid.dataflow is not Dataflow.OUTPUT_STATIONARY
    apart = grid.skew is Charge.PER_FOLD
    if stationary and (grid.load is Charge.PER_FOLD) != apart:
        raise InputError("elements load and drain per fold both, or neither: charge them alike")
    first = np.tile(np.arange(folds.steps) == 0, count).astype(np.int64)
    last = np.tile(np.arange(folds.steps) == folds.steps - 1, count).astype(np.int64)
    actors = [Actor(name=f"row {r}", lanes=columns, firings=len(first)) for r in range(rows)]
    channels = [_shifted(f"right {r}", f"row {r}", 2) for r in range(rows) if columns > 1]
    channels += [
        Channel(name=f"down {r}", source=f"row {r}", target=f"row {r + 1}", capacity=2)
        for r in range(rows - 1)
    ]
    begins = "row 0"
    begin = _later(first, 1)
    if stationary:
        begins = "load 0"
        for r in range(rows):
            through = np.arange(count * (rows - r)) % (rows - r)
            keeps = (through == rows - r - 1).astype(np.int64)
            actors.append(Actor(name=f"load {r}", lanes=columns, firings=len(through)))
            channels.append(
                Channel(
                    name=f"held {r}",
                    source=f"load {r}",
                    target=f"row {r}",
                    capacity=1,
                    produce=keeps,
                    consume=first,
                )
            )
            if r + 1 < rows:
                channels.append(
                    Channel(
                        name=f"load {r} down",
                        source=f"load {r}",
                        target=f"load {r + 1}",
                        capacity=2,
                        produce=1 - keeps,
                    )
                )
        begin = _later((np.arange(count * rows) % rows == 0).astype(np.int64), 1)
    elif not apart:
        for r in range(rows):
            own = (np.arange(count * (r + 1)) % (r + 1) == 0).astype(np.int64)
            actors.append(Actor(name=f"out {r}", lanes=columns, firings=len(own)))
            channels.append(
                Channel(
                    name=f"result {r}",
                    source=f"row {r}",
                    target=f"out {r}",
                    capacity=1,
                    produce=last,
                    consume=own,
                )
            )
            if r:
                channels.append(
                    Channel(
                        name=f"out {r - 1} down",
                        source=f"out {r - 1}",
                        target=f"out {r}",
                        capacity=2,
                        consume=1 - own,
                    )
                )
    if apart and count > 1:
        channels.append(
            Channel(
                name="fold done",
                source=f"row {rows - 1}",
                target=begins,
                capacity=2,
                pattern=Pattern.SHIFT,
                offset=1 - columns,
                produce=last,
                consume=begin,
            )
        )
    return Netlist(actors=actors, channels=channels, name=f"{grid.dataflow} elements")
