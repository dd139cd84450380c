"""DianNao (ASPLOS 2014): a small dense accelerator around one Neural Functional Unit (NFU).

Every cycle the NFU takes 16 inputs and 16 x 16 synapses: NFU-1 multiplies (256 multipliers), NFU-2
adds the 16 products of each output in an adder tree and to its partial sum, NFU-3 applies the
activation function to finished sums. Three split buffers feed it, each behind a DMA of its own:
NBin (inputs), SB (synapses, a row of 256 a cycle) and NBout (partial sums and outputs).

    NBin DMA => NBin => NFU-1 -> NFU-2 -> NFU-3 -> NBout => NBout DMA
      SB DMA => SB   ===^

A layer is cut into tiles that fit half of each buffer, the other half being filled meanwhile; all
DMAs share the memory interface. The tiling is searched (:mod:`architectures.tiling`), the netlist
is that of :func:`architectures.systolic.tile_netlist` with the NFU for an array: 16 outputs of one
pixel, 16 channels of one kernel tap a cycle, so a first layer of 3 channels leaves 13 of 16
multipliers idle. Arithmetic is 16-bit fixed point with truncated products. Zeros save nothing.

Left out: pooling and normalisation (NFU-2 as shifters and maxima), the control program, the
sigmoid's interpolation (outputs are the sums, or ReLU), DRAM latency and rows. All published
numbers are recalled from the paper and unchecked, so they are marked as assumed.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import msgspec

from architectures.array_machine import KIB, ArrayMachine, Timing, shipped_energies
from architectures.fixed_point import FixedPointLayer
from architectures.machine import Figure, Program
from architectures.tiling import (
    ArrayRules,
    ConvShape,
    Drain,
    Layout,
    Mapping,
    Reuse,
    check_positive,
    check_whole,
)
from simulator.energy.tables import Basis, EnergyTable
from simulator.mac import fixed16
from simulator.netlist import Netlist
from sparqsim_base import InputError
from workloads.layers import Layer
from workloads.tensors import LayerTensors

NODE_NM = 65.0  # assumed: recalled
NFU_STAGES = 8  # assumed: recalled; operands in to activation out
MACS_8_BIT = 4  # assumed: a 16-bit multiplier costs four of 8 bits, width squared
RECALLED = "ASPLOS 2014, recalled, unchecked"
# The blocks of the diagram that the actors of a netlist of tiles stand for.
PARTS = {
    "input_dma": "NBin DMA",
    "weight_dma": "SB DMA",
    "psum_dma": "NBout DMA, partial sums in",
    "array": "NFU-1 and NFU-2",
    "drain": "NFU pipeline",
    "post": "NFU-3",
    "output_dma": "NBout DMA",
}


class DianNao(ArrayMachine, frozen=True, kw_only=True):
    """Configuration of DianNao.

    Attributes
    ----------
    tn
        Outputs, and inputs of each, that the NFU takes in a cycle.
    nbin_kib, nbout_kib, sb_kib
        The buffers, both halves.
    clock_mhz
        Clock.
    memory_gbytes_per_s
        Of the memory interface.
    """

    title: ClassVar[str] = "DianNao (ASPLOS 2014): dense NFU with three split buffers"

    tn: int = 16  # assumed: recalled
    nbin_kib: int = 2  # assumed: recalled
    nbout_kib: int = 2  # assumed: recalled
    sb_kib: int = 32  # assumed: recalled
    clock_mhz: float = 980.0  # assumed: recalled
    memory_gbytes_per_s: float = 250.0  # assumed: recalled

    def __post_init__(self) -> None:
        fields = msgspec.structs.asdict(self)
        rates = {name: fields.pop(name) for name in ("clock_mhz", "memory_gbytes_per_s")}
        check_positive("diannao", **rates)
        check_whole("diannao", **fields)
        if self.dram_bits_per_cycle < 1:
            raise InputError(
                "diannao.memory_gbytes_per_s must move at least a bit a cycle, got "
                f"{self.memory_gbytes_per_s!r} at {self.clock_mhz!r} MHz"
            )

    @property
    def clock_hz(self) -> float:
        """Clock of the NFU."""
        return self.clock_mhz * 1e6

    @property
    def dram_bits_per_cycle(self) -> int:
        """Bits the memory interface moves in a cycle of the NFU."""
        return int(self.memory_gbytes_per_s * 8e9 // self.clock_hz)

    @property
    def multipliers(self) -> int:
        """Of NFU-1."""
        return self.tn**2

    @property
    def peak_gops(self) -> float:
        """Multiplications of NFU-1 and additions of NFU-2's trees a nanosecond."""
        return (self.tn**2 + self.tn * (self.tn - 1)) * self.clock_hz / 1e9

    @property
    def energies(self) -> EnergyTable:
        """Energies of the shipped table; DianNao's own are not known to us."""
        return shipped_energies(
            "cacti-aladdin",
            node_nm=NODE_NM,
            multipliers=MACS_8_BIT * self.multipliers,
            buffers_kib=(self.nbin_kib, self.sb_kib, self.nbout_kib),
            dram="dram.ddr3",
        )

    def widths(self, layer: Layer) -> tuple[int, int]:
        """16 bits, whatever the layer would need."""
        for name, bits in (("activation", layer.activation_bits), ("weight", layer.weight_bits)):
            if bits is not None and bits > fixed16.BITS:
                raise InputError(
                    f"layer {layer.name!r}: {name}_bits must be at most 16 for DianNao, got {bits}"
                )
        return fixed16.BITS, fixed16.BITS

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Sixteen by sixteen a cycle; the pipeline is filled and emptied once a layer."""
        return ArrayRules(
            pixels_per_step=1,
            outputs_per_step=self.tn,
            reduction_per_step=self.tn,
            layout=Layout.PATCH,
            reduction_granule=self.tn,
            outputs_padded=True,
            outputs_read_back=True,
            last_store_counted=True,
            output_granule=self.tn,
            input_bits=widths[0],
            weight_bits=widths[1],
            output_bits=fixed16.BITS,
            input_room_bits=self.nbin_kib * KIB // 2,
            weight_room_bits=self.sb_kib * KIB // 2,
            output_room_bits=self.nbout_kib * KIB // 2,
            dram_bits_per_cycle=self.dram_bits_per_cycle,
            reuse=Reuse.OUTPUT,  # a sum stays in NFU-2 while its tile is added up
            drain=Drain.PER_LAYER,
            drain_cycles=NFU_STAGES,
        )

    def timing(
        self, shape: ConvShape, widths: tuple[int, int], name: str, mapping: Mapping | None = None
    ) -> Timing:
        """The netlist of a layer, its actors named for the blocks of the NFU."""
        found = super().timing(shape, widths, name, mapping)
        plain = found.netlist
        actors = [dataclasses.replace(actor, part=PARTS[actor.name]) for actor in plain.actors]
        named = Netlist(
            actors, plain.channels, plain.resources, plain.clock_hz, f"DianNao {plain.name}"
        )
        return dataclasses.replace(found, netlist=named)

    def lower(self, tensors: LayerTensors) -> Program:
        """Quantize to 16 bits, multiply and time a layer.

        Raises
        ------
        InputError
            On a dilated convolution, or one that does not fit the buffers.
        """
        layer = tensors.layer
        widths = self.widths(layer)
        work = FixedPointLayer(tensors)
        return self._program(
            name=layer.name,
            inputs=tensors.source,
            macs=layer.macs,
            effectual=work.effectual,
            timing=self.timing(self.shape_of(layer, 1), widths, layer.name),
            work=work,  # type: ignore[arg-type]  # it has what a program needs of its work
            notes=[work.note],
        )

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        assumed, derived = Basis.ASSUMED, Basis.DERIVED
        return [
            Figure("NFU", f"{self.tn} x {self.tn} multipliers", assumed, RECALLED),
            Figure("clock", f"{self.clock_mhz:g} MHz", assumed, RECALLED),
            Figure("peak", f"{self.peak_gops:.0f} GOP/s", derived, "(Tn^2 + Tn (Tn - 1)) x clock"),
            Figure("NBin, NBout", f"{self.nbin_kib}, {self.nbout_kib} KiB", assumed, RECALLED),
            Figure("SB", f"{self.sb_kib} KiB", assumed, RECALLED),
            Figure("memory", f"{self.memory_gbytes_per_s:g} GB/s", assumed, RECALLED),
            Figure("NFU stages", f"{NFU_STAGES}", assumed, RECALLED),
            *(
                Figure(entry.name, f"{entry.value:.4g} {entry.unit}", entry.basis, entry.source)
                for entry in self.energies.entries
            ),
        ]
