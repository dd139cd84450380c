"""Eyeriss as a machine: what it computes, and a layer under a mapping as a program."""

from __future__ import annotations

from dataclasses import replace

from sparqsim.architectures.account import Account, Store
from sparqsim.architectures.arrays.shapes import ConvShape
from sparqsim.architectures.eyeriss.config import (
    KIB,
    SPAD_WORDS,
    Configuration,
    RowStationary,
)
from sparqsim.architectures.eyeriss.energies import WORD_BITS, mac_energy_pj, per_bit
from sparqsim.architectures.eyeriss.mapping import (
    analytic_cycles,
    glb_bits,
    processing_cycles,
    unfit,
)
from sparqsim.architectures.eyeriss.netlist import Carried, netlist_of
from sparqsim.architectures.eyeriss.search import search
from sparqsim.architectures.eyeriss.sequence import Sequence
from sparqsim.architectures.fixed_point import COMPUTES, FixedPointLayer
from sparqsim.architectures.machine import Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy.scaling import Factor, words
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.report import EnergyPart, Macs
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encoded import EncodedLayer, as_convolution
from sparqsim.workloads.layers import Layer


class Eyeriss(Configuration, frozen=True, kw_only=True):
    def computes(self, layer: EncodedLayer) -> Computes:
        """16-bit fixed point."""
        return COMPUTES

    def refusal(self, layer: Layer) -> str:
        """Dilated convolutions, and kernels larger than the grid or a scratchpad."""
        conv = as_convolution(layer)
        if conv.dilation != (1, 1):
            return f"it slides whole rows, without dilation, and the layer's is {conv.dilation}"
        high, wide = self.rows, SPAD_WORDS["ifmap"]
        if conv.kernel[0] > high or conv.kernel[1] > wide:
            return f"kernels must be at most {high} x {wide}, and the layer's is {conv.kernel}"
        return ""

    def lower(self, layer: EncodedLayer) -> Program:
        """Convolve, compress and time a layer under the fastest mapping found.

        Raises
        ------
        InputError
            If no mapping fits.
        """
        return self.lower_under(layer, search(self, _shape(layer)))

    def lower_under(self, layer: EncodedLayer, mapping: RowStationary) -> Program:
        """The same under a given mapping.

        Raises
        ------
        InputError
            If the mapping does not fit.
        """
        shape = _shape(layer)
        reason = unfit(self, shape, mapping)
        if reason:
            raise InputError(f"layer {layer.name!r}: {mapping} does not fit: {reason}")
        work = None if layer.is_outline else FixedPointLayer(layer)
        sequence = Sequence(self, shape, mapping, work)
        carried = None if work is None else Carried(sequence, work)
        netlist = netlist_of(sequence, carried, f"Eyeriss {layer.name}")
        account = Account(_stores(sequence), sequence.ports)
        kept = shape.macs - (0 if work is None else work.zero_input)
        counted = _counters(sequence, account, netlist)
        mac, source = mac_energy_pj()
        energy = [EnergyPart(part="mac", energy_pj=mac * kept, basis=Basis.ASSUMED, source=source)]

        def counters(timeline: Timeline) -> dict[str, int]:
            return counted

        def energy_of(timeline: Timeline) -> list[EnergyPart]:
            return energy

        timed = Program(
            netlist=netlist,
            layer=layer.name,
            inputs=layer.source,
            macs=Macs(dense=shape.macs, effectual=shape.macs),
            worker="pe_array",
            multipliers=self.pes,
            account=account,
            counters=counters,
            energy=energy_of,
            notes=_notes(mapping, work),
        )
        if work is None or carried is None:
            return timed
        found = timed.with_work(work)
        return replace(found, lost_steps=work.lost_steps, executed=carried.executed)


def _shape(layer: EncodedLayer) -> ConvShape:
    return ConvShape.of(as_convolution(layer.layer))


def _notes(mapping: RowStationary, work: FixedPointLayer | None) -> list[str]:
    return [
        "the one overhead: every pass loads filters and first windows before it computes",
        f"mapping n={mapping.n} m={mapping.m} e={mapping.e} p={mapping.p} q={mapping.q} "
        f"r={mapping.r} t={mapping.t}",
        *(
            ["timing only: no tensors; no zeros are gated or compressed"]
            if work is None
            else work.notes
        ),
    ]


def _counters(sequence: Sequence, account: Account, netlist: Netlist) -> dict[str, int]:
    """Passes, PEs and products; DRAM's bits by kind, also as if activations were not compressed;
    and what the GLB and the array exchange, which is what the chip's tables count."""
    shape, mapping, work = sequence.shape, sequence.mapping, sequence.work
    linked = sequence.chip.off_chip
    read, written = account.moved(netlist, "glb")
    filters = int(sequence.filter_bits.sum())
    dram_read, dram_written = account.moved(netlist, "dram")
    filled = account.moved(netlist, "glb", "ifmap_dma" if linked else "filter_noc")[1]
    return {
        "passes": sequence.count,
        "active_pes": sequence.busy_pes,
        "analytic_cycles": analytic_cycles(sequence.chip, shape, mapping),
        "analytic_processing_cycles": processing_cycles(sequence.chip, shape, mapping),
        "macs": shape.macs,
        "macs_gated": 0 if work is None else work.zero_input,
        "glb_access_bits": read + written - filled,
        "dram_filter_bits": filters,
        "dram_ifmap_bits": dram_read - filters,
        "dram_ofmap_bits": dram_written,
        "ifmap_raw_bits": int(sequence.block_bits[1].sum()),
        "ofmap_raw_bits": int(sequence.round_bits[1].sum()),
    }


def _stores(sequence: Sequence) -> list[Store]:
    """Scratchpads, networks, both parts of the global buffer, DRAM."""
    chip, mapping = sequence.chip, sequence.mapping
    wide = sequence.shape.kernel_width
    held = mapping.p * mapping.q * wide + mapping.q * wide + mapping.p
    then = Configuration()
    wires = (chip.pes / then.pes) ** 0.5
    spad, dram = per_bit("spad"), per_bit("dram")
    noc = per_bit("noc", [Factor(wires, f"length of the networks, the side of {chip.pes} PEs")])
    glb = per_bit("glb", [words(chip.glb_kib, then.glb_kib)])
    filters = per_bit("glb", [words(chip.filter_kib, then.filter_kib)])
    return [
        Store(
            name="spads",
            part="spad",
            capacity_bits=chip.pes * sum(SPAD_WORDS.values()) * WORD_BITS,
            used_bits=sequence.busy_pes * held * WORD_BITS,
            source="published: 448, 24 and 48 bytes a PE; what products read and write: words "
            "that arrive are the networks'",
            read=spad,
            write=spad,
        ),
        Store(
            name="noc",
            source="networks keep nothing; a word is counted at each PE it reaches",
            write=noc,
        ),
        Store(
            name="glb",
            capacity_bits=chip.glb_kib * KIB,
            used_bits=sum(glb_bits(chip, sequence.shape, mapping)),
            source="published: 108 KB, 8 of them for filters (assumed)",
            read=glb,
            write=glb,
        ),
        Store(
            name="filter_buffer",
            part="filter buffer",
            capacity_bits=chip.filter_kib * KIB,
            used_bits=int(sequence.filter_bits.max()),
            source="assumed: the GLB's part for the filters of the next pass",
            read=filters,
            write=filters,
        ),
        Store(
            name="dram",
            part="DRAM",
            source="no size published; filters raw, activations run-length coded",
            read=dram,
            write=dram,
        ),
    ]
