"""The scenarios by name: where each is, and its question. Nothing is imported before it is run."""

from __future__ import annotations

import difflib
import importlib

from sparqsim.base import InputError
from sparqsim.scripts.scenarios.frame import Scenario

HOME = "sparqsim.scripts.scenarios"
SCENARIOS = {
    "eie_queues": "How deep must EIE's queues be, and what do they not mend?",
    "decode": "What bounds the decoding of a language model, and where does it fit?",
    "mixed_precision": "Bits where layers need them: what does Bit Fusion make of them?",
    "transformer_formats": "Which 4-bit format carries a real transformer with outliers?",
    "snap_surface": "At which densities is SNAP used well?",
    "nm_gemm": "From which size on does 2:4 sparsity pay on a tensor core?",
    "taxonomy": "One layer pruned by every pattern: what is kept, and who gains?",
    "dynamic_pruning": "Activations pruned at run time: accuracy against cycles",
    "dynamic_ranges": "Static or dynamic ranges of activations: what does each cost?",
    "dynamic_graph": "Tokens dropped at run time: must the mapping be made anew?",
    "codesign": "Recipe and array chosen together: what is worth its energy and time?",
}


def get_scenario(name: str) -> Scenario:
    """The scenario of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in SCENARIOS:
        near = difflib.get_close_matches(name, SCENARIOS, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there is {', '.join(SCENARIOS)}"
        raise InputError(f"there is no scenario {name!r}{hint}")
    found: Scenario = importlib.import_module(f"{HOME}.{name}").SCENARIO
    return found
