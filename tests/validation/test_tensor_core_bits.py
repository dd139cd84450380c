"""Is the MAC core a real H100's tensor core, bit by bit? Measured sums, on all three roads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.scripts.validation import tensor_core_bits as bits
from sparqsim.simulator.mac import sparse_tensor_core as mac

ABOUT, MEASURED, UNKNOWN = bits.read(bits.REFERENCE)
ALL = [pytest.param(each, id=f"{each.instruction} {each.format} {each.draw}") for each in MEASURED]


def test_every_kind_was_measured() -> None:
    """Dense and 2:4, chains of wgmma; draws of every kind, on the card that is named."""
    kinds: dict[tuple[str, str], set[str]] = {}
    for each in MEASURED:
        draws = kinds.setdefault((each.instruction, each.format), set())
        draws.add(each.draw.partition("-")[0])
    sixteen, eight = ("fp16", "bf16"), ("e4m3", "e5m2")
    assert kinds.keys() == {
        *((instruction, name) for instruction in ("mma", "mma.sp") for name in (*sixteen, "tf32")),
        *(("wgmma", name) for name in (*sixteen, "tf32", *eight)),
        *(("wgmma.sp", name) for name in (*sixteen, *eight)),
    }
    assert all({"wide", "cancel", "least"} <= draws for draws in kinds.values())
    assert "H100" in ABOUT["device"] and not UNKNOWN
    assert sum(each.sums.size for each in MEASURED) > 6000
    assert sum(int(np.isinf(each.sums).sum()) for each in MEASURED) > 20


@pytest.mark.parametrize("measured", ALL)
def test_the_kernel_is_the_card(measured: bits.Measured) -> None:
    """Every sum has the card's bits, those that are infinite too."""
    row = bits.compare(measured)
    assert row.held and row.equal == row.sums == measured.sums.size


def by_the_third_road(measured: bits.Measured) -> NDArray[np.float64]:
    """Sums of the first tile, a block over arrays after another."""
    cores, kind, (kept, group) = measured.cores, bits.kind_of(measured.format), measured.kept
    rows, columns = (each.ravel() for each in np.indices(measured.sums.shape[1:]))
    left = measured.left[0].astype(float)[rows]
    at = np.arange(left.shape[1]) // kept * group + measured.places[0][rows]
    right = np.take_along_axis(measured.right[0].astype(float)[columns], at, axis=1)
    total = measured.start[0].astype(float).ravel()
    for low in range(0, left.shape[1], cores.block):
        span = slice(low, low + cores.block)
        total = mac.add_block(
            total, left[:, span], right[:, span], kind.least, cores.fraction_bits, kind.sum_bits
        )
    return total.reshape(measured.sums.shape[1:])


@pytest.mark.parametrize("measured", ALL)
def test_the_other_roads_are_the_card(measured: bits.Measured) -> None:
    """So have the plain twin's, of a corner of a tile, and those of the third road, of a tile."""
    corner = msgspec.structs.replace(
        measured,
        left=measured.left[:1, :2],
        right=measured.right[:1, :3],
        places=measured.places[:1, :2],
        start=measured.start[:1, :2, :3],
        sums=measured.sums[:1, :2, :3],
    )
    assert (corner.again(mac.multiply_floats_plain) == corner.sums).all()
    assert (by_the_third_road(measured) == measured.sums[0]).all()


@pytest.mark.parametrize("top", [-600, -134, -132])
def test_no_other_least_alignment_is_the_card(top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny sums of 8-bit exponents: the card aligns a block to 2^-133 at the least."""
    tiles = [
        msgspec.structs.replace(
            each,
            **{name: getattr(each, name)[i : i + 1] for name in ("left", "right", "places")},
            **{name: getattr(each, name)[i : i + 1] for name in ("start", "sums")},
        )
        for each in MEASURED
        if each.draw.startswith("least") and each.format in ("bf16", "tf32")
        for i in range(len(each.sums))
    ]

    def equal() -> bool:
        return all((by_the_third_road(each) == each.sums[0]).all() for each in tiles)

    assert equal()
    monkeypatch.setattr(mac, "LEAST_TOP", top)
    assert not equal()


@pytest.mark.parametrize("format_", ["fp16", "bf16", "tf32", "e4m3", "e5m2"])
def test_no_other_rule_is_the_card(format_: str) -> None:
    """A block half or twice as long, or one bit more or less at either cut, is told from it."""
    some = [
        each
        for each in MEASURED
        if each.format == format_ and each.draw.partition("-")[0] in ("narrow", "wide", "cancel")
    ]
    cores = some[0].cores
    rule = (cores.block, cores.fraction_bits, cores.kind.sum_bits)

    def equal(block: int, fraction_bits: int, sum_bits: int) -> float:
        def multiply(*given: Any) -> None:
            mac.multiply_floats(*given[:-4], block, fraction_bits, sum_bits, given[-1])

        same = [(each.again(multiply) == each.sums).mean() for each in some]
        return float(np.mean(same))

    assert equal(*rule) == 1
    others = [(rule[0] // 2, *rule[1:])]
    others += [(rule[0], rule[1] + by, rule[2]) for by in (-1, 1)]
    others += [(*rule[:2], rule[2] - 1)]
    assert max(equal(*other) for other in others) < 0.99
    some = [each for each in some if each.instruction == "wgmma"]  # a chain of several blocks
    assert equal(2 * rule[0], *rule[1:]) < 0.99


def test_files_that_hold_no_such_sums_are_refused(tmp_path: Path) -> None:
    """The message says what a file has to hold; formats the machine lacks are named."""
    about = np.array(json.dumps({"device": "H100"}))
    path = tmp_path / "bits.npz"
    one = {"a": np.zeros((1, 2, 4), np.uint16), "b": np.zeros((1, 3, 4), np.uint16),
           "c": np.zeros((1, 2, 3), np.float32), "d": np.zeros((1, 2, 3), np.float32)}  # fmt: skip

    def saved(draw: str, **arrays: Any) -> Path:
        np.savez(path, about=about, **{f"{draw}/{name}": each for name, each in arrays.items()})
        return path

    _, found, unknown = bits.read(saved("mma/fp16/x", **one))
    assert bits.compare(found[0]).held and not unknown
    with pytest.raises(InputError, match="in one of fp16, bf16"):
        bits.read(saved("mma/e9m9/x", **one))
    with pytest.raises(InputError, match="places as a"):
        bits.read(saved("mma/fp16/x", **one | {"d": np.zeros((1, 2, 4), np.float32)}))
    with pytest.raises(InputError, match="2 of 4 must be kept"):
        bits.read(saved("mma/fp16/x", **one | {"b": np.zeros((1, 3, 9), np.uint16)}))
    with pytest.raises(InputError, match="with a, b, c, d"):
        bits.read(saved("mma/fp16/x", a=one["a"]))
    wrong = saved("mma/fp16/x", **one | {"d": np.ones((1, 2, 3), np.float32)})
    assert not bits.compare(bits.read(wrong)[1][0]).held
    about = np.array("no JSON")
    with pytest.raises(InputError, match="in JSON"):
        bits.read(saved("mma/fp16/x", **one))
