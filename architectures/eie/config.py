"""EIE's numbers: published constants, and the fields that may be varied."""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec

from sparqsim.architectures.checks import check_bounds, check_clock
from sparqsim.architectures.machine import Area, Figure, Machine, Peak
from sparqsim.simulator.energy import scaling
from sparqsim.simulator.energy.tables import Basis, Entry, Kind, Unit, get_table

KIB = 1024 * 8  # bits
WEIGHT_BITS = ACTIVATION_BITS = 16  # published, section IV: 16-bit fixed point
CODE_BITS = 4  # published, section III: 16 shared weights, code 0 is zero
POINTER_BITS = 16  # published, section IV
SPMAT_KIB, PTR_KIB, ACT_KIB = 128, 32, 2  # published, section IV, each PE
ACT_PORT_BITS = 64  # assumed: as wide as the sparse-matrix SRAM; the paper does not say
ARITHMETIC_STAGES = 3  # derived from the authors' simulator: entry to write register is 6 cycles
PAPER_CLOCK_HZ = 800e6  # published, section VI: at which Table II was measured
MOST_PES = 256  # published, section VII: the largest array studied
LNZD_FANIN = 4  # published, section IV: a quadtree
NODE_NM = 45.0  # published, section VI

# published, Table II: milliwatts of one PE at 800 MHz and 45 nm, by module
POWER_MW = {
    "queue": 0.112,
    "ptr_read": 1.807,
    "spmat_read": 4.955,
    "arithmetic": 1.162,
    "act_rw": 1.122,
}
TABLE_II = "Table II (45 nm, 800 MHz), power over time"
PAPER_SLOTS = 8  # published, section VI: queue depth 8
PAPER_INDEX_BITS = 4  # published, section III
PAPER_REGISTERS = 64  # published, section IV
PAPER_ACCUMULATOR_BITS = 40  # assumed: 16 x 16 bits and room for 2^9 products; not published
PAPER_ROW_ENTRIES = 8  # published, section VI: 64-bit interface of the sparse-matrix SRAM
PE_MM2 = 0.638024  # published, Table II
LNZD_NODE_MW = 0.023  # assumed: recalled from the paper, unchecked
ACT_SRAM = Entry(
    name="act_sram",
    value=2.76 / 64,
    unit=Unit.PJ_PER_BIT,
    node_nm=NODE_NM,
    kind=Kind.MEMORY,
    basis=Basis.DERIVED,
    source="CACTI 7: 2 KB, 64-bit port, 2.76 pJ per read; a write is taken as equal",
    capacity_kib=ACT_KIB,
)


