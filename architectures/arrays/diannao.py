"""DianNao (ASPLOS 2014): a small dense accelerator around one Neural Functional Unit (NFU).

Every cycle the NFU takes 16 inputs and 16 x 16 synapses: NFU-1 multiplies (256 multipliers), NFU-2
adds the 16 products of each output in an adder tree and to its partial sum, NFU-3 applies the
activation function to finished sums. Three split buffers feed it, each behind a DMA of its own:
NBin (inputs), SB (synapses, a row of 256 a cycle) and NBout (partial sums and outputs).

    NBin DMA => NBin => NFU-1 -> NFU-2 -> NFU-3 -> NBout => NBout DMA
      SB DMA => SB   ===^

A layer is cut into tiles that fit half of each buffer, the other half being filled meanwhile; all
DMAs share the memory interface. The tiling is searched (:mod:`.search`), the
netlist is that of :func:`.tiles.tile_netlist` with the NFU for an array:
16 outputs of one pixel, 16 channels of one kernel tap a cycle, so a first layer of 3 channels
leaves 13 of 16 multipliers idle. Arithmetic is 16-bit fixed point with truncated products
(:mod:`sparqsim.architectures.fixed_point`). Zeros save nothing.

Left out: pooling and normalisation (NFU-2 as shifters and maxima), the control program, the
sigmoid's interpolation (outputs are the sums, or ReLU), DRAM latency and rows. All published
numbers are recalled from the paper and unchecked, so they are marked as assumed.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.datapath import Multiplied
from sparqsim.architectures.arrays.machine import Timing
from sparqsim.architectures.arrays.rules import ArrayRules, Drain, Reuse
from sparqsim.architectures.arrays.scales import GroupScales
from sparqsim.architectures.arrays.shapes import ConvShape, Mapping
from sparqsim.architectures.arrays.tiled import TiledMachine
from sparqsim.architectures.arrays.tokens import TileTokens
from sparqsim.architectures.arrays.walk import Walk
from sparqsim.architectures.fixed_point import COMPUTES, RECIPE, FixedPointLayer
from sparqsim.architectures.machine import Area, Figure, Peak, Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.mac import dense, fixed16
from sparqsim.simulator.netlist import Execute, Netlist
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.layers import Layer

NFU_STAGES = 8  # assumed: recalled; operands in to activation out
MACS_8_BIT = 4  # assumed: a 16-bit multiplier costs four of 8 bits, width squared
AREA_MM2 = 3.02  # assumed: recalled; NFU and buffers
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


class DianNao(TiledMachine, frozen=True, kw_only=True):
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
    energy_table
        A shipped table: DianNao's own energies are not known to us.
    """

    name: ClassVar[str] = "diannao"
    title: ClassVar[str] = "DianNao (ASPLOS 2014): dense NFU with three split buffers"
    recipe: ClassVar[str] = RECIPE

    tn: int = 16  # assumed: recalled
    input_buffer_kib: int = 2  # assumed: recalled
    weight_buffer_kib: int = 32  # assumed: recalled
    output_buffer_kib: int = 2  # assumed: recalled
    clock_hz: float = 980e6  # assumed: recalled
    node_nm: float = 65.0  # assumed: recalled
    dram_gbytes_per_s: float = 250.0  # assumed: recalled
    energy_table: str = "horowitz"

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

    def computes(self, layer: EncodedLayer) -> Computes:
        """16-bit fixed point."""
        return COMPUTES

    def published_widths(self, layer: Layer) -> tuple[int, int]:
        """16 bits, whatever the layer would need."""
        for name, bits in (("activation", layer.activation_bits), ("weight", layer.weight_bits)):
            if bits is not None and bits > fixed16.BITS:
                raise InputError(
                    f"layer {layer.name!r}: {name}_bits must be at most 16 for DianNao, got {bits}"
                )
        return fixed16.BITS, fixed16.BITS

    def peak(self) -> Peak:
        """All multipliers of NFU-1."""
        return Peak(macs_per_s=self.multipliers * self.clock_hz, operands="16 x 16 bits")

    def area(self) -> Area | None:
        """Of the published design; of another NFU or other buffers none is known."""
        whole = DianNao()
        if (self.tn, self.buffers_kib) != (whole.tn, whole.buffers_kib):
            return None
        return Area(mm2=AREA_MM2, node_nm=self.node_nm, basis=Basis.ASSUMED, source=RECALLED)

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """With an NFU of so many inputs and outputs a cycle, or that memory; the buffers stay."""
        fields: dict[str, float] = {}
        if macs_per_s is not None:
            fields["tn"] = max(1, round(math.sqrt(macs_per_s / self.clock_hz)))
        if bandwidth is not None:
            fields |= self.of_bandwidth(bandwidth)
        return msgspec.structs.replace(self, **fields)

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Sixteen by sixteen a cycle; the pipeline is filled and emptied once a layer."""
        (inputs, weights, outputs), (bits, cycles) = self.usable_bits, self.dram_bus
        return ArrayRules(
            pixels_per_step=1,
            outputs_per_step=self.tn,
            reduction_per_step=self.tn,
            reduction_granule=self.tn,
            outputs_padded=True,
            output_granule=self.tn,
            input_bits=widths[0],
            weight_bits=widths[1],
            sum_bits=fixed16.BITS,
            output_bits=fixed16.BITS,
            input_usable_bits=inputs,
            weight_usable_bits=weights,
            output_usable_bits=outputs,
            dram_bits=bits,
            dram_cycles=cycles,
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
        work: Multiplied | None = None,
        dynamic: bool = False,
        groups: GroupScales | None = None,
    ) -> Timing:
        """The netlist of a layer, its actors named for the blocks of the NFU.

        ``dynamic`` changes nothing: sums leave in 16 bits, at a scale set beforehand.
        """
        found = super().timing(shape, widths, name, mapping, work)
        plain = found.netlist
        actors = [dataclasses.replace(actor, part=PARTS[actor.name]) for actor in plain.actors]
        named = Netlist(
            actors, plain.channels, plain.resources, plain.clock_hz, f"DianNao {plain.name}"
        )
        return dataclasses.replace(found, netlist=named)

    def lower(self, layer: EncodedLayer) -> Program:
        """Multiply and time a layer in 16 bits.

        Raises
        ------
        InputError
            If it does not fit the buffers.
        """
        work = None if layer.is_outline else TruncatedWork(layer)
        shape, widths = self.shape_of(layer.layer, 1), self.stored_widths(layer)
        return self.program_of(
            self.timing(shape, widths, layer.name, work=work),
            name=layer.name,
            macs=layer.layer.macs,
            work=work,
            inputs=layer.source,
            notes=[] if work is None else work.notes,
        )

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        assumed, derived = Basis.ASSUMED, Basis.DERIVED
        return [
            Figure("NFU", f"{self.tn} x {self.tn} multipliers", assumed, RECALLED),
            Figure("clock", f"{self.clock_hz / 1e6:g} MHz", assumed, RECALLED),
            Figure("peak", f"{self.peak_gops:.0f} GOP/s", derived, "(Tn^2 + Tn (Tn - 1)) x clock"),
            Figure(
                "NBin, NBout",
                f"{self.input_buffer_kib}, {self.output_buffer_kib} KiB",
                assumed,
                RECALLED,
            ),
            Figure("SB", f"{self.weight_buffer_kib} KiB", assumed, RECALLED),
            Figure("memory", f"{self.dram_gbytes_per_s:g} GB/s", assumed, RECALLED),
            Figure("NFU stages", f"{NFU_STAGES}", assumed, RECALLED),
            Figure("area", f"{AREA_MM2:g} mm2", assumed, RECALLED),
            *(
                Figure(entry.name, f"{entry.value:.4g} {entry.unit}", entry.basis, entry.source)
                for entry in self.energies.entries
            ),
        ]


class TruncatedWork(FixedPointLayer):
    """A layer in fixed point whose tiles can be executed by tokens."""

    def __init__(self, layer: EncodedLayer) -> None:
        super().__init__(layer)
        self.tokens: TileTokens | None = TileTokens(self.conv, self.x, self.w, self._products)

    def actions(self, walk: Walk) -> dict[str, Execute]:
        """What the actors of a netlist of tiles do with their tokens."""
        assert self.tokens is not None
        return self.tokens.actions(walk)

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run carried the kernel's sums."""
        carried = None if self.tokens is None else self.tokens.sums()
        return carried is not None and np.array_equal(dense.wrap(carried, fixed16.BITS), self.sums)

    def _products(
        self, pixels: NDArray[Any], weights: NDArray[Any], group: int, inputs: slice, outputs: slice
    ) -> NDArray[np.int64]:
        """A tile in the NFU: every product loses its low bits before it is added."""
        sums = np.zeros((*pixels.shape[:-2], weights.shape[-1]), np.int64)
        for tap, channel in np.ndindex(*weights.shape[:2]):
            factors = weights[tap, channel].astype(np.int64)
            sums += (pixels[..., tap, channel, None] * factors) >> self.shift
        return sums
