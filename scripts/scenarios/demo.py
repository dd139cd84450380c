"""The demonstration: real pruned layers, and AlexNet fc6, on EIE.

    make demo            or            python -m sparqsim.scripts.scenarios.demo [--out DIR]

The pruned digits networks run layer by layer in EIE's own arithmetic, all test images as a batch,
each layer's 16-bit outputs being the next one's inputs; every output is checked bit by bit, and the
accuracy that comes out at the end is printed beside that of the float networks. Then AlexNet fc6 at
the densities of EIE's Table III: report, figures, trace and page. At the end the digits CNN,
verified and judged, and ResNet-18, its time and energy, on four machines: one page.
"""

from __future__ import annotations

import click

from sparqsim.scripts.cli import carry_out


@click.command()
@click.option("--out", default="out/demo", show_default=True, help="Where figures and traces go.")
def main(out: str) -> None:
    """Run real pruned layers and AlexNet fc6 on EIE, then compare four machines."""
    from sparqsim.scripts.scenarios.demo_runs import demonstrate  # slow: Ctrl-C ends it well too

    demonstrate(out)


if __name__ == "__main__":
    carry_out(main)
