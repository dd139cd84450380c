"""Mixed precision: which layer gets which format, given or searched under a budget.

Each layer offers a few `Option`s: a size in bits and a cost. The cost stands for accuracy; it is
the quantization noise, weighted: ``sensitivity * sum (w - w')^2``. Noise of different layers adds
to first order, so a network's cost is the sum of its layers'. The sensitivity is 1, or what the
user knows of the layer: a mean of the loss' second derivative, the mean square of its inputs, or a
measured change of the loss (HAWQ, ICCV 2019). Left out: interactions between layers.

To choose one option a layer with the least cost within a size (or the least size within a cost) is
the multiple-choice knapsack problem. `cheapest_within_size` and `smallest_within_cost` are exact:
dynamic programming over the layers that keeps the Pareto front of (size, cost), cut by a bound.
What is left to do costs at least its Lagrangian relaxation, and a front entry that cannot, with
that, beat the best known choice is dropped.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.adaptive import fit_ant, fit_olive
from sparqsim.workloads.calibrate import Method
from sparqsim.workloads.compress import compress_weight, stored
from sparqsim.workloads.formats import Format
from sparqsim.workloads.models.real import Subject
from sparqsim.workloads.quantize import QuantizedTensor, Quantizer, fit
from sparqsim.workloads.recipes import Override, Recipe

MOST_STATES = 2_000_000  # assumed: about 100 MB of front; real networks need some thousands


class Option(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to hold a layer.

    Attributes
    ----------
    name
        Of the format or recipe.
    size_bits
        Of the whole layer.
    cost
        What it does to the network, at least 0; adds over layers.
    """

    name: str
    size_bits: int
    cost: float

    def __post_init__(self) -> None:
        if self.size_bits < 0:
            raise InputError(f"option {self.name}: size_bits must be >= 0, got {self.size_bits}")
        if not 0 <= self.cost < np.inf:
            raise InputError(f"option {self.name}: cost must be finite and >= 0, got {self.cost}")


@dataclass(frozen=True)
class Assignment:
    """The chosen option of each layer."""

    options: Mapping[str, Option]

    @property
    def size_bits(self) -> int:
        """Of all layers."""
        return sum(option.size_bits for option in self.options.values())

    @property
    def cost(self) -> float:
        """Of all layers."""
        return float(sum(option.cost for option in self.options.values()))


Layers = Mapping[str, Sequence[Option]]


def _checked(layers: Layers) -> None:
    if not layers:
        raise InputError("mixed precision needs at least one layer, got none")
    for layer, options in layers.items():
        if not options:
            raise InputError(f"layer {layer} must have at least one option, got none")
        names = [option.name for option in options]
        if len(set(names)) != len(names):
            raise InputError(f"layer {layer}: the names of its options must differ, got {names}")


def given(layers: Layers, names: Mapping[str, str]) -> Assignment:
    """The assignment that ``names`` (layer -> option's name) spells out.

    Raises
    ------
    InputError
        If a layer is missing or unknown, or has no such option.
    """
    _checked(layers)
    if unknown := sorted(names.keys() - layers.keys()):
        raise InputError(f"there is no layer {unknown[0]}; layers are {', '.join(layers)}")
    chosen = {}
    for layer, options in layers.items():
        if layer not in names:
            raise InputError(f"layer {layer} is not assigned; name one of its options")
        found = [option for option in options if option.name == names[layer]]
        if not found:
            known = ", ".join(option.name for option in options)
            raise InputError(f"layer {layer} has no option {names[layer]}; it has {known}")
        chosen[layer] = found[0]
    return Assignment(chosen)


def cheapest_within_size(layers: Layers, size_bits: int) -> Assignment:
    """The assignment of least cost with at most ``size_bits``; the smaller at equal cost.

    Raises
    ------
    InputError
        If even the smallest options exceed the size, or the search outgrows memory.
    """
    _checked(layers)
    least = sum(min(option.size_bits for option in options) for options in layers.values())
    if size_bits < least:
        raise InputError(
            f"a size of {size_bits} bits is not possible: the smallest options need {least}"
        )
    return _solve(
        layers,
        [np.array([float(o.size_bits) for o in options]) for options in layers.values()],
        [np.array([o.cost for o in options]) for options in layers.values()],
        float(size_bits),
    )


