"""SNAP's utilisation over the densities of weights and activations.

A 3 x 3 layer of 128 channels at eight densities of each operand, with the AIM that was published
(32 comparators a side) and three PEs to an AIM: where the published average of 75 % lies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario
from sparqsim.scripts.scenarios.snap_utilization import DENSITIES, TARGET, draw_surfaces, surfaces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE, SHARED, SEED = 32, 3, 0


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """Utilisation [weight density][activation density]."""

    densities: list[float]
    utilization: list[list[float]]

    @property
    def surface(self) -> NDArray[np.float64]:
        """As an array."""
        return np.array(self.utilization)


def measure(bar: PatientBar) -> Study:
    """Run the layer at every pair of densities."""
    (surface,) = surfaces(SEED, bar, (SIZE,), (SHARED,)).values()
    return Study(densities=list(DENSITIES), utilization=surface.tolist())


def finding(found: Study) -> str:
    """The paragraph."""
    surface, densities = found.surface, found.densities
    alike = {d: float(surface[i, i]) for i, d in enumerate(densities)}
    reached = [d for d, share in alike.items() if share >= TARGET]
    above = float((surface >= TARGET).mean())
    where = f"from {100 * min(reached):g} % on" if reached else "at no density"
    few = densities[1]
    return (
        f"With both operands alike, SNAP's multipliers are used {100 * alike[densities[-1]]:.0f} % "
        f"of the time when nothing is zero and {100 * alike[few]:.0f} % at {100 * few:g} %; the "
        f"published {100 * TARGET:g} % is reached {where}, and on {100 * above:.0f} % of all pairs "
        f"of densities. What is lost at low densities is waiting for index matching, which takes a "
        f"step a pair of bundles however little matches."
    )


def draw(found: Study) -> Figure:
    """The surface with the line of 75 %."""
    return draw_surfaces({(SIZE, SHARED): found.surface})


SCENARIO = Scenario(
    name="snap_surface", title="SNAP's utilisation over densities", measure=measure,
    finding=finding, draw=draw,
)  # fmt: skip
