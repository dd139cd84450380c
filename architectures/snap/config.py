"""SNAP's numbers: what is published, and the fields that stand for what is not."""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec

from sparqsim.architectures.checks import check_bounds, check_clock
from sparqsim.architectures.machine import Area, Figure, Machine, Peak
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis

VALUE_BITS = 16  # published, JSSC abstract: 16-bit fixed point
NODE_NM = 16.0  # published, JSSC abstract
AREA_MM2 = 2.3  # published, JSSC abstract
PAPER_CLOCK_HZ = 480e6  # published, JSSC abstract: at 0.80 V, for ResNet-50
PAPER_SUPPLY_V, LEAST_SUPPLY_V = 0.80, 0.55  # published, JSSC abstract: 480 and 260 MHz
PAPER_CORES = 4  # assumed: recalled from the paper, unchecked
PAPER_ACCUMULATOR_BITS = 48  # assumed: 32-bit products and room for 2^16 of them
SRAM_KB = 280.6  # assumed: recalled from the paper, unchecked
MOST_CORES = 64  # assumed: a bound on what is tried


class Configuration(Machine, frozen=True, kw_only=True):
    """Configuration of SNAP; the defaults are the chip as far as it is known.

    Attributes
    ----------
    cores
        Cores; they split the output channels.
    rows
        Rows of PEs in a core; each works on an output of its own.
    columns
        Columns of PEs in a core; the PEs that the second reduction level adds up.
    multipliers
        Multipliers of a PE.
    comparators
        N: comparators on a side of an AIM.
    bundle_channels
        Channels a bundle covers, 1 to 256.
    pes_per_aim
        PEs that share an AIM.
    kernels_per_step
        Most output channels a PE works through with one activation bundle.
    split_tree
        Whether a cycle may hold products of two outputs; if not, it holds those of one pair.
    pe_reduction
        First level: add up the products of a bundle pair in the PE.
    core_reduction
        Second level: add up the PEs of a diagonal or row.
    banks
        Banks of a core's output buffer.
    step_slots
        Steps that can wait before a PE's AIM.
    match_slots
        Steps whose matches a PE's decoder holds.
    accumulator_bits
        Width of the sums in the output buffer, which wrap around.
    supply_v
        Supply voltage.
    """

    name: ClassVar[str] = "snap"
    title: ClassVar[str] = "SNAP (VLSI 2019): weights and activations matched by channel index"
    recipe: ClassVar[str] = "int16"
    needs_numbers: ClassVar[bool] = True

    cores: int = PAPER_CORES
    rows: int = 7  # assumed: recalled from the paper, unchecked
    columns: int = 3  # assumed: recalled from the paper, unchecked
    multipliers: int = 3  # assumed: recalled from the paper, unchecked
    comparators: int = 32  # assumed: 16 is as likely
    bundle_channels: int = 32  # assumed: a dense bundle fills the comparators
    pes_per_aim: int = 3  # assumed: the PEs of a row share one
    kernels_per_step: int = 16  # assumed: not published
    split_tree: bool = True  # published in outline: the adder tree is configurable
    pe_reduction: bool = True  # published: first level
    core_reduction: bool = True  # published: second level
    banks: int = 8  # assumed: the power of two above the rows
    step_slots: int = 4  # assumed: not published
    match_slots: int = 2  # assumed: double buffering
    accumulator_bits: int = PAPER_ACCUMULATOR_BITS
    clock_hz: float = PAPER_CLOCK_HZ
    supply_v: float = PAPER_SUPPLY_V

    def __post_init__(self) -> None:
        bounds = {
            "cores": (1, MOST_CORES, "cores"),
            "rows": (1, 64, "rows of PEs"),
            "columns": (1, 64, "columns of PEs"),
            "multipliers": (1, 64, "multipliers of a PE"),
            "comparators": (1, 256, "comparators on a side"),
            "bundle_channels": (1, 256, "channels of a bundle; an index has 8 bits"),
            "pes_per_aim": (1, self.rows * self.columns, "PEs of a core that share an AIM"),
            "kernels_per_step": (1, 1 << 16, "output channels"),
            "banks": (1, 1024, "banks of a core"),
            "step_slots": (1, 1 << 20, "steps"),
            "match_slots": (1, 1 << 20, "steps"),
            "accumulator_bits": (16, 63, "bits"),
        }
        check_bounds("snap", self, bounds)
        check_clock("snap", self.clock_hz)
        if not LEAST_SUPPLY_V <= self.supply_v <= PAPER_SUPPLY_V:
            raise InputError(
                f"snap.supply_v must be {LEAST_SUPPLY_V} to {PAPER_SUPPLY_V:.2f} V, at which the "
                f"chip was measured, got {self.supply_v!r}"
            )

    def without_timing(self) -> Self:
        """The same for configurations that differ in timing alone: they do the same work."""
        return msgspec.structs.replace(self, step_slots=1, match_slots=1, clock_hz=PAPER_CLOCK_HZ)

    @property
    def pes(self) -> int:
        """PEs of all cores."""
        return self.cores * self.rows * self.columns

    @property
    def sram_kb(self) -> float:
        """SRAM of all cores; each has as much as on the chip."""
        return SRAM_KB * self.cores / PAPER_CORES

    @property
    def index_bits(self) -> int:
        """Bits of a channel index within its bundle."""
        return (self.bundle_channels - 1).bit_length()

    @property
    def aims_per_core(self) -> int:
        """AIMs of a core."""
        return -(-self.rows * self.columns // self.pes_per_aim)

    def peak(self) -> Peak:
        """One product per multiplier and cycle."""
        return Peak(
            macs_per_s=self.pes * self.multipliers * self.clock_hz,
            operands=f"{VALUE_BITS} x {VALUE_BITS} bits",
        )

    def area(self) -> Area:
        """Of the chip; of another size by its multipliers, whose number is recalled."""
        lanes, chip = self.pes * self.multipliers, Configuration()
        paper = chip.pes * chip.multipliers
        return Area(
            mm2=AREA_MM2 * lanes / paper,
            node_nm=NODE_NM,
            basis=Basis.PUBLISHED if lanes == paper else Basis.ASSUMED,
            source=f"JSSC abstract: {AREA_MM2} mm2"
            + ("" if lanes == paper else f", x {lanes} of {paper} multipliers"),
        )

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """With other cores, 1 to 64."""
        if macs_per_s is None:
            return super().resized(bandwidth=bandwidth)
        of_core = self.rows * self.columns * self.multipliers * self.clock_hz
        cores = min(max(round(macs_per_s / of_core), 1), MOST_CORES)
        return msgspec.structs.replace(self, cores=cores)

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        published, derived, assumed = Basis.PUBLISHED, Basis.DERIVED, Basis.ASSUMED
        lanes = self.pes * self.multipliers
        recalled, unknown = "recalled from the paper, unchecked", "not published"
        return [
            Figure("clock", f"{self.clock_hz / 1e6:g} MHz", published, "480 MHz at 0.80 V"),
            Figure("precision", f"{VALUE_BITS} bits", published, "JSSC abstract"),
            Figure("cores", f"{self.cores}", assumed, recalled),
            Figure("PEs of a core", f"{self.rows} x {self.columns}", assumed, recalled),
            Figure("multipliers of a PE", f"{self.multipliers}", assumed, recalled),
            Figure("multipliers", f"{lanes}", derived, "cores x PEs x multipliers"),
            Figure("peak", f"{lanes * self.clock_hz / 1e9:g} GMAC/s", derived, "x clock"),
            Figure("AIM", f"{self.comparators} x {self.comparators}", assumed, "16 is as likely"),
            Figure("channels of a bundle", f"{self.bundle_channels}", assumed, unknown),
            Figure("PEs per AIM", f"{self.pes_per_aim}", assumed, unknown),
            Figure("output channels a step", f"{self.kernels_per_step}", assumed, unknown),
            Figure("output banks per core", f"{self.banks}", assumed, unknown),
            Figure("step, match slots", f"{self.step_slots}, {self.match_slots}", assumed, unknown),
            Figure("accumulator", f"{self.accumulator_bits} bits", assumed, unknown),
            Figure("SRAM", f"{self.sram_kb:g} kB", assumed, recalled),
            Figure("supply", f"{self.supply_v:g} V", published, "0.55 to 0.80 V"),
        ]