def smallest_within_cost(layers: Layers, cost: float) -> Assignment:
    """The smallest assignment that costs at most ``cost``; the cheaper at equal size.

    Raises
    ------
    InputError
        If even the best options cost more, or the search outgrows memory.
    """
    _checked(layers)
    least = sum(min(option.cost for option in options) for options in layers.values())
    if not cost >= least * (1 - 1e-12):
        raise InputError(f"a cost of {cost:g} is not possible: the best options cost {least:g}")
    return _solve(
        layers,
        [np.array([o.cost for o in options]) for options in layers.values()],
        [np.array([float(o.size_bits) for o in options]) for options in layers.values()],
        max(cost, least) * (1 + 1e-12),  # sums round; a budget that fits exactly must fit
    )


def noise_for_sqnr(signal: float, sqnr_db: float) -> float:
    """The noise power (a cost of sensitivity 1) at which ``signal`` has ``sqnr_db``."""
    return signal / 10 ** (sqnr_db / 10)


def _relaxed(
    weights: list[NDArray[np.float64]], costs: list[NDArray[np.float64]], budget: float
) -> tuple[float, list[int]]:
    """The multiplier whose cheapest choice just keeps the budget, and that choice.

    With a price on weight each layer picks alone; the price is found by bisection. Among picks of
    one price the lightest is taken, so the choice at the upper price keeps the budget.
    """

    def pick(price: float) -> list[int]:
        return [int(np.lexsort((w, c + price * w))[0]) for w, c in zip(weights, costs, strict=True)]

    def weight(choice: list[int]) -> float:
        return float(sum(w[i] for w, i in zip(weights, choice, strict=True)))

    choice = pick(0.0)
    if weight(choice) <= budget:
        return 0.0, choice
    low, high = 0.0, 1e-30
    while weight(pick(high)) > budget and high < 1e280:
        low, high = high, high * 16
    for _ in range(100):
        middle = (low + high) / 2
        if weight(pick(middle)) > budget:
            low = middle
        else:
            high = middle
    choice = pick(high)
    if weight(choice) > budget:  # prices ran out: the lightest of all
        choice = [int(np.lexsort((c, w))[0]) for w, c in zip(weights, costs, strict=True)]
    return high, choice


