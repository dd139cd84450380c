"""Are the DRAM's gates tight, and its kernels right? Each constraint, to the cycle."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from dram_oracle import NaiveChannel, naive_replay
from hypothesis import given, settings
from hypothesis import strategies as st

from sparqsim.simulator.memory import dram_kernels as kernels
from sparqsim.simulator.memory.dram import Dram, DramChannel, Granularity, Page, replay
from sparqsim.simulator.memory.standards import STANDARDS, DramStandard

every_standard = pytest.mark.parametrize("name", STANDARDS)


def columns(name: str, accesses: list[tuple[int, int, int]], **options: object) -> list[int]:
    """Cycle of the column command of each (bank, row, is_write), all requested at cycle 0."""
    dram = Dram(standard=name, refresh=False, **options)
    t = dram.timing
    parameters, state = dram.channel().parameters(), dram.channel().initial_state()
    cycles = []
    for bank, row, write in accesses:
        request = np.array([bank, row, 1, write, 0])
        latency = kernels.serve(parameters, state, request, 0)[2]
        cycles.append(latency - (t.CWL if write else t.CL) - t.burst_cycles)
    return cycles


def gap(name: str, before: tuple[int, int, int], after: tuple[int, int, int]) -> int:
    """Cycles between the column commands of the last two of (open both rows), before, after."""
    opened = [(bank, row, 0) for bank, row, _ in (before, after)]
    *_, first, second = columns(name, [*opened, before, after])
    return second - first


def read_to_write(t: DramStandard) -> int:
    return t.CL + t.burst_cycles + t.bus_gap - t.CWL


@every_standard
def test_first_access(name: str) -> None:
    """A closed bank: 1 cycle to register, tRCD to open."""
    t = STANDARDS[name]
    assert columns(name, [(0, 5, 0)]) == [1 + t.tRCD_rd]
    assert columns(name, [(0, 5, 1)]) == [1 + t.tRCD_wr]


@every_standard
def test_column_to_column(name: str) -> None:
    """tCCD_L in a bank group, tCCD_S across, turnarounds by the data bus and tWTR."""
    t = STANDARDS[name]
    near, far = 1, t.banks_per_group % t.banks
    assert gap(name, (0, 0, 0), (near, 0, 0)) == t.tCCD_L
    assert gap(name, (0, 0, 1), (near, 0, 1)) == t.tCCD_L
    assert gap(name, (0, 0, 0), (near, 0, 1)) == read_to_write(t)
    assert gap(name, (0, 0, 1), (near, 0, 0)) == t.CWL + t.burst_cycles + t.tWTR_L
    if t.bank_groups > 1:
        assert gap(name, (0, 0, 0), (far, 0, 0)) == t.tCCD_S
        assert gap(name, (0, 0, 1), (far, 0, 1)) == t.tCCD_S
        assert gap(name, (0, 0, 1), (far, 0, 0)) == t.CWL + t.burst_cycles + t.tWTR_S


@every_standard
def test_activate_to_activate(name: str) -> None:
    """tRRD_L in a bank group, tRRD_S across, and the fifth activate waits for tFAW."""
    t = STANDARDS[name]
    first, second = columns(name, [(0, 0, 0), (1, 0, 0)])
    assert second - first == max(t.tRRD_L, t.tCCD_L)
    rotating = [
        g * t.banks_per_group + b for b in range(t.banks_per_group) for g in range(t.bank_groups)
    ]
    cycles = columns(name, [(bank, 0, 0) for bank in rotating[:5]])
    assert cycles[4] - cycles[0] == max(t.tFAW, 4 * t.tRRD_S, t.tRRD_L if t.bank_groups > 1 else 0)


@every_standard
def test_row_cycle(name: str) -> None:
    """A new row in the bank: tRC after the old one's activate, or tRP after it may close."""
    t = STANDARDS[name]
    old, new = columns(name, [(0, 0, 0), (0, 1, 0)])
    assert new - old == max(t.tRC, t.tRCD_rd + t.tRTP + t.tRP)
    old, new = columns(name, [(0, 0, 1), (0, 1, 1)])
    assert new - old == max(t.tRC, t.tRCD_wr + t.CWL + t.burst_cycles + t.tWR + t.tRP)


@every_standard
def test_closed_page_opens_every_time(name: str) -> None:
    """With closed pages the same row is opened again, as late as another row would be."""
    t = STANDARDS[name]
    old, new = columns(name, [(0, 0, 0), (0, 0, 0)], page=Page.CLOSED)
    assert new - old == max(t.tRC, t.tRCD_rd + t.tRTP + t.tRP)


@every_standard
def test_refresh_when_idle(name: str) -> None:
    """Idle time past a due refresh: closed banks wait for tRFC, and each one is counted."""
    dram = Dram(standard=name)
    t = dram.timing
    parameters, state = dram.channel().parameters(), dram.channel().initial_state()
    request = np.array([0, 0, 1, 0, 0])
    just_after = 7 * t.tREFI
    assert kernels.serve(parameters, state, request, just_after)[2] == (
        t.tRFC + t.tRCD_rd + t.CL + t.burst_cycles
    )
    assert state[kernels.REFRESHES] == 7
    assert state[kernels.DUE] == 8 * t.tREFI


