"""Do SRAM accesses take the cycles their conflicts say, in closed form and in a netlist?"""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.memory.sram import Sram
from sparqsim.simulator.netlist import Actor, Netlist


@st.composite
def accesses(draw) -> tuple[Sram, np.ndarray]:
    sram = Sram(
        capacity_bytes=4096 * draw(st.sampled_from([1, 3])),
        width_bits=draw(st.sampled_from([8, 32, 64])),
        banks=draw(st.sampled_from([1, 2, 4, 8])),
        ports=draw(st.integers(1, 3)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    high = draw(st.sampled_from([3, sram.words]))
    return sram, rng.integers(0, high, shape)


@given(accesses())
def test_conflicts_are_those_of_the_busiest_bank(case: tuple[Sram, np.ndarray]) -> None:
    """max over banks of ceil(accesses / ports), counted one by one."""
    sram, words = case
    counted = [
        max(-(-times // sram.ports) for times in Counter(w % sram.banks for w in group).values())
        for group in words.tolist()
    ]
    assert sram.conflict_cycles(words).tolist() == counted


@given(accesses())
def test_requests_name_the_bank_and_spread_over_ports(case: tuple[Sram, np.ndarray]) -> None:
    """Each access goes to a port of its bank; the ports of a bank are used evenly."""
    sram, words = case
    servers = sram.requests(words)[..., 0]
    np.testing.assert_array_equal(servers // sram.ports, words % sram.banks)
    for group in servers.tolist():
        used = Counter(group)
        for bank in range(sram.banks):
            times = [used[bank * sram.ports + port] for port in range(sram.ports)]
            assert max(times) - min(times) <= 1
    one_each = sram.requests(words.ravel())[..., 0]
    np.testing.assert_array_equal(one_each // sram.ports, words.ravel() % sram.banks)


@settings(max_examples=40, deadline=None)
@given(accesses())
def test_netlist_takes_the_conflict_cycles(case: tuple[Sram, np.ndarray]) -> None:
    """Lanes that access together end after the closed form's cycles, on both engines."""
    sram, words = case
    for group in words:
        readers = Actor(
            name="read",
            lanes=len(group),
            firings=1,
            resource="sram",
            request=sram.requests(group[None, :]),
        )
        netlist = Netlist([readers], resources=[sram.resource("sram")])
        for engine in ("compiled", "simpy"):
            cycles = simulate(netlist, engine=engine).cycles
            assert cycles == sram.conflict_cycles(group[None, :])[0]


def test_streams() -> None:
    """Consecutive words use all ports of all banks; strides of the banks meet in one."""
    sram = Sram(capacity_bytes=64 * 1024, width_bits=64, banks=8, ports=2)
    assert sram.peak_bits_per_cycle == 1024
    assert sram.stream_cycles([0, 1, 1024, 1025]).tolist() == [0, 1, 1, 2]
    assert sram.words_for([64, 65]).tolist() == [1, 2]
    together = np.arange(16)[None, :]
    assert sram.conflict_cycles(together) == [1]
    assert sram.conflict_cycles(together * 8) == [8]
    assert sram.conflict_cycles(together * 4) == [4]


def test_random_conflicts_are_balls_in_bins() -> None:
    """n accesses to 2 banks of one port: the mean is n/2 + E|heads - n/2|, the binomial's."""
    sram = Sram(capacity_bytes=1 << 16, width_bits=8, banks=2)
    n, groups = 10, 40_000
    words = np.random.default_rng(4).integers(0, sram.words, (groups, n))
    mean = sum(math.comb(n, k) * max(k, n - k) for k in range(n + 1)) / 2**n
    assert sram.conflict_cycles(words).mean() == pytest.approx(mean, rel=0.005)


def test_double_buffering_halves_the_tile() -> None:
    """A tile may fill one of the halves; the words are those of both."""
    single = Sram(capacity_bytes=32 * 1024, width_bits=128, banks=4)
    double = msgspec.structs.replace(single, double_buffered=True)
    assert (single.halves, single.usable_bytes) == (1, 32 * 1024)
    assert (double.halves, double.usable_bytes) == (2, 16 * 1024)
    assert single.words == double.words == 2048


@pytest.mark.parametrize("key", ["capacity_bytes", "width_bits", "banks", "ports"])
@pytest.mark.parametrize("value", [0, -1])
def test_bad_numbers(key: str, value: int) -> None:
    """Each number is at least 1."""
    with pytest.raises(InputError, match=f"sram.{key} must be 1 to .*, got {value}"):
        Sram(**{"capacity_bytes": 1024, "width_bits": 64, key: value})


def test_bad_capacity() -> None:
    """Every bank (of each half) holds whole words."""
    with pytest.raises(InputError, match="64 bits x 3 banks x 1 halves"):
        Sram(capacity_bytes=1024, width_bits=64, banks=3)
    with pytest.raises(InputError, match="2 halves"):
        Sram(capacity_bytes=24, width_bits=64, banks=3, double_buffered=True)


@pytest.mark.parametrize(
    ("addresses", "says"),
    [
        ([0, 128], "0 to 127"),
        ([-1], "0 to 127"),
        ([0.5], "whole numbers"),
        ([math.nan], "whole numbers"),
        (3, "whole numbers"),
        ([[[1]]], "whole numbers"),
    ],
)
def test_bad_addresses(addresses: object, says: str) -> None:
    """Addresses are words of the memory."""
    sram = Sram(capacity_bytes=1024, width_bits=64)
    with pytest.raises(InputError, match=says):
        sram.requests(addresses)


def test_conflicts_need_groups_and_bits_are_whole() -> None:
    """One row of accesses a group; sizes are whole numbers of bits."""
    sram = Sram(capacity_bytes=1024, width_bits=64)
    with pytest.raises(InputError, match="groups, accesses"):
        sram.conflict_cycles([1, 2])
    for bits in (-1, 0.5, math.inf):
        with pytest.raises(InputError, match="bits must be whole"):
            sram.words_for(bits)
    assert sram.conflict_cycles(np.zeros((3, 0), np.int64)).tolist() == [0, 0, 0]
    assert sram.requests(np.zeros(0, np.int64)).shape == (0, 1)
