"""The public functions that need machines and work together; see :mod:`sparqsim`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sparqsim.architectures.compare import Equal
from sparqsim.architectures.compare import compare as compare_machines
from sparqsim.architectures.machine import Machine
from sparqsim.architectures.machine import run as run_tensors
from sparqsim.architectures.network import run_layer, run_network
from sparqsim.architectures.registry import get_machine, machine_names
from sparqsim.base import InputError
from sparqsim.simulator.comparison import ComparisonReport
from sparqsim.simulator.report import NetworkReport, Report
from sparqsim.workloads import recipes
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.tensors import LayerTensors
from sparqsim.workloads.work import Network, load

Work = str | Network | LayerTensors | EncodedLayer


def machines() -> tuple[str, ...]:
    """Names of the machines that ship with Sparqsim."""
    return machine_names()


def machine(name: str, **fields: Any) -> Machine:
    """A machine by name, with fields of its configuration.

    Parameters
    ----------
    name
        One of :func:`machines`, an installed one, or a file ``my_machine.py``.
    **fields
        As ``sparqsim run NAME --help`` lists them.

    Raises
    ------
    InputError
        If there is no such machine or field, or the machine refuses a value.

    Examples
    --------
    >>> machine("bitfusion", rows=32).rows
    32
    """
    kind = get_machine(name)
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(f"{kind.__name__} configuration: {error}") from None


def recipe(name_or_path: str) -> Recipe:
    """A recipe by name, or from a TOML file; raises InputError if there is neither."""
    return recipes.get(name_or_path)


def run(
    machine: str | Machine,
    work: Work,
    recipe: str | Recipe | None = None,
    *,
    requantize: bool = False,
    verify: bool = True,
    seed: int = 0,
    jobs: int = 1,
) -> Report | NetworkReport:
    """Run work on a machine.

    Parameters
    ----------
    machine
        A machine, or its name.
    work
        What ``sparqsim run`` takes (``"resnet50"``, ``"net.onnx/conv1"``, ``"gemm:64x64x64"``), a
        network that :func:`~sparqsim.load` gave, or a layer with its tensors.
    recipe
        What is done to the numbers first; by default the machine's own.
    requantize
        Round again by the machine's own recipe what it does not compute, instead of refusing it.
    verify
        Compare outputs bit by bit with an independent reference, and with the float layer.
    seed
        Of synthetic tensors.
    jobs
        Processes over which the layers of a network may be spread.

    Returns
    -------
    Report or NetworkReport
        Of a layer, or of a network of several.

    Raises
    ------
    InputError
        If the work, the recipe or the machine is unknown, or they do not go together.

    Examples
    --------
    >>> report = run("bitfusion", "gemm:16x64x32", recipe="int4")
    >>> report.verification.status, report.operands["weights"].stored_as
    ('exact', 'int4_signed')
    """
    chosen = get_machine(machine)() if isinstance(machine, str) else machine
    if isinstance(work, LayerTensors | EncodedLayer):
        result = run_tensors(chosen, work, recipe=recipe, requantize=requantize, verify=verify)
        return result.report
    network = load(work) if isinstance(work, str) else work
    if network.layer is None and (len(network.layers) > 1 or network.other):
        return run_network(
            chosen, network, recipe=recipe, requantize=requantize, verify=verify, seed=seed,
            jobs=jobs,
        )  # fmt: skip
    return run_layer(
        chosen, network, recipe=recipe, requantize=requantize, verify=verify, seed=seed
    ).report


def compare(
    work: str | Network | Sequence[str | Network],
    machines: Sequence[str] | Mapping[str, Machine],
    recipe: str | Recipe | Mapping[str, str | Recipe] | None = None,
    *,
    equal: Equal = "none",
    requantize: bool = False,
    verify: bool = True,
    seed: int = 0,
    jobs: int = 1,
) -> ComparisonReport:
    """Run the same work on several machines and set them side by side.

    Parameters
    ----------
    work
        As for :func:`run`, or several of them.
    machines
        Names, or configurations by a label of yours; the first is what the others are measured by.
    recipe
        For all machines, or by label; by default each machine's own.
    equal
        What is made equal to the first machine's: ``macs`` (a second, at peak), ``bandwidth`` (of
        DRAM), ``area`` or ``none``.
    requantize, verify, seed, jobs
        As for :func:`run`.

    Raises
    ------
    InputError
        As :func:`run`; or if a machine cannot be made equal.

    Examples
    --------
    >>> report = compare("gemm:16x64x32", ["bitfusion", "plain"], verify=False)
    >>> [each.label for each in report.networks[0].machines]
    ['bitfusion', 'plain']
    """
    several = [work] if isinstance(work, str | Network) else list(work)
    networks = [load(each) if isinstance(each, str) else each for each in several]
    if isinstance(machines, str):
        raise InputError(f"machines must be a sequence of names, got {machines!r}")
    if not isinstance(machines, Mapping):
        if len(set(machines)) < len(machines):
            raise InputError(f"machines must differ; for one twice give labels, got {machines!r}")
        machines = {name: get_machine(name)() for name in machines}
    recipes_by_label: Mapping[str, str | Recipe] = {}
    if isinstance(recipe, str | Recipe):
        recipes_by_label = dict.fromkeys(machines, recipe)
    elif recipe is not None:
        recipes_by_label = recipe
        unknown = [label for label in recipe if label not in machines]
        if unknown:
            known = ", ".join(machines)
            raise InputError(f"recipe names {unknown[0]!r}; the machines are {known}")
    return compare_machines(
        networks,
        machines,
        recipes=recipes_by_label,
        equal=equal,
        requantize=requantize,
        verify=verify,
        seed=seed,
        jobs=jobs,
    )
