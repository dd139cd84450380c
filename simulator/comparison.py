"""The result of a comparison: machines side by side, and their ratios to the first of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sparqsim.simulator.report import Beside, NetworkReport, Totals, joint_status


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of a comparison, in the configuration that was chosen.

    Attributes
    ----------
    label, machine
        As the user wrote it; its name.
    configuration
        All fields, for a file that ``--config`` reads.
    changed
        Fields that were changed to make the machines equal.
    peak_macs_per_s, peak_operands
        Dense multiply-accumulates a second, and of which operands; None: not known.
    bandwidth_bytes_per_s
        Of DRAM; None: none is modelled.
    area_mm2, area_node_nm, area_basis, area_source
        None, or empty: not known.
    area_at_first_mm2
        The area in the first machine's technology, by the square of the node.
    """

    label: str
    machine: str
    configuration: dict[str, Any]
    changed: list[str]
    peak_macs_per_s: float | None
    peak_operands: str
    bandwidth_bytes_per_s: float | None
    area_mm2: float | None
    area_node_nm: float | None
    area_basis: str
    area_source: str
    area_at_first_mm2: float | None


class Ratios(msgspec.Struct, frozen=True, kw_only=True):
    """Measures over those of the first machine: below 1 is less; None where there is none."""

    cycles: float | None
    seconds: float | None
    energy: float | None
    edp: float | None
    dram: float | None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A network on one machine: over the layers that run on all machines, and its whole report."""

    label: str
    shared: Totals
    ratios: Ratios
    report: NetworkReport


class ComparedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network on all machines; ``shared_layers`` names the layers that run on every one."""

    network: str
    shared_layers: list[str]
    machines: list[Compared]

    @property
    def layers(self) -> int:
        """How many layers the network has, each counted once."""
        return sum(not isinstance(row, Beside) for row in self.machines[0].report.rows)

    @property
    def summed_over(self) -> str:
        """Over which layers the sums that are compared are, in words."""
        shared, whole = len(self.shared_layers), self.layers
        return (
            "all layers"
            if shared == whole
            else (f"the {shared} of {whole} layers that run on every machine")
        )

    def ran_on(self, machine: Compared) -> str:
        """Which layers ran on a machine, in words."""
        ran, whole = len(machine.report.runs), self.layers
        return "all layers" if ran == whole else f"{ran} of {whole} layers"

    @property
    def ran_on_each(self) -> str:
        """Likewise of every machine."""
        told = {each.label: self.ran_on(each) for each in self.machines}
        alike = set(told.values())
        if len(alike) == 1:
            return alike.pop()
        return "what ran on each machine (" + ", ".join(map(" ".join, told.items())) + ")"


class MeanRatios(msgspec.Struct, frozen=True, kw_only=True):
    """Means of a machine's ratios over several networks."""

    label: str
    geometric: Ratios
    arithmetic: Ratios


class ComparisonReport(msgspec.Struct, frozen=True, kw_only=True):
    """The same work on several machines.

    Attributes
    ----------
    equal
        What was made equal to the first machine's: macs, bandwidth, area or none.
    contenders
        The machines, the first being what the others are measured by.
    means
        Empty unless several networks are compared.
    """

    equal: str
    contenders: list[Contender]
    networks: list[ComparedNetwork]
    means: list[MeanRatios]
    notes: list[str]

    @property
    def status(self) -> str:
        """The status of all runs: "mismatch" if one is, "exact" if all are, else "skipped"."""
        return joint_status(
            each.report.status for network in self.networks for each in network.machines
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from sparqsim.simulator.pages.notebook import of_comparison

        return of_comparison(self)

    def pandas(self) -> Any:
        """A pandas frame with a row for every layer on every machine; needs pandas."""
        from sparqsim.simulator.frames import frame, rows_of_all

        return frame(rows_of_all(self))


def ratios_of(totals: Totals, first: Totals) -> Ratios:
    """Measures over those of the first machine."""

    def over(value: float | None, by: float | None) -> float | None:
        return value / by if value is not None and by else None

    def moved(each: Totals) -> int | None:
        if each.dram_read_bits is None or each.dram_written_bits is None:
            return None
        return each.dram_read_bits + each.dram_written_bits

    return Ratios(
        cycles=over(totals.cycles, first.cycles),
        seconds=over(totals.seconds, first.seconds),
        energy=over(totals.energy.total_pj, first.energy.total_pj),
        edp=over(totals.edp_js, first.edp_js),
        dram=over(moved(totals), moved(first)),
    )


def mean_ratios(label: str, ratios: Sequence[Ratios]) -> MeanRatios:
    """Geometric and arithmetic means; None where a network lacks the measure."""

    def mean(of: Callable[[list[float]], float]) -> Ratios:
        found: dict[str, float | None] = {}
        for name in Ratios.__struct_fields__:
            values = [getattr(each, name) for each in ratios]
            found[name] = None if None in values else of(values)
        return Ratios(**found)

    return MeanRatios(
        label=label,
        geometric=mean(lambda values: math.exp(sum(map(math.log, values)) / len(values))),
        arithmetic=mean(lambda values: sum(values) / len(values)),
    )