def _solve(
    layers: Layers,
    weights: list[NDArray[np.float64]],
    costs: list[NDArray[np.float64]],
    budget: float,
) -> Assignment:
    """Least total cost with total weight at most ``budget``: exact; a choice exists."""
    price, known = _relaxed(weights, costs, budget)
    best = float(sum(c[i] for c, i in zip(costs, known, strict=True)))
    count = len(weights)
    # What the layers from i on weigh at least, and cost at least once weight has its price.
    lightest = np.zeros(count + 1)
    priced = np.zeros(count + 1)
    for i in reversed(range(count)):
        lightest[i] = lightest[i + 1] + weights[i].min()
        priced[i] = priced[i + 1] + (costs[i] + price * weights[i]).min()
    slack = 1e-9 * (abs(best) + price * budget)
    weight, cost = np.zeros(1), np.zeros(1)
    trail: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for i, (w, c) in enumerate(zip(weights, costs, strict=True)):
        new_weight = (weight[:, None] + w).ravel()
        new_cost = (cost[:, None] + c).ravel()
        bound = new_cost + priced[i + 1] - price * (budget - new_weight)
        room = new_weight + lightest[i + 1] <= budget * (1 + 1e-15)
        alive = np.flatnonzero(room & (bound <= best + slack))
        alive = alive[np.lexsort((new_cost[alive], new_weight[alive]))]
        lowest = np.minimum.accumulate(new_cost[alive])
        front = np.ones(len(alive), bool)
        front[1:] = lowest[1:] < lowest[:-1]
        alive = alive[front]
        if len(alive) > MOST_STATES:
            raise InputError(
                f"the exact search holds {len(alive)} choices after {i + 1} of {count} layers; "
                "offer fewer options or round the costs"
            )
        trail.append((alive // len(w), alive % len(w)))
        weight, cost = new_weight[alive], new_cost[alive]
    state = len(cost) - 1  # the heaviest of the front is the cheapest
    chosen: list[int] = []
    for parent, option in reversed(trail):
        chosen.append(int(option[state]))
        state = int(parent[state])
    names = zip(layers.items(), reversed(chosen), strict=True)
    return Assignment({layer: options[index] for (layer, options), index in names})


def quantizer_named(
    x: NDArray[np.floating],
    name: str | Format,
    *,
    method: str | Method = "mse",
    axis: int | None = 0,
    group: int | None = None,
) -> Quantizer:
    """Fit what a name says: ``ant4`` and ``olive4`` (any width), else a format by ``method``."""
    if isinstance(name, str):
        for kind, search in (("ant", fit_ant), ("olive", fit_olive)):
            if name.startswith(kind) and name[len(kind) :].isdigit():
                return search(x, int(name[len(kind) :]), axis=axis, group=group)
    return fit(x, name, method=method, axis=axis, group=group)


def layer_options(
    weights: Mapping[str, NDArray[np.floating]],
    names: Sequence[str],
    *,
    method: str | Method = "mse",
    axis: int | None = 0,
    group: int | None = None,
    sensitivity: Mapping[str, float] | None = None,
) -> dict[str, tuple[Option, ...]]:
    """Quantize each layer each way; the size and noise of it.

    Parameters
    ----------
    weights
        Layer -> tensor.
    names
        What each layer may become; see `quantizer_named`.
    sensitivity
        Layer -> factor on its noise; 1 where it says nothing.

    Raises
    ------
    InputError
        As `fit`, naming the layer; or if a sensitivity is negative or names no layer.
    """
    factors = dict(sensitivity or {})
    if unknown := sorted(factors.keys() - weights.keys()):
        raise InputError(f"sensitivity names {unknown[0]}, which is no layer")
    result = {}
    for layer, x in weights.items():
        factor = factors.get(layer, 1.0)
        if not 0 <= factor < np.inf:
            raise InputError(f"the sensitivity of {layer} must be finite and >= 0, got {factor}")
        options = []
        for name in names:
            try:
                quantizer = quantizer_named(x, name, method=method, axis=axis, group=group)
            except InputError as error:
                raise InputError(f"layer {layer} as {name}: {error}") from None
            quantized = quantizer.quantize(x)
            noise = float(np.square(x - quantized.dequantize(), dtype=np.float64).sum())
            options.append(Option(name=name, size_bits=quantized.bits(), cost=factor * noise))
        result[layer] = tuple(options)
    return result


MOST_BITS = 64  # derived: a value of 32 bits with an index as wide


def mixed_recipe(
    subject: Subject,
    recipe: Recipe,
    choices: Sequence[str],
    bits: float,
    progress: Callable[[str, int, int], None] | None = None,
) -> Recipe:
    """A recipe that gives each weight one of several formats, with the least noise in a budget.

    Parameters
    ----------
    subject
        The network; where it is known what a layer reads, the mean square of that is the layer's
        sensitivity, so that the noise is that of the layer's outputs.
    recipe
        Pruning, granularity and calibration of each weight, and what is done to activations.
    choices
        Formats, as a recipe names them.
    bits
        Stored bits per weight, on average over the network, with scales, indices and all.

    Raises
    ------
    InputError
        If no choice suits a weight, the budget is below the least size, or there are no choices.
    """
    if not choices:
        raise InputError("mixed precision needs at least one format to choose from")
    if not 0 < bits <= MOST_BITS:
        raise InputError(f"a budget must be above 0 and at most {MOST_BITS} bits, got {bits:g}")
    captured = subject.capture() if subject.layers else {}
    layers: dict[str, tuple[Option, ...]] = {}
    for done, (name, weight) in enumerate(subject.weights.items()):
        if progress is not None:
            progress(name, done, len(subject.weights))
        kind = subject.kind(name)
        asked = recipe.of(kind, name)
        seen = captured.get(name)
        factor = 1.0 if seen is None else float(np.mean(np.square(seen, dtype=np.float64)))
        options = []
        for choice in choices:
            try:
                made = compress_weight(weight, msgspec.structs.replace(asked, format=choice))
            except InputError as error:
                raise InputError(f"layer {name} as {choice}: {error}") from None
            back = made.dequantize() if isinstance(made, QuantizedTensor) else made
            noise = float(np.square(weight - back, dtype=np.float64).sum())
            size = stored(made, weight, asked).bits
            options.append(Option(name=choice, size_bits=size, cost=factor * noise))
        layers[name] = tuple(options)
    weights = sum(weight.size for weight in subject.weights.values())
    least = sum(min(option.size_bits for option in options) for options in layers.values())
    if bits * weights < least:
        raise InputError(
            f"a budget of {bits:g} bits per weight is not possible: with {', '.join(choices)} it "
            f"takes {least / weights:.3f} at least"
        )
    found = cheapest_within_size(layers, int(bits * weights))
    overrides = []
    for name, option in found.options.items():
        kind = subject.kind(name)
        asked = recipe.of(kind, name)
        chosen = msgspec.structs.replace(asked, format=option.name)
        overrides.append(Override(layers=glob.escape(name), **{kind: chosen}))
    return Recipe(
        name=f"{recipe.name}-{bits:g}b",
        description=f"{recipe.name} with {bits:g} bits per weight, among {', '.join(choices)}",
        weights=recipe.weights,
        activations=recipe.activations,
        embeddings=recipe.embeddings,
        override=(*recipe.override, *overrides),
    )
