"""2:4 sparsity over the size of the product: from where on it pays.

Square products of 256 to 8192 in fp16 on two GPUs, dense and with 2:4 weights, event by event.
Small products wait for launch and memory, and halved multiplications change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures import presets
from sparqsim.architectures.network import run_layer
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, by_factors, lines, panels
from sparqsim.simulator.palette import BLUE, ORANGE
from sparqsim.workloads.work import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDES = (256, 512, 1024, 2048, 4096, 8192)
GPUS = ("a100-40gb", "h100")
PAYS = 1.5  # what a user would call worth it


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU: seconds of each size, dense and 2:4, and what each time depends on."""

    gpu: str
    dense_s: list[float]
    sparse_s: list[float]
    bound_by: list[str]
    sparse_bound_by: list[str]

    @property
    def gains(self) -> list[float]:
        """Dense time over sparse."""
        return [a / b for a, b in zip(self.dense_s, self.sparse_s, strict=True)]


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All GPUs."""

    sides: list[int]
    rows: list[Row]


def measure(bar: PatientBar) -> Study:
    """Run every size on every GPU, dense and 2:4."""
    rows = []
    for number, gpu in enumerate(GPUS):
        machine = presets.load(gpu, "sparse-tensor-core")
        times: dict[str, list[float]] = {"fp16": [], "2:4": []}
        bound: dict[str, list[str]] = {"fp16": [], "2:4": []}
        for side in SIDES:
            bar(f"{gpu}, {side}", number, len(GPUS))
            network = load(f"gemm:{side}x{side}x{side}", numbers=False)
            for recipe, seconds in times.items():
                report = run_layer(
                    machine, network, recipe=recipe, verify=False, record="summary"
                ).report
                seconds.append(report.seconds)
                bound[recipe].append(report.bound_by)
        rows.append(
            Row(
                gpu=gpu,
                dense_s=times["fp16"],
                sparse_s=times["2:4"],
                bound_by=bound["fp16"],
                sparse_bound_by=bound["2:4"],
            )
        )
    return Study(sides=list(SIDES), rows=rows)


def finding(found: Study) -> str:
    """The paragraph."""
    parts = []
    for row in found.rows:
        pays = (s for s, gain in zip(found.sides, row.gains, strict=True) if gain >= PAYS)
        from_side = next(pays, None)
        worth = f"from {from_side} on" if from_side else "at no size shown"
        parts.append(
            f"on {row.gpu} 2:4 gains {row.gains[0]:.2f} at {found.sides[0]} (bound by "
            f"{row.bound_by[0]}) and {row.gains[-1]:.2f} at {found.sides[-1]} (the sparse product "
            f"bound by {row.sparse_bound_by[-1]}); {PAYS:g} times is reached {worth}"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}. Multiplications are halved everywhere."


def draw(found: Study) -> Figure:
    """Speed-up over size."""
    figure, (axes,) = panels(1, 6.8)
    lines(axes, found.sides, {row.gpu: row.gains for row in found.rows}, (BLUE, ORANGE))
    axes.axhline(2, color="0.4", linestyle=":", linewidth=1)
    by_factors(axes, found.sides)
    axes.set(ylim=(0.8, 2.1), xlabel="side of the product")
    axes.set_ylabel("dense time over 2:4 time")
    axes.set_title("2:4 over dense, fp16; dotted: half the multiplications", loc="left")
    return figure


SCENARIO = Scenario(
    name="nm_gemm", title="2:4 sparsity over the size of the product", measure=measure,
    finding=finding, draw=draw,
)  # fmt: skip
