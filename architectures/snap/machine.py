"""SNAP: both operands compressed, matched by channel index (Zhang et al., VLSI 2019, JSSC 2021).

Weights and activations are stored as *bundles*: the non-zeros of some neighbouring channels at one
place, each with its channel index. An associative index matcher (AIM), an N x N array of
comparators with a priority encoder a row, compares a weight bundle with an activation bundle all to
all; a sequence decoder walks the matches and feeds a PE up to three pairs a cycle. Everything in a
bundle pair adds into one output (channel-first), so every match is useful - but their number is
chance, PEs that share an AIM wait for it, and the PEs fall out of step.

    buffers => aim -> decoder -> pe -> core_reduce -> write_back

A *step* of a PE is one activation bundle against the weight bundles of a block of output channels.
Partial sums (psums) shrink in two levels: within a PE (an adder tree that reduces its three
products, or splits them where a cycle straddles two outputs), then over the three PEs of a core
that work on the same output: PEs on a diagonal take the rows of a kernel (CONV), PEs of a row take
slices of the channels (1 x 1 CONV, FC). What is left is added to the output buffer, whose banks
take one psum per cycle; a PE row that finds its bank taken waits.

Little of the micro-architecture is published; every number below says what it is. Assumed where
nothing else is said: diagonals wrap around the array, so that each holds three PEs; cores share the
activations and split the output channels; a PE has its own decoder and a psum register (one decoder
for P PEs would cap utilisation at 1/P); a step moves through the blocks as one token, holds its AIM
and its bank for all its cycles at a stretch, and costs a cycle of each even if it is empty. Left
out: DRAM, filling the buffers (they deliver one step per cycle), compressing the outputs - and with
it how the right operand of a product of two activations comes to lie in bundles along the
reduction.

Sources: Zhang et al., "SNAP: A 1.67-21.55 TOPS/W Sparse Neural Acceleration Processor for
Unstructured Sparse Deep Neural Network Inference in 16nm CMOS", VLSI 2019; JSSC 2021 (abstracts).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.account import Account, Port, Store, priced_part
from sparqsim.architectures.machine import Program
from sparqsim.architectures.operands import Computes
from sparqsim.architectures.snap import reference
from sparqsim.architectures.snap.config import (
    NODE_NM,
    PAPER_ACCUMULATOR_BITS,
    PAPER_SUPPLY_V,
    VALUE_BITS,
    Configuration,
)
from sparqsim.architectures.snap.datapath import Work
from sparqsim.architectures.snap.stored import Stored
from sparqsim.base import InputError
from sparqsim.simulator.energy import scaling
from sparqsim.simulator.energy.tables import Basis, Entry, get_table
from sparqsim.simulator.mac.fixed_point import narrow, shift_for
from sparqsim.simulator.netlist import Actor, Channel, Netlist, Pattern, Resource
from sparqsim.simulator.report import EnergyPart, Macs
from sparqsim.workloads.encoded import EncodedLayer, as_output
from sparqsim.workloads.layers import MatMul
from sparqsim.workloads.shared import once

MULTIPLY_16_PJ_OVER_32 = 1 / 4  # assumed: a multiplier grows with the square of its width
ENERGIES = "horowitz"  # the one shipped table that prices a multiplier and an adder apart
FORMAT = f"int{VALUE_BITS}_signed"


class SNAP(Configuration, frozen=True, kw_only=True):
    def computes(self, layer: EncodedLayer) -> Computes:
        """16-bit integers, both."""
        return Computes(weights=(FORMAT,), activations=(FORMAT,))

    def lower(self, layer: EncodedLayer) -> Program:
        """Compress both operands, match and multiply them, and turn the work into a netlist.

        Outputs are 16-bit fixed point: the sums without their lowest bits, as many as the largest
        sum asks for.

        Raises
        ------
        InputError
            If there are no numbers.
        """
        if layer.is_outline:
            raise InputError(f"layer {layer.name!r}: SNAP's time depends on the numbers; give them")
        work, shift, outputs = once(
            "snap", self.without_timing(), (layer,), lambda: self._multiplied(layer)
        )
        counted = work.counters()
        return Program(
            netlist=self._netlist(work, layer.name),
            layer=layer.name,
            inputs=layer.source,
            macs=Macs(dense=layer.layer.macs, effectual=counted["products"]),
            worker="pe",
            multipliers=self.pes * self.multipliers,
            account=self._account(work),
            outputs=outputs,
            output_scale=(work.stored.unit * 2.0**shift).reshape(-1, *[1] * (outputs.ndim - 2)),
            verify=partial(
                reference.verify,
                layer,
                outputs,
                accumulator_bits=self.accumulator_bits,
                shift=shift,
                output_bits=VALUE_BITS,
            ),
            counters=lambda timeline: {
                **counted,
                "aim_wait_cycles": int(timeline.lane_times("aim").waiting.sum()),
                "bank_wait_cycles": int(timeline.lane_times("write_back").waiting.sum()),
            },
            energy=lambda timeline: self._arithmetic(counted),
            executed=work.executed,
            notes=self._notes(layer, work, shift),
        )

    def _multiplied(self, layer: EncodedLayer) -> tuple[Work, int, NDArray[np.int64]]:
        """The work, how many bits its outputs lose, and the outputs."""
        work = Work(self, Stored.of(layer, self))
        shift = shift_for(work.accumulators, VALUE_BITS)
        rows = narrow(work.accumulators, shift, VALUE_BITS, layer.relu)
        return work, shift, as_output(layer.layer, rows)

    def _notes(self, layer: EncodedLayer, work: Work, shift: int) -> list[str]:
        """What a reader of the report must know."""
        notes = [
            f"{work.mode}; DRAM is left out",
            f"outputs are {VALUE_BITS}-bit fixed point: sums without their {shift} lowest bits, a "
            "number that calibration on these sums would give",
        ]
        if layer.dynamic:
            notes.append(
                "the range of the inputs is found in the run; no unit that finds one is published, "
                "and no time is charged for it"
            )
        if work.stored.unit.size > 1:
            notes.append("each channel has a scale of its own, applied by who reads the outputs")
        if isinstance(layer.layer, MatMul):
            notes.append("the right operand is taken to lie in bundles along the reduction")
        cut = int(
            (np.abs(layer.bias / work.stored.unit) >= 2.0 ** (self.accumulator_bits - 1)).sum()
        )
        if cut:
            notes.append(f"{cut} biases exceed {self.accumulator_bits} bits and are cut off there")
        overflowed = int((work.accumulators != work.sums).sum())
        if overflowed:
            notes.append(
                f"{overflowed} of {work.sums.size} accumulators overflowed their "
                f"{self.accumulator_bits} bits and wrapped around"
            )
        return notes

    # ------------------------------------------------------------------ the block diagram

    def _netlist(self, work: Work, name: str) -> Netlist:
        """The blocks of the diagram, one firing per step and lane."""
        steps, done = work.schedule.steps, work.done
        row_lanes = self.cores * self.rows
        run = work.actions()
        psums = work.psums

        def bank(actor: str, lanes: int, busy: Any, part: str, **more: Any) -> Actor:
            return Actor(
                name=actor,
                lanes=lanes,
                firings=steps,
                busy=busy,
                execute=run[actor],
                part=part,
                **more,
            )

        channels = [
            Channel(
                name="steps",
                source="buffers",
                target="aim",
                capacity=self.step_slots,
                pattern=Pattern.BROADCAST,
            ),
            Channel(name="matches", source="aim", target="decoder", capacity=self.match_slots),
            # Pairs stream from the decoder into the multipliers; a register lies between.
            Channel(name="pairs", source="decoder", target="pe", capacity=2),
        ]
        actors = [
            bank("buffers", 1, 1, "Activation and weight buffers"),
            bank(
                "aim",
                self.pes,
                np.maximum(done.passes, 1),
                "AIM: comparators, priority encoders",
                resource="aims",
                request=np.broadcast_to(work.aim_of, (steps, self.pes))[:, :, None],
            ),
            bank("decoder", self.pes, done.cycles, "AIM: sequence decoder", latency=1),
            bank("pe", self.pes, done.cycles, "PE: multipliers and adder tree"),
        ]
        source = "pe"
        if self.core_reduction:
            actors.append(bank("core_reduce", row_lanes, psums, f"Core reducer, {work.mode}"))
            channels += [
                Channel(
                    name=f"pe_psums_{column}",
                    source="pe",
                    target="core_reduce",
                    capacity=2,
                    pattern=Pattern.SHIFT,
                    offset=-column * row_lanes,
                )
                for column in range(self.columns)
            ]
            source = "core_reduce"
        actors.append(
            bank(
                "write_back",
                psums.shape[1],
                np.maximum(psums, 1),
                "Output buffer",
                resource="output_banks",
                request=work.output_bank()[:, :, None],
            )
        )
        channels.append(Channel(name="psums", source=source, target="write_back", capacity=2))
        resources = [
            Resource(name="aims", servers=self.cores * self.aims_per_core, banked=True),
            Resource(name="output_banks", servers=self.cores * self.banks, banked=True),
        ]
        return Netlist(actors, channels, resources, clock_hz=self.clock_hz, name=f"SNAP {name}")

    # ------------------------------------------------------------------ what moved, what it cost

    def _account(self, work: Work) -> Account:
        """Operands from their buffers, psums to the output buffer and back."""
        entry_bits = VALUE_BITS + self.index_bits
        fetched = work.done.fetched.sum(axis=1, dtype=np.int64) + work.weights_fetched
        psums = work.psums.astype(np.int64) * self.accumulator_bits
        whole = get_table(ENERGIES).sram(
            capacity_kib=self.sram_kb * 1000 / 1024 / self.cores, node_nm=NODE_NM
        )
        bit = self._at_supply(
            msgspec.structs.replace(
                whole, basis=Basis.ASSUMED, source=f"{whole.source}; the SRAM of a core as one"
            )
        )
        stores = [
            Store(
                name="operand_buffers",
                capacity_bits=int(self.sram_kb * 8000),
                used_bits=work.stored.bits,
                source="assumed: 280.6 kB in all, recalled; used by the compressed layer",
                read=bit,
                part="operand reads",
            ),
            Store(
                name="output_buffer",
                source="its share of the 280.6 kB is not published",
                read=bit,
                write=bit,
                part="psum read and write",
            ),
        ]
        ports = [
            Port(store="operand_buffers", actor="buffers", read_bits=fetched * entry_bits),
            Port(store="output_buffer", actor="write_back", read_bits=psums, written_bits=psums),
        ]
        return Account(stores, ports)

    def _arithmetic(self, counted: dict[str, int]) -> list[EnergyPart]:
        """Multipliers, adders and comparators; nothing for clock, control and leakage."""
        table = get_table(ENERGIES)
        multiply = table.entry("multiply.int32", node_nm=NODE_NM)
        add = table.entry("add.int32", node_nm=NODE_NM)

        def share(entry: Entry, of: float, how: str) -> Entry:
            made = msgspec.structs.replace(
                entry, value=entry.value * of, basis=Basis.ASSUMED, source=f"{how}; {entry.source}"
            )
            return self._at_supply(made)

        sums = scaling.units(self.accumulator_bits, PAPER_ACCUMULATOR_BITS, "bits of a sum")
        added = share(add, 1, "a 32-bit addition")

        priced = {
            "multipliers": [
                (
                    share(multiply, MULTIPLY_16_PJ_OVER_32, "a quarter of a 32-bit multiplication"),
                    counted["products"],
                )
            ],
            "adders": [
                (added, counted["products"]),
                (scaling.follow(added, [sums]), counted["psums_written"]),
            ],
            "comparators": [
                (
                    share(
                        add,
                        self.index_bits / 32,
                        f"{self.index_bits} of the 32 bits of an addition",
                    ),
                    counted["aim_passes"] * self.comparators**2,
                )
            ],
        }
        return [priced_part(name, each) for name, each in priced.items()]

    def _at_supply(self, entry: Entry) -> Entry:
        """As at the supply of the chip's measured frames, or at a lower one."""
        supply = scaling.supply(NODE_NM, self.supply_v, PAPER_SUPPLY_V)
        return scaling.follow(entry, [supply])
