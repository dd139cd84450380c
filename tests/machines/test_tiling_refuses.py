"""Is what no array can be, and no tile can hold, refused, with what must hold?"""

from __future__ import annotations

import math

import msgspec
import pytest
from array_rules import AUTHORS, ORDER, RATES, RULES
from msgspec.structs import replace

from sparqsim.architectures.arrays.cost import cost
from sparqsim.architectures.arrays.rules import BankTimes
from sparqsim.architectures.arrays.shapes import ConvShape, Loop, Mapping, Tile
from sparqsim.base import InputError


def test_a_tile_must_fit_its_buffer_and_its_layer() -> None:
    """Both errors say which loop or buffer, what it needs and what there is."""
    shape = ConvShape(batch=3, in_channels=32, out_channels=8)
    tile = Tile(batch=3, out_width=1, out_height=1, in_channels=32, out_channels=8)
    small = replace(RULES, weight_usable_bits=2047)
    mapping = Mapping(tile=tile, order=ORDER, kept=(0, 0, 0))
    with pytest.raises(InputError, match="weights kept must fit the usable 2047 bits"):
        cost(shape, small, mapping)
    with pytest.raises(InputError, match="tile of 4 along BATCH exceeds the layer's 3"):
        cost(shape, RULES, replace(mapping, tile=replace(tile, batch=4)))
    half = replace(mapping, tile=replace(tile, batch=1), kept=(5, 0, 0))
    with pytest.raises(InputError, match=r"inputs kept .* keep them for fewer loops than 5"):
        cost(shape, replace(RULES, input_usable_bits=300), half)


@pytest.mark.parametrize("bad", [0, -1, 1.0, math.nan, True, "1", None])
@pytest.mark.parametrize("field", ["batch", "kernel_width", "in_channels", "groups"])
def test_shapes_reject_what_is_not_a_count(field: str, bad: object) -> None:
    """A shape is whole numbers of at least 1, at birth."""
    fields = {"batch": 1, "in_channels": 1, "out_channels": 1, field: bad}
    with pytest.raises(InputError, match=f"ConvShape.{field} must be a whole number"):
        ConvShape(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_bits": 0}, "ArrayRules.input_bits"),
        ({"dram_bits": math.inf}, "ArrayRules.dram_bits"),
        ({"drain_cycles": -1}, "ArrayRules.drain_cycles"),
        ({"exchange_cycles": -1}, "ArrayRules.exchange_cycles"),
        ({"exchange_cycles": 12}, "exchange_cycles must be at most drain_cycles"),
        ({"exchange_cycles": 8}, "say what streams"),
        ({"drain": 2}, "ArrayRules.drain must be one of Drain.s NONE, "),
        ({"streams": "rows"}, "ArrayRules.streams must be one of Side.s PIXELS"),
        ({"skewed": "rows"}, "ArrayRules.skewed must be one of Side.s PIXELS"),
        ({"taps_joined": 1}, "ArrayRules.taps_joined must be true or false"),
        ({"weights_of_group": 2}, "must be at most weight_group"),
    ],
)
def test_rules_reject_nonsense(changes: dict[str, object], message: str) -> None:
    """Rules are checked at birth, choices are of their type."""
    with pytest.raises(InputError, match=message):
        replace(RULES, **changes)
    with pytest.raises(InputError, match=r"AuthorsModel.layout must be one of Layout.s PATCH"):
        replace(AUTHORS, layout="im2col")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"burst_bits": 0}, "BankTimes.burst_bits must be a whole number"),
        ({"transfer": 0.0}, "BankTimes.transfer and round must be above 0"),
        ({"refresh": 8.0, "every": 8.0}, "refresh at least 0 and less than"),
        ({"turn": -1.0}, "BankTimes.turn must be a finite number of cycles"),
        ({"load": math.nan}, "BankTimes.load must be a finite number of cycles"),
    ],
)
def test_times_of_banks_reject_nonsense(changes: dict[str, float], message: str) -> None:
    """Rules that have them check them."""
    with pytest.raises(InputError, match=message):
        replace(RULES, banks=BankTimes()._replace(**changes))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, "1"])
def test_rates_reject_what_is_not_an_energy(bad: object) -> None:
    """A rate is a finite number of pJ, at least 0."""
    with pytest.raises(InputError, match=r"Rates.dram_read must be a finite number"):
        replace(RATES, dram_read=bad)


def test_orders_and_fields_are_checked() -> None:
    """An order names every loop once; unknown keys are refused when read from a file."""
    tile = Tile(batch=1, out_width=1, out_height=1, in_channels=1, out_channels=1)
    with pytest.raises(InputError, match="each of the five loops once"):
        Mapping(tile=tile, order=(Loop.BATCH,) * 5, kept=(0, 0, 0))
    with pytest.raises(InputError, match=r"Mapping.kept must be three numbers from 0 to 5"):
        Mapping(tile=tile, order=ORDER, kept=(0, 6, 0))
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"batch": 1, "in_channels": 1, "out_channels": 1, "pad": 1}, ConvShape)
