"""EIE's block diagram as a netlist: passes over activations, their fetch, the PEs' pipeline.

    lnzd -> ccu => queue => column_walk -> spmat_read -> arithmetic -> act_write

What limits a PE is that it issues one entry per cycle: it takes a column from its queue, reads the
column's two pointers, and counts from the one to the other. That is the actor ``column_walk``; the
stages behind it (the row of the sparse-matrix SRAM, codebook and multiply-accumulate, write-back)
start on a column a register later each, and keep up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.eie.config import ARITHMETIC_STAGES, Configuration
from sparqsim.simulator.netlist import Actor, Channel, Execute, Netlist, Pattern


@dataclass(frozen=True, eq=False)
class Pass:
    """One walk over (a stretch of) an activation vector for (a stretch of) the rows.

    ``positions`` are the places of the non-zeros in the stretch of ``length`` elements. ``load``
    and ``store`` are cycles of the activation SRAM before and after it; ``fresh`` says that the
    destination registers must be free before it begins.
    """

    positions: NDArray[np.int64]
    length: int
    fresh: bool
    load: int = 0
    store: int = 0


@dataclass(frozen=True, eq=False)
class Fetch:
    """What the LNZD does in each row of N elements.

    A row's non-zeros are broadcast one a cycle; then one cycle goes to the next row - but a
    non-zero in the last place advances the row in the same cycle. So the fetch of a row waits for
    the broadcasts before it, less one if the last of them was in the last place.

    Attributes
    ----------
    found, awaited
        Non-zeros of each row; further broadcasts each row's fetch waits for.
    first_row, last_broadcast
        Of each pass.
    """

    found: NDArray[np.int64]
    awaited: NDArray[np.int64]
    first_row: list[int]
    last_broadcast: list[int]

    @classmethod
    def of(cls, passes: list[Pass], pes: int) -> Fetch:
        """The fetches of passes, one after the other."""
        found, needed, first_row, last_broadcast = [], [], [], []
        broadcasts = rows = 0
        for walk in passes:
            count = -(-walk.length // pes)
            in_row = np.bincount(walk.positions // pes, minlength=count)
            through = np.cumsum(in_row)
            in_last_place = np.zeros(count, np.int64)
            in_last_place[walk.positions[walk.positions % pes == pes - 1] // pes] = 1
            before = np.concatenate([[0], (through - in_last_place)[:-1]])
            found.append(in_row)
            needed.append(broadcasts + before)
            first_row.append(rows)
            rows += count
            broadcasts += len(walk.positions)
            last_broadcast.append(broadcasts - 1)
        awaited = np.diff(np.concatenate([[0], *needed]))
        return cls(np.concatenate(found), awaited, first_row, last_broadcast)


def netlist_of(
    machine: Configuration,
    name: str,
    entries: NDArray[np.integer],
    passes: list[Pass],
    execute: Mapping[str, Execute],
) -> Netlist:
    """The netlist of a sequence of passes.

    Parameters
    ----------
    entries : integers [broadcasts, pes]
        Entries each PE walks for each broadcast.
    execute
        The arithmetic of the actors that carry it, by name.
    """
    fetch = Fetch.of(passes, machine.pes)
    actors = [
        Actor(name="lnzd", firings=len(fetch.found), part="LNZD quadtree"),
        Actor(name="ccu", firings=len(entries), execute=execute.get("ccu"), part="CCU"),
        *_pe_stages(machine, entries, execute),
    ]
    channels = [
        *_fetch_channels(machine, fetch),
        Channel(
            name="queue",
            source="ccu",
            target="column_walk",
            capacity=machine.queue_slots - 1,
            pattern=Pattern.BROADCAST,
        ),
        *(
            Channel(name=register, source=source, target=target, capacity=latency + 1)
            for register, source, target, latency in (
                ("pointers", "column_walk", "spmat_read", 1),
                ("spmat_register", "spmat_read", "arithmetic", 1),
                ("pipeline", "arithmetic", "act_write", ARITHMETIC_STAGES),
            )
        ),
    ]
    if any(walk.load or walk.store for walk in passes):
        actor, more = _act_sram(passes, len(entries), fetch)
        actors.append(actor)
        channels += more
    elif len(passes) > 1:
        channels.append(_one_after_another(passes, len(entries), fetch))
    return Netlist(actors, channels, clock_hz=machine.clock_hz, name=f"EIE {name}")


def timed(netlist: Netlist, machine: Configuration) -> Netlist:
    """A netlist of another configuration that does the same work, with the queues of this one."""
    return netlist.retimed({"queue": machine.queue_slots - 1}, machine.clock_hz)


def _pe_stages(
    machine: Configuration, entries: NDArray[np.integer], execute: Mapping[str, Execute]
) -> list[Actor]:
    """The pipeline of a PE: each stage starts on a column a register after the one before."""
    walk = np.maximum(entries, 1)  # a column without entries still takes a cycle
    streams = walk + 1  # the last entry's result, one register later
    return [
        Actor(
            name=stage,
            lanes=machine.pes,
            firings=len(entries),
            busy=busy,
            latency=latency,
            execute=execute.get(stage),
            part=part,
        )
        for stage, busy, latency, part in (
            ("column_walk", walk, 1, "PE: one entry per cycle"),
            ("spmat_read", entries, 1, "Sparse-matrix SRAM"),
            ("arithmetic", entries, ARITHMETIC_STAGES, "Arithmetic unit"),
            ("act_write", entries, streams, "Act R/W"),
        )
    ]


def _fetch_channels(machine: Configuration, fetch: Fetch) -> list[Channel]:
    """Non-zeros from the LNZD to the CCU, and the CCU's leave to fetch the next row."""
    depth = int(max(fetch.found.max(initial=1), 1))
    return [
        Channel(
            name="nonzeros",
            source="lnzd",
            target="ccu",
            capacity=2 * max(machine.pes, depth),
            produce=fetch.found,
        ),
        Channel(
            name="advance",
            source="ccu",
            target="lnzd",
            capacity=max(4 * machine.pes, int(fetch.awaited.max(initial=1))),
            consume=fetch.awaited,
        ),
    ]


