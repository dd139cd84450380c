"""A naive DRAM controller for the tests: it keeps every command and tries one cycle after another.

Nothing is shared with the model but the standards' tables and the policy: commands may come
`lookahead` cycles ahead of the bus, a refresh goes before a column command that would come after
its due time, least wait first, then the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sparqsim.simulator.memory.dram import Dram, Page


@dataclass
class NaiveChannel:
    """One channel; times in its own clock. ``columns`` holds (cycle, bank, is_write)."""

    dram: Dram
    activates: list[tuple[int, int]] = field(default_factory=list)
    precharges: list[tuple[int, int]] = field(default_factory=list)
    columns: list[tuple[int, int, bool]] = field(default_factory=list)
    refreshes: list[int] = field(default_factory=list)
    rows: dict[int, int] = field(default_factory=dict)
    due: int = 0
    favour_writes: bool = False
    batch: int = 0

    def __post_init__(self) -> None:
        self.t = self.dram.timing
        self.due = self.t.tREFI
        self.lookahead = self.dram.controller_cycles + self.t.tRP
        self.lookahead += max(self.t.tRCD_rd, self.t.tRCD_wr)
        self.lookahead += (self.t.bank_groups - 1) * max(0, self.t.tRRD_S - self.t.tCCD_S)

    def group(self, bank: int) -> int:
        return bank // self.t.banks_per_group

    def may_precharge(self, bank: int, at: int) -> bool:
        t = self.t
        after_act = all(at >= a + t.tRAS for a, b in self.activates if b == bank)
        write = t.CWL + t.burst_cycles + t.tWR
        return after_act and all(
            at >= c + (write if w else t.tRTP) for c, b, w in self.columns if b == bank
        )

    def may_activate(self, bank: int, at: int, precharged: int | None) -> bool:
        t = self.t
        for a, b in self.activates:
            gap = t.tRC if b == bank else t.tRRD_S
            if self.group(b) == self.group(bank):
                gap = max(gap, t.tRRD_L)
            if at < a + gap:
                return False
        if sum(a + t.tFAW > at for a, _ in self.activates) >= 4:
            return False
        last = [p for p, b in self.precharges if b == bank]
        last += [] if precharged is None else [precharged]
        return all(at >= p + t.tRP for p in last) and all(at >= r + t.tRFC for r in self.refreshes)

    def may_access(self, bank: int, write: bool, at: int, activated: int) -> bool:
        t = self.t
        if at < activated + (t.tRCD_wr if write else t.tRCD_rd):
            return False
        for c, b, w in self.columns:
            same = self.group(b) == self.group(bank)
            if w == write:
                gap = t.tCCD_L if same else t.tCCD_S
            elif write:
                gap = t.CL + t.burst_cycles + t.bus_gap - t.CWL
            else:
                gap = t.CWL + t.burst_cycles + (t.tWTR_L if same else t.tWTR_S)
            if at < c + gap:
                return False
        return True

    def plan(self, bank: int, row: int, write: bool, start: int):
        """(precharge or None, activate or None, column) at the first cycles that are legal."""
        precharge = activate = None
        if self.rows.get(bank) == row:
            activated = max(a for a, b in self.activates if b == bank)
        else:
            at = start
            if bank in self.rows:
                while not self.may_precharge(bank, at):
                    at += 1
                precharge = at
            while not self.may_activate(bank, at, precharge):
                at += 1
            activate = activated = at
        column = start
        while not self.may_access(bank, write, column, activated):
            column += 1
        return precharge, activate, column

    def slot(self) -> int:
        """The first cycle in which the bus could take another column command."""
        if not self.columns:
            return 0
        last, _, write = self.columns[-1]
        t = self.t
        turn = t.CWL + t.burst_cycles + t.tWTR_S
        return last + min(t.tCCD_S, turn if write else t.CL + t.burst_cycles + t.bus_gap - t.CWL)

    def wait(self, bank: int, row: int, write: bool, now: int) -> tuple[bool, int]:
        """Order of choice: the favoured direction first, then the least wait."""
        start = now + self.dram.controller_cycles
        column = self.plan(bank, row, write, start)[2]
        return write != self.favour_writes, column - max(start, self.slot())

    def refresh(self) -> None:
        ends = [self.due]
        for bank in list(self.rows):
            at = self.due
            while not self.may_precharge(bank, at):
                at += 1
            self.precharges.append((at, bank))
            del self.rows[bank]
        ends += [a + self.t.tRC for a, _ in self.activates]
        ends += [p + self.t.tRP for p, _ in self.precharges]
        ends += [r + self.t.tRFC for r in self.refreshes]
        self.refreshes.append(max(ends))
        self.due += self.t.tREFI

    def access(self, bank: int, row: int, write: bool, now: int) -> tuple[int, int]:
        """Serve one burst; (cycle in which it leaves the queue, column command)."""
        start = max(now, self.slot() - self.lookahead) + self.dram.controller_cycles
        while True:
            precharge, activate, column = self.plan(bank, row, write, start)
            if not self.dram.refresh or column < self.due:
                break
            self.refresh()
        if precharge is not None:
            self.precharges.append((precharge, bank))
        if activate is not None:
            self.activates.append((activate, bank))
            self.rows[bank] = row
        self.columns.append((column, bank, write))
        self.batch = self.batch + 1 if write else 0
        if self.batch >= self.dram.write_batch:
            self.batch = 0
        self.favour_writes = self.batch > 0
        if self.dram.page is Page.CLOSED:
            at = column
            while not self.may_precharge(bank, at):
                at += 1
            self.precharges.append((at, bank))
            del self.rows[bank]
        return column if activate is None else activate, column

    def serve(self, bank: int, row: int, write: bool, now: int) -> tuple[int, int, int]:
        """(hold, busy, latency) of a request of one burst."""
        leave, column = self.access(bank, row, write, now)
        hold = max(1, self.slot() - self.lookahead - now)
        data = column + (self.t.CWL if write else self.t.CL) + self.t.burst_cycles
        return hold, max(hold, leave - now), data - now


def naive_replay(dram: Dram, requests, read_queue: int, write_queue: int) -> list[tuple[int, int]]:
    """(start, end) of each request, fed in order through two queues."""
    channel = NaiveChannel(dram)
    places = [read_queue, write_queue]
    result = [(0, 0)] * len(requests)
    coming = list(range(len(requests)))
    waiting: list[int] = []
    held: list[list[int]] = [[], []]  # when the places of those served become free
    now = 0
    while coming or waiting:
        if coming:  # those that can enter by now, in order
            kind = int(requests[coming[0]][3])
            here = sum(int(requests[i][3]) == kind for i in waiting)
            here += sum(end > now for end in held[kind])
            if here < places[kind]:
                waiting.append(coming.pop(0))
                continue
        if not waiting:
            now += 1
            continue
        ranks = [
            channel.wait(*map(int, requests[i][:2]), bool(requests[i][3]), now) for i in waiting
        ]
        chosen = waiting.pop(ranks.index(min(ranks)))
        bank, row, _, write, _ = map(int, requests[chosen])
        hold, busy, latency = channel.serve(bank, row, bool(write), now)
        held[write].append(now + busy)
        result[chosen] = (now, now + latency)
        now += hold
    return result
