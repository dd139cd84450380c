"""The contest: least energy x time at an accuracy, within an area, on the trained digits MLP.

An entry is data: fields of EIE's configuration and a recipe. EIE alone is open, for its area is
known for any number of PEs (Table II of its paper), and so all entries are priced by one table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sparqsim.base import InputError, printable
from sparqsim.scripts.grade.guarded import Limits, run_guarded
from sparqsim.scripts.grade.sheet import Entry, Lab, Mark

WORK = "digits-mlp"
ACCURACY = 0.95  # float32 has 0.978
AREA_MM2 = 12.0  # at 45 nm: 18 PEs
LIMITS = Limits()
FIELDS = ("pes", "queue_slots", "sram_row_entries", "index_bits", "act_registers", "act_spill")


class Design(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer file holds: fields of EIE, and a recipe's ``weights`` and ``override``."""

    configuration: dict[str, int | bool] = {}
    recipe: dict[str, Any] = {}


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """The rules are the same for all."""
    return {}


def sheet(given: dict[str, Any]) -> list[str]:
    """The rules."""
    return [
        f"EIE runs {WORK} (weights from before their pruning) by your recipe, image by image.",
        f"Accuracy at least {ACCURACY}, area at most {AREA_MM2:g} mm2 at 45 nm; the least energy x "
        "time wins.",
        f"[configuration] may set {', '.join(FIELDS)};",
        "[recipe.weights] and [[recipe.override]] prune and quantize (docs/howto/own_recipe.md).",
    ]


def evaluate(path: str) -> Entry:
    """Run an entry whose file is JSON; what is refused says why."""
    from sparqsim.architectures.eie import EIE
    from sparqsim.architectures.network import run_network
    from sparqsim.workloads import recipes
    from sparqsim.workloads.recipes import Recipe
    from sparqsim.workloads.work import load

    try:
        design = msgspec.json.decode(Path(path).read_bytes(), type=Design)
        unknown = set(design.configuration) - set(FIELDS)
        if unknown:
            raise InputError(f"[configuration] may set {', '.join(FIELDS)}, not {min(unknown)!r}")
        machine = msgspec.convert(design.configuration, EIE)
        area = machine.area().mm2
        if area > AREA_MM2:
            return Entry(area_mm2=area, refused=f"area must be at most {AREA_MM2:g} mm2")
        recipe = recipes.get(EIE.recipe)
        if design.recipe:
            recipe = msgspec.convert({"name": "entry", **design.recipe}, Recipe)
        report = run_network(machine, load(WORK, dense=True), recipe=recipe)
    except (InputError, msgspec.ValidationError) as error:
        return Entry(refused=str(error))
    totals = report.totals
    accuracy = report.accuracy.compressed["accuracy"] if report.accuracy else 0.0
    refused = ""
    if totals.layers < totals.layers_of_network:
        refused = report.refused[0].why
    elif report.status != "exact":
        refused = "outputs are not exact"
    elif accuracy < ACCURACY:
        refused = f"accuracy must be at least {ACCURACY}"
    return Entry(edp_js=totals.edp_js, accuracy=accuracy, area_mm2=area, refused=refused)


def judge(
    given: dict[str, Any],
    answers: dict[str, Any],
    folder: Path,
    hidden: np.random.Generator | None,
) -> tuple[list[Mark], list[str], Entry | None]:
    """Evaluate an entry in a process of its own: a recipe may ask for any amount of work."""
    entry = _entry(answers)
    mark = Mark(
        question="entry",
        verdict="wrong" if entry.refused else "right",
        points=0 if entry.refused else 1,
        of=1,
        why=printable(entry.refused, 300),
    )
    return [mark], [], entry


def _entry(answers: dict[str, Any]) -> Entry:
    with tempfile.TemporaryDirectory(prefix="sparqsim-grade-") as name:
        asked, told = Path(name) / "entry.json", Path(name) / "told.json"
        try:
            asked.write_bytes(msgspec.json.encode(answers))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return Entry(refused=f"an entry holds numbers, words and tables: {error}")
        end = run_guarded(__name__, [str(asked), str(told)], Path(name), LIMITS)
        if end.how != "exit" or end.code:
            return Entry(refused=f"it could not be run: {end.in_words(LIMITS)}")
        return msgspec.json.decode(told.read_bytes(), type=Entry)


LAB = Lab(
    title=f"Contest: least energy x time on {WORK}, accuracy >= {ACCURACY}, {AREA_MM2:g} mm2",
    draw=draw,
    sheet=sheet,
    judge=judge,
)

if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(evaluate(sys.argv[1])))