def _one_after_another(passes: list[Pass], broadcasts: int, fetch: Fetch) -> Channel:
    """A pass begins when the one before it has written its results."""
    ends = np.zeros(broadcasts, np.int64)
    begins = np.zeros(len(fetch.found), np.int64)
    for number, walk in enumerate(passes[:-1]):
        if len(walk.positions):
            ends[fetch.last_broadcast[number]] = 1
            begins[fetch.first_row[number + 1]] = 1
    return Channel(
        name="written",
        source="act_write",
        target="lnzd",
        capacity=1,
        pattern=Pattern.GATHER,
        produce=ends,
        consume=begins,
    )


def _act_sram(passes: list[Pass], broadcasts: int, fetch: Fetch) -> tuple[Actor, list[Channel]]:
    """The activation SRAM, loading the source registers before a pass and storing after one.

    All PEs move their share in lockstep, so it has one lane.
    """
    busy, after_broadcasts, after_writes, loaded = [], [], [], []
    broadcast_done = np.zeros(broadcasts, np.int64)
    written = np.zeros(broadcasts, np.int64)
    begins = np.zeros(len(fetch.found), np.int64)
    pending = 0  # passes of this stretch of rows that will have written something
    for number, walk in enumerate(passes):
        some = len(walk.positions) > 0
        if walk.load:
            waits = number > 0 and not walk.fresh and len(passes[number - 1].positions) > 0
            busy.append(walk.load)
            after_broadcasts.append(int(waits))
            after_writes.append(0)
            loaded.append(1)
            begins[fetch.first_row[number]] = 1
            if waits:
                broadcast_done[fetch.last_broadcast[number - 1]] = 1
        pending = int(some) or (0 if walk.fresh else pending)
        if walk.store:
            busy.append(walk.store)
            after_broadcasts.append(0)
            after_writes.append(pending)
            loaded.append(0)
            if pending:
                written[fetch.last_broadcast[number]] = 1
    actor = Actor(name="act_sram", firings=len(busy), busy=np.array(busy), part="Act SRAM")
    channels = [
        Channel(
            name="batch_done",
            source="ccu",
            target="act_sram",
            capacity=1,
            produce=broadcast_done,
            consume=np.array(after_broadcasts),
        ),
        Channel(
            name="written",
            source="act_write",
            target="act_sram",
            capacity=1,
            pattern=Pattern.GATHER,
            produce=written,
            consume=np.array(after_writes),
        ),
        Channel(
            name="loaded",
            source="act_sram",
            target="lnzd",
            capacity=1,
            produce=np.array(loaded),
            consume=begins,
        ),
    ]
    return actor, channels
