"""Is the search exact: the best of all assignments, by counting them out?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads import compress, mixed_precision, recipes
from sparqsim.workloads.mixed_precision import (
    Option,
    cheapest_within_size,
    layer_options,
    mixed_recipe,
    noise_for_sqnr,
    quantizer_named,
    smallest_within_cost,
)
from sparqsim.workloads.models.real import Subject, subject
from sparqsim.workloads.quantize import sqnr_db
from sparqsim.workloads.recipes import as_toml, parse


@st.composite
def layer_tables(draw: st.DrawFn) -> dict[str, list[Option]]:
    """A few layers with a few options; sizes and costs repeat often."""
    costs = st.one_of(st.integers(0, 5).map(float), st.floats(0, 1, width=16))
    option = st.tuples(st.integers(0, 12), costs)
    rows = draw(st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=5))
    return {
        f"layer{i}": [Option(name=str(j), size_bits=s, cost=c) for j, (s, c) in enumerate(row)]
        for i, row in enumerate(rows)
    }


def _all(layers: dict[str, list[Option]]) -> list[tuple[int, float]]:
    choices = itertools.product(*layers.values())
    return [(sum(o.size_bits for o in c), sum(o.cost for o in c)) for c in choices]


@given(layer_tables(), st.integers(0, 60))
@settings(deadline=None)
def test_cheapest_within_size(layers: dict[str, list[Option]], room: int) -> None:
    """No assignment within the size costs less; of equal cost none is smaller."""
    everything = _all(layers)
    size = min(s for s, _ in everything) + room
    cost, smallest = min((c, s) for s, c in everything if s <= size)
    found = cheapest_within_size(layers, size)
    assert found.cost == pytest.approx(cost, abs=1e-12)
    assert found.size_bits <= size
    if all(c == int(c) for _, c in everything):
        assert found.size_bits == smallest


@given(layer_tables(), st.integers(0, 20))
@settings(deadline=None)
def test_smallest_within_cost(layers: dict[str, list[Option]], room: int) -> None:
    """No assignment within the cost is smaller; a budget that fits exactly fits."""
    everything = _all(layers)
    cost = min(c for _, c in everything) + room
    found = smallest_within_cost(layers, cost)
    assert found.size_bits == min(s for s, c in everything if c <= cost * (1 + 1e-12))
    assert found.cost <= cost * (1 + 1e-9)


def test_two_ways_meet_on_a_large_network() -> None:
    """150 layers of 6 widths: the two searches agree, within the budget, near the bound."""
    rng = np.random.default_rng(0)
    counts, weights = rng.integers(1000, 10**7, 150), rng.lognormal(size=150)
    layers = {
        f"layer{i}": [
            Option(name=f"int{b}", size_bits=int(n) * b, cost=float(n * s * 4.0**-b))
            for b in (2, 3, 4, 5, 6, 8)
        ]
        for i, (n, s) in enumerate(zip(counts, weights, strict=True))
    }
    size = sum(row[2].size_bits for row in layers.values())
    cheapest = cheapest_within_size(layers, size)
    assert 0.9999 * size < cheapest.size_bits <= size
    uniform = sum(row[2].cost for row in layers.values())
    assert cheapest.cost < uniform
    again = smallest_within_cost(layers, cheapest.cost)
    assert again.size_bits <= cheapest.size_bits
    assert cheapest_within_size(layers, again.size_bits).cost == pytest.approx(cheapest.cost)


def test_options_are_measured() -> None:
    """Size and cost are those of really quantizing; the sensitivity multiplies the cost."""
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(4, 32)), "b": rng.standard_t(3, (8, 16))}
    names = ("int2_signed", "int4_signed", "ant4", "olive4", "int8_signed")
    table = layer_options(weights, names, sensitivity={"b": 10.0})
    for layer, x in weights.items():
        for name, option in zip(names, table[layer], strict=True):
            q = quantizer_named(x, name).quantize(x)
            noise = np.square(x - q.dequantize()).sum()
            assert option.name == name and option.size_bits == q.bits()
            assert option.cost == pytest.approx(noise * (10 if layer == "b" else 1))
    signal = float(sum(np.square(x).sum() for x in weights.values()))
    plain = layer_options(weights, names)
    found = smallest_within_cost(plain, noise_for_sqnr(signal, 20))
    chosen = {layer: option.name for layer, option in found.options.items()}
    whole = np.concatenate([x.ravel() for x in weights.values()])
    rounded = [quantizer_named(x, chosen[layer]).round(x).ravel() for layer, x in weights.items()]
    assert sqnr_db(whole, np.concatenate(rounded)) >= 20
    assert mixed_precision.given(plain, chosen) == found


def test_bad_input() -> None:
    """What cannot be chosen is named."""
    layers = {"a": [Option(name="x", size_bits=8, cost=1.0)]}
    with pytest.raises(InputError, match="the smallest options need 8"):
        cheapest_within_size(layers, 7)
    with pytest.raises(InputError, match="the best options cost 1"):
        smallest_within_cost(layers, 0.5)
    with pytest.raises(InputError, match="nan is not possible"):
        smallest_within_cost(layers, float("nan"))
    with pytest.raises(InputError, match="at least one layer"):
        cheapest_within_size({}, 7)
    with pytest.raises(InputError, match="layer a must have at least one option"):
        cheapest_within_size({"a": []}, 7)
    with pytest.raises(InputError, match="must differ"):
        cheapest_within_size({"a": layers["a"] * 2}, 70)
    with pytest.raises(InputError, match="no layer b"):
        mixed_precision.given(layers, {"a": "x", "b": "x"})
    with pytest.raises(InputError, match="layer a is not assigned"):
        mixed_precision.given(layers, {})
    with pytest.raises(InputError, match="no option y; it has x"):
        mixed_precision.given(layers, {"a": "y"})
    with pytest.raises(InputError, match="cost must be finite"):
        Option(name="x", size_bits=1, cost=float("nan"))
    with pytest.raises(InputError, match="size_bits must be"):
        Option(name="x", size_bits=-1, cost=0.0)
    with pytest.raises(InputError, match="layer bad as int4_signed: a tensor"):
        layer_options({"bad": np.array([[np.nan, 1.0]])}, ["int4_signed"])
    with pytest.raises(InputError, match="names c, which is no layer"):
        layer_options({"a": np.ones((1, 2))}, ["int4_signed"], sensitivity={"c": 1.0})
    with pytest.raises(InputError, match="sensitivity of a must"):
        layer_options({"a": np.ones((1, 2))}, ["int4_signed"], sensitivity={"a": -1.0})


# ------------------------------------------------------------------ a recipe in a budget


def _subject() -> Subject:
    return subject("digits-cnn")


@pytest.mark.parametrize("bits", [2.5, 4.0, 6.0])
def test_a_recipe_keeps_its_budget_and_runs_as_said(bits: float) -> None:
    """What the recipe stores is within the budget, and no exchange of one layer does better."""
    network, choices = _subject(), ("int2", "int4", "int8")
    base = recipes.get("int8")
    made = mixed_recipe(network, base, choices, bits)
    _, report, parts = compress.compress(network, made, judge=False)
    weights = sum(weight.size for weight in network.weights.values())
    assert sum(part.bits for part in parts.values()) <= bits * weights
    assert {row.format for row in report.tensors} <= {f"{each}_signed" for each in choices}
    assert parse(as_toml(made), "made") == made


def test_more_bits_never_cost_more_noise() -> None:
    """A larger budget allows every smaller one's choice."""
    network = _subject()
    base = recipes.get("int8")
    noise = []
    for bits in (2.3, 3.0, 4.5, 8.5):
        made = mixed_recipe(network, base, ("int2", "int3", "int4", "int8"), bits)
        compressed, _, _ = compress.compress(network, made, judge=False)
        seen, weights = network.capture(), compressed.weights()
        noise.append(sum(
            float(np.mean(np.square(seen[name], dtype=np.float64)))
            * float(np.square(weight - weights[name], dtype=np.float64).sum())
            for name, weight in network.weights.items()
        ))  # fmt: skip
    assert all(later <= before for before, later in itertools.pairwise(noise))


def test_budgets_that_cannot_be() -> None:
    """Too few bits, no format or an unknown one is named before anything is written."""
    network, base = _subject(), recipes.get("int8")
    with pytest.raises(InputError, match=r"a budget of 1 bits per weight is not.* at least"):
        mixed_recipe(network, base, ("int2", "int4"), 1)
    with pytest.raises(InputError, match="at least one format"):
        mixed_recipe(network, base, (), 4)
    with pytest.raises(InputError, match="layer conv1 as nope"):
        mixed_recipe(network, base, ("nope",), 4)


@pytest.mark.parametrize("name", sorted(recipes.named()))
def test_a_recipe_is_its_text(name: str) -> None:
    """What is written of a recipe is read back equal."""
    recipe = recipes.get(name)
    assert parse(as_toml(recipe), "written") == recipe
