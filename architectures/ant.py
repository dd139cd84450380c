"""ANT (MICRO 2022): adaptive number types decoded at the borders of a systolic array.

Every tensor (or output channel) takes the type with the least error: int, power of two, float or
flint. Decoders along the array's borders turn each 4-bit code into an exponent and a base integer;
a processing element multiplies the bases, adds the exponents, shifts and accumulates. Four 4-bit
elements gang into one 8-bit integer element, so the array is 64 x 64 at 4 bits and 32 x 32 at 8. It
runs output-stationary or weight-stationary. Three double-buffered SRAMs, one DRAM port; every layer
is unfolded (im2col); outputs leave requantized in 16-bit words and are never read back.

Here: the configuration, its energies, and the authors' performance model as an analytic twin. That
model leaves out array fill and drain, DRAM latency and rows. Known quirks of the released code
(non-square kernels taken as square, an arithmetic 'geomean') are not copied. Source: the MICRO
2022 paper and the authors' released simulator.
"""

from __future__ import annotations

import msgspec

from architectures.systolic import Dataflow
from architectures.tiling import (
    ArrayRules,
    ConvShape,
    Cost,
    Drain,
    Layout,
    Mapping,
    Rates,
    Reuse,
    check_positive,
    check_whole,
    cost,
    search,
)
from simulator.energy.tables import Basis, EnergyTable, Entry, Kind, Unit
from sparqsim_base import InputError

KIB = 1024 * 8  # bits
_AUTHORS = "ANT authors' released simulator"
_SOLVED = f"{_AUTHORS}: printed to 3 or 4 digits, the others solved from its per-layer energies"


def _entry(
    name: str, value: float, unit: Unit, kind: Kind, source: str = _SOLVED, node_nm: float = 28
) -> Entry:
    return Entry(
        name=name,
        value=value,
        unit=unit,
        node_nm=node_nm,
        kind=kind,
        basis=Basis.DERIVED,
        source=source,
    )


_REUSED = f"{_SOLVED}; the authors reuse processing-element power of 45 nm"
ENERGY = EnergyTable(
    name="ant",
    entries=(
        _entry("core_static_per_cycle", 131.715, Unit.PJ_PER_CYCLE, Kind.LOGIC, _REUSED, 45),
        _entry(
            "core_dynamic_per_compute_cycle", 573.358, Unit.PJ_PER_CYCLE, Kind.LOGIC, _REUSED, 45
        ),
        _entry("dram_static_per_cycle", 969.23, Unit.PJ_PER_CYCLE, Kind.OFF_CHIP),
        _entry("weight_buffer_read", 0.0329930, Unit.PJ_PER_BIT, Kind.MEMORY),
        _entry("weight_buffer_write", 0.0397309, Unit.PJ_PER_BIT, Kind.MEMORY),
        _entry("input_buffer_read", 0.0347047, Unit.PJ_PER_BIT, Kind.MEMORY),
        _entry("input_buffer_write", 0.04860664, Unit.PJ_PER_BIT, Kind.MEMORY),
        _entry("output_buffer_read", 0.00921705, Unit.PJ_PER_BIT, Kind.MEMORY),
        _entry("output_buffer_write", 0.01299764, Unit.PJ_PER_BIT, Kind.MEMORY),
        _entry("dram_read", 644.304 / 1024, Unit.PJ_PER_BIT, Kind.OFF_CHIP),
        _entry("dram_write", 784.104 / 1024, Unit.PJ_PER_BIT, Kind.OFF_CHIP),
    ),
)


class Ant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration of the paper; every number published."""

    side_at_8_bits: int = 32
    weight_buffer_kib: int = 128
    input_buffer_kib: int = 256
    output_buffer_kib: int = 128
    output_bits: int = 16
    dram_bits_per_cycle: int = 1024
    clock_mhz: float = 500.0
    node_nm: float = 28.0
    batch: int = 64
    dataflow: Dataflow = Dataflow.OUTPUT_STATIONARY

    def __post_init__(self) -> None:
        fields = msgspec.structs.asdict(self)
        for field in ("clock_mhz", "node_nm"):
            check_positive("Ant", **{field: fields.pop(field)})
        del fields["dataflow"]
        check_whole("Ant", **fields)
        if self.dataflow is Dataflow.INPUT_STATIONARY:
            raise InputError("ANT runs output- or weight-stationary, got input-stationary")

    def side(self, bits: int) -> int:
        """Return rows (and columns) of the array at a width: 4-bit elements, or gangs of four."""
        if bits not in (4, 8):
            raise InputError(f"ANT computes at 4 or 8 bits, got {bits!r}; store the tensor at 8")
        return self.side_at_8_bits * (8 // bits)

    def rules(self, bits: int, *, drain: Drain = Drain.NONE) -> ArrayRules:
        """Return what tiling needs to know with both operands at ``bits``.

        ``drain=NONE`` is the authors' model.
        """
        side = self.side(bits)
        still = self.dataflow is Dataflow.OUTPUT_STATIONARY
        return ArrayRules(
            pixels_per_step=side if still else 1,
            outputs_per_step=side,
            reduction_per_step=1 if still else side,
            layout=Layout.UNFOLDED_PADDED,
            reduction_granule=side,
            outputs_padded=False,
            outputs_read_back=False,
            last_store_counted=drain is not Drain.NONE,  # the authors' model hides it
            output_granule=1,
            input_bits=bits,
            weight_bits=bits,
            output_bits=self.output_bits,
            input_room_bits=self.input_buffer_kib * KIB // 2,
            weight_room_bits=self.weight_buffer_kib * KIB // 2,
            output_room_bits=self.output_buffer_kib * KIB // 2,
            dram_bits_per_cycle=self.dram_bits_per_cycle,
            reuse=Reuse.OUTPUT if still else Reuse.WEIGHT,
            drain=drain,
            drain_cycles=2 * side - 1,
            exchange_cycles=side,  # derived: a fold's sums, or its weights, a row a cycle
            pass_is_fold=True,
        )

    def analytic(self, shape: ConvShape, rules: ArrayRules, mapping: Mapping | None = None) -> Cost:
        """Return the performance model's cost, with the best mapping unless one is given."""
        return cost(shape, rules, mapping or search(shape, rules, self.rates))

    @property
    def rates(self) -> Rates:
        """The authors' energies."""
        return Rates.of(ENERGY)