def test_refresh_comes_before_a_late_column() -> None:
    """A column command that would come on the due cycle waits; one cycle earlier it does not."""
    dram = Dram(standard="DDR3-1600")
    t = dram.timing
    alone = 1 + t.tRCD_rd
    for start, refreshes in ((t.tREFI - alone - 1, 0), (t.tREFI - alone, 1)):
        parameters, state = dram.channel().parameters(), dram.channel().initial_state()
        latency = kernels.serve(parameters, state, np.array([0, 0, 1, 0, 0]), start)[2]
        assert state[kernels.REFRESHES] == refreshes
        waited = t.tREFI - start + t.tRFC + t.tRCD_rd if refreshes else alone
        assert latency == waited + t.CL + t.burst_cycles


@st.composite
def standards(draw) -> DramStandard:
    """One of the tables, or one in which any constraint may be the longest."""
    name = draw(st.sampled_from([*STANDARDS, "drawn", "drawn", "drawn"]))
    if name in STANDARDS:
        return STANDARDS[name]
    short, long = st.integers(1, 12), st.integers(1, 40)
    burst, ras = draw(st.integers(1, 4)), draw(long)
    near = {key: draw(short) for key in ("tRRD_S", "tWTR_S")}
    ccd = burst + draw(st.integers(0, 2))
    core = {key: draw(short) for key in ("CL", "tRCD_rd", "tRCD_wr", "tRP", "tWR", "tRTP")}
    cycle = ras + draw(st.integers(0, 20))
    refresh = cycle + draw(long)
    write = draw(st.integers(1, core["CL"]))
    busy = cycle + core["tRP"] + refresh + max(core["tRCD_rd"], core["tRCD_wr"])
    busy += write + burst + core["tWR"]
    return DramStandard(
        name="drawn",
        source="drawn at random",
        tCK_ps=1000,
        bus_bits=32,
        burst_bytes=32,
        burst_cycles=burst,
        bank_groups=draw(st.sampled_from([1, 2, 4])),
        banks_per_group=draw(st.sampled_from([1, 2, 4])),
        rows=8,
        row_bytes=draw(st.sampled_from([256, 2048])),
        CWL=write,
        tRAS=ras,
        tRC=cycle,
        tCCD_S=ccd,
        tCCD_L=ccd + draw(st.integers(0, 9)),
        tRRD_L=near["tRRD_S"] + draw(st.integers(0, 20)),
        tWTR_L=near["tWTR_S"] + draw(st.integers(0, 20)),
        tFAW=draw(st.integers(1, 80)),
        tRFC=refresh,
        tREFI=busy + draw(st.integers(1, 60)),
        **near,
        **core,
    )


@st.composite
def cases(draw) -> tuple[Dram, np.ndarray]:
    dram = Dram(
        standard=draw(standards()),
        page=draw(st.sampled_from(Page)),
        write_batch=draw(st.sampled_from([1, 3, 20])),
        refresh=draw(st.booleans()),
    )
    t = dram.timing
    count = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    banks = draw(st.sampled_from([1, min(2, t.banks), t.banks]))
    requests = np.zeros((count, kernels.FIELDS), np.int64)
    requests[:, kernels.BANK] = rng.integers(0, banks, count) * (t.banks // banks)
    requests[:, kernels.ROW] = rng.integers(0, 3, count)
    requests[:, kernels.BURSTS] = 1
    requests[:, kernels.IS_WRITE] = rng.random(count) < draw(st.sampled_from([0, 0.3, 1]))
    return dram, requests


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_serve_equals_naive(case: tuple[Dram, np.ndarray], seed: int) -> None:
    """Hold, busy and latency are those of a controller that tries every cycle."""
    dram, requests = case
    rng = np.random.default_rng(seed)
    naive = NaiveChannel(dram)
    parameters, state = dram.channel().parameters(), dram.channel().initial_state()
    now = int(rng.integers(0, 2 * dram.timing.tREFI))
    for request in requests:
        bank, row, _, write, _ = map(int, request)
        turned, wait = naive.wait(bank, row, bool(write), now)
        assert kernels.rank(parameters, state, request, now) == wait + turned * kernels.TURN
        expected = naive.serve(bank, row, bool(write), now)
        assert kernels.serve(parameters, state, request, now) == expected
        now += expected[0] + int(rng.choice([0, 0, 1, 9, 200]))


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 6), st.integers(1, 6))
def test_replay_equals_naive(case: tuple[Dram, np.ndarray], reads: int, writes: int) -> None:
    """Order and cycles through two queues are those of a plain event loop."""
    dram, requests = case
    run = replay(dram.channel(), requests, read_queue=reads, write_queue=writes)
    expected = naive_replay(dram, requests, reads, writes)
    assert list(zip(run.start.tolist(), run.end.tolist(), strict=True)) == expected


