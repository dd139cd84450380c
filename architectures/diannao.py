"""DianNao (ASPLOS 2014): a small dense accelerator around one Neural Functional Unit (NFU).

Every cycle the NFU takes 16 inputs and 16 x 16 synapses: NFU-1 multiplies (256 multipliers), NFU-2
adds the 16 products of each output in an adder tree and to its partial sum, NFU-3 applies the
activation function to finished sums. Three split buffers feed it, each behind a DMA of its own:
NBin (inputs), SB (synapses, a row of 256 a cycle) and NBout (partial sums and outputs).

    NBin DMA => NBin => NFU-1 -> NFU-2 -> NFU-3 -> NBout => NBout DMA
      SB DMA => SB   ===^

A layer is cut into tiles that fit half of each buffer, the other half being filled meanwhile; all
DMAs share the memory interface. The tiling is searched (:mod:`sparqsim.architectures.tiling`), the
netlist
is that of :func:`sparqsim.architectures.systolic.tile_netlist` with the NFU for an array: 16
outputs of one pixel, 16 channels of one kernel tap a cycle, so a first layer of 3 channels leaves
13 of 16 multipliers idle. Arithmetic is 16-bit fixed point with truncated products. Zeros save
nothing.

Left out: pooling and normalisation (NFU-2 as shifters and maxima), the control program, the
sigmoid's interpolation (outputs are the sums, or ReLU), DRAM latency and rows. All published
numbers are recalled from the paper and unchecked, so they are marked as assumed.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from sparqsim.architectures.array_machine import KIB, PUBLISHED, ArrayMachine, Timing, Work
from sparqsim.architectures.fixed_point import FixedPointLayer
from sparqsim.architectures.machine import Figure, Program
from sparqsim.architectures.tiling import (
    ArrayRules,
    ConvShape,
    Drain,
    Layout,
    Mapping,
    Reuse,
)
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.mac import fixed16
from sparqsim.simulator.netlist import Netlist
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.tensors import LayerTensors

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
    input_buffer_kib
        NBin, both halves.
    weight_buffer_kib
        SB, both halves.
    output_buffer_kib
        NBout, both halves.
    clock_mhz
        Clock of the NFU.
    node_nm
        Technology.
    memory_gbytes_per_s
        Of the memory interface.
    energy_table
        A shipped table: DianNao's own energies are not known to us.
    """

    name: ClassVar[str] = "diannao"
    title: ClassVar[str] = "DianNao (ASPLOS 2014): dense NFU with three split buffers"

    tn: int = 16  # assumed: recalled
    input_buffer_kib: int = 2  # assumed: recalled
    weight_buffer_kib: int = 32  # assumed: recalled
    output_buffer_kib: int = 2  # assumed: recalled
    clock_mhz: float = 980.0  # assumed: recalled
    node_nm: float = 65.0  # assumed: recalled
    memory_gbytes_per_s: int = 250  # assumed: recalled
    energy_table: str = "horowitz"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.energy_table == PUBLISHED:
            raise InputError(
                "diannao.energy_table must be a shipped table such as horowitz: energies "
                "published for DianNao are not known"
            )
        if self.dram_bits_per_cycle < 1:
            raise InputError(
                "diannao.memory_gbytes_per_s must move at least a bit a cycle, got "
                f"{self.memory_gbytes_per_s!r} at {self.clock_mhz!r} MHz"
            )

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
    def multipliers_at_8_bits(self) -> int:
        """8-bit multipliers that cost as much as NFU-1's."""
        return MACS_8_BIT * self.multipliers

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
            input_room_bits=self.input_buffer_kib * KIB // 2,
            weight_room_bits=self.weight_buffer_kib * KIB // 2,
            output_room_bits=self.output_buffer_kib * KIB // 2,
            dram_bits_per_cycle=self.dram_bits_per_cycle,
            reuse=Reuse.OUTPUT,  # a sum stays in NFU-2 while its tile is added up
            drain=Drain.PER_LAYER,
            drain_cycles=NFU_STAGES,
        )

    def timing(
        self,
        shape: ConvShape,
        widths: tuple[int, int],
        name: str,
        mapping: Mapping | None = None,
        work: Work | None = None,
    ) -> Timing:
        """The netlist of a layer, its actors named for the blocks of the NFU."""
        found = super().timing(shape, widths, name, mapping, work)
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
            Figure(
                "NBin, NBout",
                f"{self.input_buffer_kib}, {self.output_buffer_kib} KiB",
                assumed,
                RECALLED,
            ),
            Figure("SB", f"{self.weight_buffer_kib} KiB", assumed, RECALLED),
            Figure("memory", f"{self.memory_gbytes_per_s:g} GB/s", assumed, RECALLED),
            Figure("NFU stages", f"{NFU_STAGES}", assumed, RECALLED),
            *(
                Figure(entry.name, f"{entry.value:.4g} {entry.unit}", entry.basis, entry.source)
                for entry in self.energies.entries
            ),
        ]
