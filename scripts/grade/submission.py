"""The process in which a student's machine runs: layers in, programs as plain numbers out.

    python -m sparqsim.scripts.grade.submission MACHINE.py CASES.json FOLDER

The file is loaded before anything else, so that one that does not load costs little. Nothing that
this process says is believed: the judge is another process.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main(file: str, cases: str, folder: str) -> None:
    """Load the machine, lower each case, and write ``FOLDER/N.npz``."""
    spec = importlib.util.spec_from_file_location("submitted", file)
    assert spec is not None and spec.loader is not None
    sys.modules["submitted"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    from sparqsim.architectures.machine import program
    from sparqsim.architectures.registry import machine_in
    from sparqsim.scripts.grade import handover
    from sparqsim.scripts.grade.cases import encoded, read_cases

    machine = machine_in(module, Path(file).relative_to(folder))()
    for number, case in enumerate(read_cases(Path(cases))):
        layer = encoded(case)
        lowered = program(machine, layer)
        handover.write(
            Path(folder) / f"{number}.npz", lowered, machine.computes(layer), machine.bandwidth()
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