def assert_tiles_are_bursts(dram: Dram, tiles: list[tuple[int, int, bool, int]]) -> None:
    """Serve tiles (first burst, bursts, write, pause after) whole and in bursts; compare."""
    parameters = dram.channel().parameters()
    tile, single = dram.channel().initial_state(), dram.channel().initial_state()
    burst, now = dram.timing.burst_bytes, 0
    for first, count, write, pause in tiles:
        whole, parts = (
            dram.requests(first * burst, count * burst, write, granularity)[0]
            for granularity in (Granularity.TILE, Granularity.BURST)
        )
        answer = kernels.serve(parameters, tile, whole[0], now)
        for part in parts:
            last = kernels.serve(parameters, single, part, now)
        assert answer == last
        batch = slice(kernels.FAVOUR, kernels.BATCH + 1)  # is counted in requests
        tile[batch] = single[batch] = 0
        np.testing.assert_array_equal(tile, single)
        now += answer[0] + pause


@settings(max_examples=200, deadline=None)
@given(
    standards(),
    st.sampled_from(["RoBaCoBg", "RoBaBgCo", "RoCoBaBg", "BaRoCoBg", "CoRoBgBa"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_a_tile_is_its_bursts_in_order(
    standard: DramStandard, mapping: str, refresh: bool, seed: int
) -> None:
    """One request of n bursts leaves the state, and ends, as n requests of one burst do."""
    dram = Dram(standard=standard, mapping=mapping, refresh=refresh)
    bursts = standard.channel_bytes // standard.burst_bytes
    rng = np.random.default_rng(seed)
    tiles, end = [], 0
    for _ in range(6):
        count = int(rng.integers(1, min(bursts, int(rng.choice([4, 40, 2000])) + 1)))
        first = int(rng.choice([0, end, rng.integers(0, bursts)]))  # anew, further on, anywhere
        first = min(first, bursts - count)
        end = first + count
        pause = int(rng.choice([0, 3, 50, rng.integers(0, standard.tREFI)]))
        tiles.append((first, count, bool(rng.random() < 0.5), pause))
    assert_tiles_are_bursts(dram, tiles)


@pytest.mark.parametrize("late", range(8))
@pytest.mark.parametrize("near", [4, 8, 9, 12])
def test_a_tile_after_a_turn_of_the_bus(near: int, late: int) -> None:
    """Rounds of two bank groups that tCCD_L holds back, or whose first round is late by a few."""
    two = msgspec.structs.replace(
        STANDARDS["DDR4-2400"],
        bank_groups=2,
        tCCD_L=near,
        tRRD_L=4,
        tWTR_L=STANDARDS["DDR4-2400"].tWTR_S + late,
    )
    tiles = [(0, 64, False, 0), (1, 7, True, 0), (8, 64, False, 0), (0, 33, True, 0)]
    tiles += [(2, 64, False, 0), (0, 2, True, 0), (2, 64, False, 0)]
    assert_tiles_are_bursts(Dram(standard=two, refresh=False), tiles)


def test_kernels_equal_their_plain_twins() -> None:
    """The compiled functions and the same functions run by Python give the same numbers."""
    dram = Dram(standard="DDR4-2400", mapping="RoBaCoBg")
    parameters, one = dram.channel().parameters(), dram.channel().initial_state()
    two = one.copy()
    rng = np.random.default_rng(3)
    now = 0
    for _ in range(200):
        address = int(rng.integers(0, 1 << 16))
        request = dram.requests(64 * address, 64 * int(rng.integers(1, 9)), rng.random() < 0.5)[0][
            0
        ]
        assert kernels.rank(parameters, one, request, now) == kernels.rank.py_func(
            parameters, two, request, now
        )
        answer = kernels.serve(parameters, one, request, now)
        assert answer == kernels.serve.py_func(parameters, two, request, now)
        np.testing.assert_array_equal(one, two)
        now += answer[0]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["DDR3-1600", "DDR4-2400", "HBM3-6400"]),
    st.sampled_from([200e6, 500e6, 700e6, 1.41e9, 4.8e9]),
    st.integers(0, 2**32 - 1),
)
def test_clocks_cross_exactly(name: str, clock_hz: float, seed: int) -> None:
    """In another clock every time is the channel's own, rounded up once each way."""
    dram = Dram(standard=name, refresh=False)
    own, other = dram.channel(), DramChannel(dram, clock_hz)
    ratio = other.ticks
    assert float(ratio) == pytest.approx(1e12 / (clock_hz * dram.timing.tCK_ps), rel=1e-11)
    states = own.initial_state(), own.initial_state()
    rng = np.random.default_rng(seed)
    now = 0
    for _ in range(20):
        address = int(rng.integers(0, 1 << 20)) * dram.timing.burst_bytes
        request = dram.requests(address, 64, rng.random() < 0.3)[0][0]
        start = -(-now * ratio.numerator // ratio.denominator)
        ticks = kernels.serve(own.parameters(), states[0], request, start)
        cycles = kernels.serve(other.parameters(), states[1], request, now)
        np.testing.assert_array_equal(*states)
        ended = start + ticks[2]
        assert now + cycles[2] == -(-ended * ratio.denominator // ratio.numerator)
        now += cycles[0] + int(rng.choice([0, 1, 50]))
