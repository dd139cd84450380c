"""A layer matched and multiplied on SNAP: the pass that computes is the pass that counts."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.snap.config import Configuration
from sparqsim.architectures.snap.mapping import schedule
from sparqsim.architectures.snap.stored import Stored
from sparqsim.simulator.mac import snap as mac
from sparqsim.simulator.mac.dense import wrap
from sparqsim.simulator.netlist import Execute


class Work:
    """A layer matched and multiplied.

    Attributes
    ----------
    done : mac.Work
        What each step of each lane did.
    pairs : int
        Pairs of bundles that are both not empty.
    weights_fetched : int64 [steps]
        Weights read from the buffer in each step, for all PE rows.
    sums, accumulators : int64 [images, output channels, height, width]
        Exact, and as the output buffer holds them.
    """

    def __init__(self, machine: Configuration, stored: Stored) -> None:
        self.machine, self.stored, self.layer = machine, stored, stored.layer
        self.diagonal = self.layer.kernel[0] > 1
        self.schedule, self.slots_per_core = schedule(machine, self.layer)
        outputs = (self.layer.batch, self.layer.out_channels, *self.layer.output)
        row_lanes = machine.cores * machine.rows
        self.done = mac.Work.blank(outputs, self.schedule, machine.columns, row_lanes)
        self.done.sums[:] = stored.bias[:, None, None]
        front = mac.FrontEnd(
            machine.comparators,
            machine.multipliers,
            machine.split_tree,
            machine.rows,
            self.slots_per_core,
        )
        self.pairs = mac.match(
            stored.activations,
            stored.weights,
            machine.bundle_channels,
            stored.geometry,
            self.schedule,
            front,
            self.done,
        )
        self.sums = self.done.sums
        self.accumulators = wrap(self.sums, machine.accumulator_bits)
        self.carried_sums = np.zeros(outputs, np.int64)
        self.carried_psums = np.zeros_like(self.psums)

    @property
    def mode(self) -> str:
        """How the PEs of a core are joined."""
        return "diagonal mode" if self.diagonal else "row mode"

    @property
    def psums(self) -> NDArray[np.int32]:
        """Psums written to the output buffer, by step and lane of what writes them."""
        machine, done = self.machine, self.done
        if machine.core_reduction:
            return done.reduced if machine.pe_reduction else done.aligned
        return done.pe_psums if machine.pe_reduction else done.products

    @property
    def weights_fetched(self) -> NDArray[np.int64]:
        """Weights read from the buffer in each step ``[steps]``, once for all PE rows."""
        plan, geometry = self.schedule, self.stored.geometry
        sizes = np.diff(self.stored.weights.pointers).reshape(self.layer.out_channels, -1)
        up_to = np.concatenate([np.zeros((1, sizes.shape[1]), np.int64), np.cumsum(sizes, axis=0)])
        of_turn = (up_to[plan.blocks[..., 2]] - up_to[plan.blocks[..., 1]]).sum(axis=1)
        row, column, bundle = np.moveaxis(plan.items, -1, 0)
        place = (row * geometry.kernel_width + column) * geometry.bundles + bundle
        of_item = np.where(row < 0, 0, of_turn[:, np.where(row < 0, 0, place)]).sum(axis=-1)
        of_tile = np.repeat(of_item[:, None, :], len(plan.positions), axis=1)
        return of_tile.reshape(-1)

    def counters(self) -> dict[str, int]:
        """What happened, counted in the pass that computed."""
        done = self.done
        return {
            "steps": self.schedule.steps,
            "bundle_pairs": self.pairs,
            "aim_passes": int(done.passes.sum()),
            "products": int(done.products.sum()),
            "pe_cycles": int(done.cycles.sum()),
            "activations_fetched": int(done.fetched.sum()),
            "weights_fetched": int(self.weights_fetched.sum()),
            "psums_written": int(self.psums.sum()),
            "psums_without_reduction": int(done.products.sum()),
            "psums_with_pe_reduction": int(done.pe_psums.sum()),
            "psums_with_core_reduction": int(done.aligned.sum()),
            "psums_with_both": int(done.reduced.sum()),
        }

    def output_bank(self) -> NDArray[np.int64]:
        """The output bank each step of each writing lane goes to ``[steps, lanes]``.

        The bank follows from an output's address, and is chosen so that the rows of a core, which
        work at the same time, go to different banks: image rows are skewed by one in diagonal mode,
        pixels are laid out in turn in row mode, and blocks of output channels lie a tile apart.
        """
        machine, plan = self.machine, self.schedule
        rounds, slots = plan.blocks.shape[:2]
        tiles, at_once = plan.positions.shape[:2]
        y, x = plan.positions[:, :, 1], plan.positions[:, :, 2]
        where = y + x if self.diagonal else y * self.layer.output[1] + x
        slot = np.arange(slots).reshape(machine.cores, self.slots_per_core)
        block = (np.arange(rounds)[:, None, None] * slots + slot) * at_once
        place = np.empty((rounds, tiles, machine.cores, machine.rows), np.int64)
        place[:] = np.arange(machine.rows)  # of rows that are idle
        used = self.slots_per_core * at_once
        place[..., :used] = (block[:, None, :, :, None] + where[None, :, None, None, :]).reshape(
            rounds, tiles, machine.cores, used
        )
        bank = place % machine.banks + np.arange(machine.cores)[:, None] * machine.banks
        rows = np.repeat(bank.reshape(rounds * tiles, -1), len(plan.items), axis=0)
        return rows if machine.core_reduction else np.tile(rows, machine.columns)

    @property
    def aim_of(self) -> NDArray[np.int64]:
        """The AIM of each PE lane: PEs that lie side by side in their core share one."""
        machine = self.machine
        column, core, row = np.indices((machine.columns, machine.cores, machine.rows))
        if self.diagonal:
            row = (row + column) % machine.rows  # lanes go by output, PEs lie on its diagonal
        own = (row * machine.columns + column) // machine.pes_per_aim
        return (core * machine.aims_per_core + own).ravel()

    # ------------------------------------------------------------------ one firing at a time

    def actions(self) -> dict[str, Execute]:
        """What each block of the diagram does with a step, for ``verify="execute"``."""
        machine, plan = self.machine, self.schedule
        tiles, at_once = plan.positions.shape[:2]
        columns, items = machine.columns, len(plan.items)
        row_lanes = machine.cores * machine.rows
        Got = dict[str, list[Any]]

        def fetch(lane: int, firing: int, got: Got) -> Got:
            if firing == 0:
                self.carried_sums[:] = self.stored.bias[:, None, None]
                self.carried_psums[:] = 0
            rest, item = divmod(firing, items)
            turn, tile = divmod(rest, tiles)
            return {"steps": [(plan.blocks[turn], plan.positions[tile], plan.items[item])]}

        def compare(lane: int, firing: int, got: Got) -> Got:
            blocks, positions, item = got["steps"][0]
            column, place = divmod(lane, row_lanes)
            core, row = divmod(place, machine.rows)
            within, position = divmod(row, at_once)
            if within >= self.slots_per_core or positions[position][0] < 0:
                return {"matches": [(None, [])]}
            where, tap = positions[position], item[column]
            group, first, end = blocks[core * self.slots_per_core + within]
            one = mac.activation_bundle(
                self.stored.activations, self.stored.geometry, group, where, tap
            )
            matches = []
            for channel in range(first, end):
                other = mac.weight_bundle(self.stored.weights, self.stored.geometry, channel, tap)
                _, here, there = np.intersect1d(one[0], other[0], True, return_indices=True)
                matches.append((channel, one[1][here], other[1][there]))
            return {"matches": [(where, matches)]}

        def decode(lane: int, firing: int, got: Got) -> Got:
            where, matches = got["matches"][0]
            pairs = [
                (channel, int(a), int(w))
                for channel, some, others in matches
                for a, w in zip(some, others, strict=True)
            ]
            return {"pairs": [(where, pairs)]}

        def multiply(lane: int, firing: int, got: Got) -> Got:
            where, pairs = got["pairs"][0]
            psums: dict[int, list[int]] = {}
            for channel, a, w in pairs:
                psums.setdefault(channel, []).append(a * w)
            if machine.pe_reduction:
                psums = {channel: [sum(products)] for channel, products in psums.items()}
            to = f"pe_psums_{lane // row_lanes}" if machine.core_reduction else "psums"
            return {to: [(where, psums)]}

        def reduce(lane: int, firing: int, got: Got) -> Got:
            tokens = [got[f"pe_psums_{column}"][0] for column in range(columns)]
            where = next((place for place, _ in tokens if place is not None), None)
            joined: dict[int, list[int]] = {}
            for channel in {channel for _, psums in tokens for channel in psums}:
                lists = [psums.get(channel, []) for _, psums in tokens]
                joined[channel] = [sum(aligned) for aligned in zip_longest(*lists, fillvalue=0)]
            return {"psums": [(where, joined)]}

        def write(lane: int, firing: int, got: Got) -> Got:
            where, psums = got["psums"][0]
            for channel, values in psums.items():
                image, y, x = where
                self.carried_sums[image, channel, y, x] += sum(values)
                self.carried_psums[firing, lane] += len(values)
            return {}

        return {
            "buffers": fetch,
            "aim": compare,
            "decoder": decode,
            "pe": multiply,
            "core_reduce": reduce,
            "write_back": write,
        }

    def executed(self) -> bool:
        """Whether the tokens of the last run gave the kernel's sums, in the psums it counted."""
        same = (self.carried_sums == self.sums).all() and (self.carried_psums == self.psums).all()
        return bool(same)
