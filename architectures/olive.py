"""OliVe (ISCA 2023): outlier-victim pairs decoded at the borders of a systolic array.

Large values (outliers) matter and are rare; OliVe stores one in the place of two: its neighbour,
the victim, becomes 0 and its code says so. Pairs stay aligned, a byte at 4 bits, so decoders along
the array's two borders (n + m of them) are all it takes: each looks at a pair and hands the
elements exponents and integers, <a, b>. An element computes <a, b> x <c, d> = (b d) << (a + c) into
a 32-bit accumulator; four 4-bit elements gang into one of 8 bits. Output-stationary.

Pairs are neighbours along the reduction: channels of a pixel, features of a vector. Channels that
are odd in number get one of zeros. Buffers, bandwidth, clock and energies are not published; they
are ANT's here, and assumed. Left out: OliVe's other form, decoders in a GPU's tensor cores.
Source: the ISCA 2023 paper and its authors' quantizer; no simulator was released.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.array_machine import (
    ANT_ENERGY,
    BankedMachine,
    Operand,
    borrowed,
    four_or_eight,
    unfolded_rules,
)
from sparqsim.architectures.systolic import Dataflow
from sparqsim.architectures.tiling import ArrayRules, ConvShape, Drain
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import EnergyTable
from sparqsim.simulator.mac import flint, olive
from sparqsim.workloads import formats
from sparqsim.workloads.formats.pairs import OutlierVictim
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.quantize import fit_olive

ENERGY = borrowed(ANT_ENERGY, "olive", "assumed as ANT's, OliVe published none")


class Olive(BankedMachine, frozen=True, kw_only=True):
    """Configuration; sizes are ANT's and assumed, the array and its arithmetic published.

    Attributes
    ----------
    side_at_8_bits
        Rows and columns of gangs of four elements; twice as many elements at 4 bits.
    input_buffer_kib
        Input buffer, both halves.
    weight_buffer_kib
        Weight buffer, both halves.
    output_buffer_kib
        Output buffer, both halves.
    output_bits
        Width of a stored output.
    dram_bits_per_cycle
        Width of the DRAM interface at the array's clock.
    clock_mhz
        Clock of the array.
    node_nm
        Technology.
    bits
        Width of layers that name none, 4 or 8.
    dram_standard
        "bus", so many bits a cycle without latency, or the name of a DRAM standard.
    dram_channels
        Channels of that standard.
    energy_table
        What prices a run: "published" is ANT's energies, assumed, else a shipped table.
    """

    name: ClassVar[str] = "olive"
    title: ClassVar[str] = "OliVe (ISCA 2023): outlier-victim pairs, decoded at the borders"

    published: ClassVar[EnergyTable] = ENERGY
    assumed: ClassVar[frozenset[str]] = frozenset(
        (
            "input_buffer_kib",
            "weight_buffer_kib",
            "output_buffer_kib",
            "output_bits",
            "dram_bits_per_cycle",
            "clock_mhz",
            "node_nm",
            "side_at_8_bits",
        )
    )

    side_at_8_bits: int = 32  # assumed: ANT's
    weight_buffer_kib: int = 128  # assumed: ANT's
    input_buffer_kib: int = 256  # assumed: ANT's
    output_buffer_kib: int = 128  # assumed: ANT's
    output_bits: int = 16  # assumed: ANT's
    dram_bits_per_cycle: int = 1024  # assumed: ANT's
    clock_mhz: float = 500.0  # assumed: ANT's
    node_nm: float = 22.0  # assumed: recalled from the paper, unchecked
    bits: int = 4  # published

    def __post_init__(self) -> None:
        super().__post_init__()
        self.side(self.bits)

    def side(self, bits: int) -> int:
        """Rows (and columns) of the array at a width: 4-bit elements, or gangs of four."""
        if bits not in (4, 8):
            raise InputError(f"OliVe computes at 4 or 8 bits, got {bits!r}; store the tensor at 8")
        return self.side_at_8_bits * (8 // bits)

    @property
    def multipliers_at_8_bits(self) -> int:
        """A gang of four elements each."""
        return self.side_at_8_bits**2

    def widths(self, layer: Layer) -> tuple[int, int]:
        """4 bits, or 8 where either operand of the layer needs more than 4."""
        return four_or_eight("OliVe", layer, self.bits)

    def shape_of(self, layer: Layer, batch: int) -> ConvShape:
        """The layer with an even number of channels a group."""
        shape = ConvShape.of(layer, batch=batch)
        even = shape.in_channels + shape.in_channels % 2
        return msgspec.structs.replace(shape, in_channels=even)

    def layer_rules(self, shape: ConvShape, widths: tuple[int, int]) -> ArrayRules:
        """Output-stationary folds back to back while they are not shorter than what leaves."""
        side = self.side(widths[0])
        return unfolded_rules(
            rows=side,
            columns=side,
            dataflow=Dataflow.OUTPUT_STATIONARY,
            bits=widths[0],
            output_bits=self.output_bits,
            buffers_kib=self.buffers_kib,
            dram_bits_per_cycle=self.dram_bits_per_cycle,
            drain=Drain.SHORT_PASSES,
        )

    def store(self, values: NDArray[Any], bits: int, *, weights: bool, groups: int) -> Operand:
        """Pairs along the channels of a group, the threshold of least squared error."""
        outer, channels, height, width = values.shape
        if weights:
            groups = 1  # their channels are those of one group already
        split = values.reshape(outer, groups, channels // groups, height, width)
        odd = split.shape[2] % 2
        last = np.pad(split.transpose(0, 3, 4, 1, 2), [(0, 0)] * 4 + [(0, odd)])
        flat = last.reshape(outer, -1)  # channels innermost, and even in number
        stored = fit_olive(flat, bits, axis=0 if weights else None).quantize(flat)

        def image(coded: NDArray[Any]) -> NDArray[Any]:
            back = coded.reshape(last.shape).transpose(0, 3, 4, 1, 2)
            return np.ascontiguousarray(back).reshape(outer, -1, height, width)

        return Operand(
            codes=image(stored.codes),
            levels=image(stored.levels().astype(np.float64)),
            scale=stored.scale.astype(np.float64),
            signed=True,
            format=stored.format.name,
        )

    def multiply(
        self, rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand,
        widths: tuple[int, int],
    ) -> NDArray[np.integer]:  # fmt: skip
        """Exponent-integer products of decoded pairs."""
        left = _decoded(rows, x)
        right = [(e.T, i.T) for e, i in _decoded(np.ascontiguousarray(columns.T), w)]
        return flint.gemm_terms(left, right)


def _decoded(codes: NDArray[Any], operand: Operand) -> flint.Terms:
    """What the border decoders make of pairs along the last axis."""
    grid = cast(OutlierVictim, formats.get(operand.format))
    normal, outlier = (
        np.stack(part.exponent_integers, axis=1).astype(np.int32)
        for part in (grid.normal, grid.outlier)
    )
    terms, _ = olive.operand(codes, grid.bits, grid.identifier, normal, outlier)
    return terms