class Configuration(Machine, frozen=True, kw_only=True):
    """Configuration of EIE; the defaults are the paper's 64-PE design.

    Attributes
    ----------
    pes
        Processing elements, 1 to 256.
    queue_slots
        Slots of each activation queue's ring, at least 2; one less is usable.
    sram_row_entries
        Entries in a row of the sparse-matrix SRAM (8 entries of 8 bits are 64 bits).
    index_bits
        Bits of an entry's relative row index, 1 to 8.
    act_registers
        Activations each PE's register files hold.
    act_spill
        Whether vectors longer than the registers go through the activation SRAM in batches. False
        as in the authors' simulator, which leaves it out.
    accumulator_bits
        Width of the accumulators, which wrap around.
    """

    name: ClassVar[str] = "eie"
    title: ClassVar[str] = "EIE (ISCA 2016): compressed sparse matrix x sparse vector"
    recipe: ClassVar[str] = "eie"
    needs_numbers: ClassVar[bool] = True
    takes_counts: ClassVar[bool] = True

    pes: int = 64  # published, section VI
    clock_hz: float = PAPER_CLOCK_HZ
    queue_slots: int = PAPER_SLOTS
    sram_row_entries: int = PAPER_ROW_ENTRIES  # published, section VI
    index_bits: int = PAPER_INDEX_BITS  # published, section III
    act_registers: int = PAPER_REGISTERS  # published, section IV
    act_spill: bool = True
    accumulator_bits: int = PAPER_ACCUMULATOR_BITS

    def __post_init__(self) -> None:
        bounds = {
            "pes": (1, MOST_PES, "PEs"),
            "queue_slots": (2, 1 << 20, "a ring of S slots holds S - 1 activations"),
            "sram_row_entries": (1, 1024, "entries of an SRAM row"),
            "index_bits": (1, 8, "bits of a relative index"),
            "act_registers": (1, 1 << 16, "activations a PE holds"),
            "accumulator_bits": (16, 63, "bits"),
        }
        check_bounds("eie", self, bounds)
        check_clock("eie", self.clock_hz)

    def without_timing(self) -> Self:
        """The same for configurations that differ in timing alone: they do the same work."""
        return msgspec.structs.replace(self, queue_slots=2, clock_hz=PAPER_CLOCK_HZ)

    @property
    def lnzd_nodes(self) -> int:
        """Nodes of the quadtree: 16 + 4 + 1 for 64 PEs."""
        nodes, width = 0, self.pes
        while width > 1:
            width = -(-width // LNZD_FANIN)
            nodes += width
        return max(nodes, 1)

    @property
    def registers(self) -> int:
        """Activations the register files of all PEs hold: 4096 for 64 PEs."""
        return self.pes * self.act_registers

    @property
    def entry_bits(self) -> int:
        """Bits of a stored entry: a code and a relative index."""
        return CODE_BITS + self.index_bits

    def powers_mw(self, reads: float = 1.0, pointer_bits: int = POINTER_BITS) -> dict[str, Entry]:
        """Power of a PE's modules at 800 MHz: Table II's, as it follows the configuration.

        Parameters
        ----------
        reads
            Rows of the sparse-matrix SRAM that are read, over those that would be if they were as
            wide as published.
        pointer_bits
            Width of a stored pointer.
        """
        row = self.sram_row_entries * self.entry_bits
        then = PAPER_ROW_ENTRIES * (CODE_BITS + PAPER_INDEX_BITS)
        rows = scaling.Factor(reads, f"rows read, {reads:.3g} times those of {then} bits")
        adder, multiplier = _arithmetic_pj()
        sums = (multiplier + adder * self.accumulator_bits) / (
            multiplier + adder * PAPER_ACCUMULATOR_BITS
        )
        factors = {
            "queue": [scaling.units(self.queue_slots, PAPER_SLOTS, "slots of a queue's registers")],
            "ptr_read": [scaling.access(PTR_KIB, PTR_KIB, 2 * pointer_bits, 2 * POINTER_BITS)],
            "spmat_read": [rows, scaling.access(SPMAT_KIB, SPMAT_KIB, row, then)],
            "arithmetic": [
                scaling.Factor(sums, "width of the accumulator, adder over multiplier as horowitz")
            ],
            "act_rw": [scaling.words(self.act_registers, PAPER_REGISTERS)],
        }
        return {
            part: scaling.follow(
                Entry(
                    name=part, value=power, unit=Unit.MILLIWATT, node_nm=NODE_NM, kind=Kind.LOGIC,
                    basis=Basis.DERIVED, source=TABLE_II,
                ),
                factors[part],
            )
            for part, power in POWER_MW.items()
        }  # fmt: skip

    def peak(self) -> Peak:
        """One product per PE and cycle, of a shared weight and an activation."""
        return Peak(macs_per_s=self.pes * self.clock_hz, operands="16 x 16 bits")

    def area(self) -> Area:
        """Of the PEs; the LNZD tree and the control unit are small beside them."""
        return Area(
            mm2=self.pes * PE_MM2,
            node_nm=NODE_NM,
            basis=Basis.DERIVED,
            source=f"Table II: {PE_MM2:g} mm2 a PE x {self.pes}",
        )

    def resized(self, *, macs_per_s: float | None = None, bandwidth: float | None = None) -> Self:
        """With other PEs, 1 to 256."""
        if macs_per_s is None:
            return super().resized(bandwidth=bandwidth)
        pes = min(max(round(macs_per_s / self.clock_hz), 1), MOST_PES)
        return msgspec.structs.replace(self, pes=pes)

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        published, derived, assumed = Basis.PUBLISHED, Basis.DERIVED, Basis.ASSUMED
        of_pe = sum(power.value for power in self.powers_mw().values())
        total = of_pe * self.pes + LNZD_NODE_MW * self.lnzd_nodes
        return [
            Figure("PEs", f"{self.pes}", published, "section VI (64)"),
            Figure("clock", f"{self.clock_hz / 1e6:g} MHz", published, "section VI (800 MHz)"),
            Figure("peak", f"{self.pes * self.clock_hz / 1e9:g} GMAC/s", derived, "PEs x clock"),
            Figure("queue", f"{self.queue_slots - 1} usable", derived, "authors' simulator"),
            Figure("Spmat SRAM", f"{SPMAT_KIB} KiB per PE", published, "section IV"),
            Figure("Ptr SRAM", f"{PTR_KIB} KiB per PE, two banks", published, "section IV"),
            Figure("Act SRAM", f"{ACT_KIB} KiB per PE", published, "section IV"),
            Figure("Act SRAM port", f"{ACT_PORT_BITS} bits", assumed, "not published"),
            Figure("accumulator", f"{self.accumulator_bits} bits", assumed, "not published"),
            Figure("power", f"{total / 1e3:.3g} W at 800 MHz", derived, "Table II x PEs + LNZD"),
        ]


def _arithmetic_pj() -> tuple[float, float]:
    """A bit of an adder, and a 16-bit multiplier: what Table II's arithmetic consists of."""
    table = get_table("horowitz")
    small, large = table.entry("multiply.int8").value, table.entry("multiply.int32").value
    return table.entry("add.int32").value / 32, (small * large) ** 0.5
