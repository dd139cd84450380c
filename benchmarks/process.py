"""What does a whole process cost beside the import of numba, that none can do without?

    python -m benchmarks.process [--json FILE|-] [--repeats N]

``sparqsim run plain gemm:1024x1024x1024 --no-verify``, from start to end, beside ``python -c
"import numba"``, by turns. Of each the least counts of what the system charged, user and system
time together, so that other loads of a shared machine count little. The first run, which compiles
kernels or the modules' code, does not count.
"""

from __future__ import annotations

import os
import subprocess
import sys

import click

from sparqsim.scripts.output import console, json_option, table, write_json

IMPORT = (sys.executable, "-c", "import numba")
RUN = (
    *(sys.executable, "-m", "sparqsim.scripts.cli"),
    *("run", "plain", "gemm:1024x1024x1024", "--no-verify"),
)


def charged(command: tuple[str, ...]) -> float:
    """Processor seconds of a process and all it started."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


@click.command()
@json_option
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True)
def main(json_path: str | None, repeats: int) -> None:
    """Time a run as a process against the import of numba."""
    charged(RUN)
    seconds = [(charged(RUN), charged(IMPORT)) for _ in range(repeats)]
    run, imported = (min(each) for each in zip(*seconds, strict=True))
    result = {"run_s": run, "import_numba_s": imported, "ratio": run / imported}
    if json_path:
        write_json(result, json_path)
    if json_path != "-":
        rows = table("Processor time of a process", ("process",), ("s",))
        rows.add_row(" ".join(("sparqsim", *RUN[3:])), f"{run:.2f}")
        rows.add_row('python -c "import numba"', f"{imported:.2f}")
        console().print(rows)
        console().print(f"ratio {result['ratio']:.2f}")


if __name__ == "__main__":
    main()
