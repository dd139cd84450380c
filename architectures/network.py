"""A network on a machine: every layer in order, equal ones once, and nothing dropped.

A layer that the machine refuses is a row that says why. Work without multiply-accumulates is a row
with its elements, timed where the machine has a unit for it. Layers run one after the other; what
passes between them goes through DRAM, unless the machine runs a network as one program
(:meth:`~sparqsim.architectures.machine.Machine.lower_network`).

Where only the time is wanted and it does not depend on the numbers, layers run as outlines: shapes
and formats without tensors. Else synthetic tensors are drawn from the seed and the layer's shape,
so that layers of equal shape are equal work, and are simulated once; trained weights differ. Layers
may be spread over processes; the report is the same, byte by byte.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from sparqsim.architectures.machine import Machine, Result, UnitTime, run
from sparqsim.architectures.operands import take
from sparqsim.architectures.tasks import Progress, Task, carried_out, is_outlined, task_of
from sparqsim.base import InputError
from sparqsim.simulator.report import (
    TOO_SMALL,
    Accuracy,
    Beside,
    LayerRun,
    NetworkReport,
    Refused,
    Report,
    Row,
    provenance_of,
    totals_of,
)
from sparqsim.workloads import recipes
from sparqsim.workloads.brought import NAME, Brought
from sparqsim.workloads.encoded import ROLES, operand_name, operand_recipe, outline
from sparqsim.workloads.layers import Layer, MatMul
from sparqsim.workloads.network_tensors import RELU, NetworkTensors, shape_of
from sparqsim.workloads.recipes import Override, Recipe, TensorRecipe
from sparqsim.workloads.work import Network, subject_for

AS_BROUGHT = Recipe(name=NAME)  # what a file has in codes stays so, and the rest in float32


def run_layer(
    machine: Machine,
    network: Network,
    *,
    recipe: Recipe | str | None = None,
    requantize: bool = False,
    engine: str = "compiled",
    verify: bool = True,
    record: str = "full",
    execute: bool = False,
    seed: int = 0,
    weight_density: float | None = None,
    activation_density: float | None = None,
    correlation: float | None = None,
) -> Result:
    """Run the one layer of a network that was asked for.

    Parameters
    ----------
    record, execute
        As for :func:`~sparqsim.architectures.machine.run`; the others as for :func:`run_network`.

    Raises
    ------
    InputError
        If there are several layers, the machine does not run this one, or a recipe or a density
        does not fit it.
    """
    if len(network.layers) != 1:
        raise InputError(f"{network.name} has {len(network.layers)} layers; name one of them")
    if machine.as_run(network.model) != network.model:
        raise InputError(
            f"{machine.name} in this configuration runs {network.model.name} as another network; "
            "run all of it"
        )
    recipe = _checked_recipe(recipe, network)
    tensors = NetworkTensors(
        network=network,
        seed=seed,
        weight_density=weight_density,
        activation_density=activation_density,
        correlation=correlation,
    )
    return task_of(
        machine,
        tensors,
        network.layers[0],
        recipe=recipe,
        requantize=requantize,
        engine=engine,
        verify=verify,
        record=record,
        execute=execute,
    ).result()


def _checked_recipe(recipe: Recipe | str | None, network: Network) -> Recipe | None:
    """The recipe that was asked for, its densities settled where it prunes across layers.

    Raises InputError if it names layers that are not there.
    """
    chosen = recipes.get(recipe) if isinstance(recipe, str) else recipe
    if chosen is None:
        return None
    chosen.check_names(names_in(network))
    if not any(part.across for _, _, part in chosen.parts()):
        return chosen
    subject = subject_for(network)
    return recipes.settled(chosen, subject.weights, subject.tables)


def run_network(
    machine: Machine,
    network: Network,
    *,
    recipe: Recipe | str | None = None,
    requantize: bool = False,
    engine: str = "compiled",
    verify: bool = True,
    seed: int = 0,
    weight_density: float | None = None,
    activation_density: float | None = None,
    correlation: float | None = None,
    paths: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> NetworkReport:
    """Run every layer of a network.

    Parameters
    ----------
    recipe, requantize
        As for :func:`~sparqsim.architectures.machine.program`; by default each layer's own recipe
        of the machine.
    verify
        Compare the outputs of every layer with an independent reference and the float layer, and
        judge the network where that can be done. If false, a machine whose time does not depend on
        the numbers is timed from shapes and formats alone.
    seed, weight_density, activation_density, correlation
        Of synthetic tensors; see :class:`~sparqsim.workloads.network_tensors.NetworkTensors`.
    paths
        Find the critical path of every layer, and sketch it: slower, and the same times.
    jobs
        Processes at most. A script that asks for more than one needs the usual guard
        ``if __name__ == "__main__"``.

    Raises
    ------
    InputError
        If a recipe or a density does not fit the network.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, got {jobs}")
    network = replace(network, model=machine.as_run(network.model))
    recipe = chosen = _checked_recipe(recipe, network)
    tensors = NetworkTensors(
        network=network,
        seed=seed,
        weight_density=weight_density,
        activation_density=activation_density,
        correlation=correlation,
    )
    numbers = None if is_outlined(machine, verify) else tensors
    if numbers is None and {weight_density, activation_density, correlation} != {None}:
        raise InputError(
            f"the time of {machine.name} does not depend on densities; verify, or leave them out"
        )

    def task(layer: Layer) -> Task:
        return task_of(
            machine,
            tensors,
            layer,
            recipe=recipe,
            requantize=requantize,
            engine=engine,
            verify=verify,
            record="sketch" if paths else "summary",
        )

    # Equal layers share a key; the first of them is simulated.
    keys = {
        layer.name: _key(machine, layer, numbers, chosen, network.brought.get(layer.name))
        for layer in network.layers
    }
    first: dict[Any, Layer] = {}
    for layer in network.layers:
        if not machine.refusal(layer):
            first.setdefault(keys[layer.name], layer)
    found = dict(
        zip(first, carried_out(machine, list(first.values()), task, jobs, progress), strict=True)
    )
    rows: list[Row] = []
    for layer in network.layers:
        key = keys[layer.name]
        outcome: Report | str = machine.refusal(layer) or found[key]
        rows.append(_row(layer, outcome, first[key].name if key in first else ""))
    whole = None
    if network.layer is None:
        whole = _as_one(machine, tensors, rows, recipe, requantize, engine)
        rows = _with_others(rows, _others(machine, tensors, rows))
    runs = [row for row in rows if isinstance(row, LayerRun)]
    clock_s = runs[0].report.seconds / runs[0].report.cycles if runs else 0.0
    accuracy = None
    if verify and network.layer is None and network.subject is not None and runs:
        accuracy = _judged(machine, network, rows, chosen)
    made_by = dict.fromkeys(row.report.recipe for row in runs)
    inputs = dict.fromkeys(row.report.provenance.inputs for row in runs)
    return NetworkReport(
        machine=machine.name,
        network=network.name,
        source=network.source,
        recipe=", ".join(made_by) or (machine.recipe if chosen is None else chosen.name),
        rows=rows,
        totals=totals_of(rows, whole, clock_s),
        whole=whole,
        accuracy=accuracy,
        provenance=provenance_of(
            machine,
            None if numbers is None or numbers.is_real else seed,
            engine,
            "; ".join(inputs),
        ),
        notes=_notes(machine, network, rows, whole, accuracy, verify),
    )


def names_in(network: Network) -> list[str]:
    """What a recipe's overrides may match: layers, weights and operands."""
    names = [layer.name for layer in network.model.layers]
    names += [
        f"{layer.name}.{side}"
        for layer in network.model.layers
        if isinstance(layer, MatMul)
        for side in ("left", "right")
    ]
    return names + list(network.subject.weights if network.subject is not None else ())


def _key(
    machine: Machine,
    layer: Layer,
    numbers: NetworkTensors | None,
    chosen: Recipe | None,
    brought: Brought | None,
) -> Any:
    """Equal for layers that are equal work: shape, formats and numbers."""
    own = machine.recipe_for(layer)
    made = [operand_recipe(layer, which, chosen or own, own) for which in ROLES]
    kinds = brought.kinds if brought is not None and chosen is None else ()
    return (shape_of(layer) if numbers is None else numbers.key(layer), *made, *kinds)


# ------------------------------------------------------------------ rows


KINDS = {"conv2d": "convolution", "linear": "fully connected", "matmul": "attention product"}


def _row(layer: Layer, outcome: Report | str, simulated: str) -> Row:
    kind = KINDS[type(layer).__name__.lower()]
    if isinstance(outcome, str):
        return Refused(
            name=layer.name, kind=kind, repeat=layer.repeat, macs=layer.macs, why=outcome
        )
    return LayerRun(
        name=layer.name,
        kind=kind,
        repeat=layer.repeat,
        macs=layer.macs,
        same_as="" if simulated == layer.name else simulated,
        report=msgspec.structs.replace(outcome, layer=layer.name),
    )


def _others(
    machine: Machine, tensors: NetworkTensors, rows: Sequence[Row]
) -> list[tuple[str, Beside]]:
    """Work beside the layers, each with the layer that it follows.

    A ReLU that is the first thing behind a layer is part of its outputs, on every machine.
    """
    ran = {row.name for row in rows if isinstance(row, LayerRun)}
    layers = {layer.name: layer for layer in tensors.network.layers if layer.name in ran}
    seen, found = set(), []
    for work in tensors.network.other:
        timed = machine.time_beside(work)
        layer = None if work.after in seen else layers.get(work.after)
        seen.add(work.after)
        if work.operation == RELU and layer is not None and tensors.relu(layer):
            timed = UnitTime(unit="with its layer", cycles=0)
        beside = Beside(
            name=work.name,
            kind=work.kind,
            operation=work.operation,
            repeat=work.repeat,
            elements=work.elements,
            unit=timed.unit if timed else "",
            cycles=timed.cycles if timed else None,
        )
        found.append((work.after, beside))
    return found


def _with_others(rows: Sequence[Row], others: Sequence[tuple[str, Beside]]) -> list[Row]:
    """Each piece of work behind the layer that it follows; at the end where that is unknown."""
    names = {row.name for row in rows}
    merged: list[Row] = [other for after, other in others if after == ""]
    for row in rows:
        merged.append(row)
        merged += [other for after, other in others if after == row.name]
    return merged + [other for after, other in others if after and after not in names]


def _as_one(
    machine: Machine,
    tensors: NetworkTensors,
    rows: Sequence[Row],
    recipe: Recipe | str | None,
    requantize: bool,
    engine: str,
) -> Report | None:
    """The layers that run as one program, where the machine has it so."""
    if type(machine).lower_network is Machine.lower_network:
        return None
    ran = {row.name for row in rows if isinstance(row, LayerRun)}
    taken = []
    for layer in tensors.network.layers:
        if layer.name in ran:
            own, pruned = machine.recipe_for(layer), tensors.comes_pruned(layer)
            brought = tensors.network.brought.get(layer.name)
            asked = recipe if brought else recipe or own
            made = outline(layer, asked, own=own, pruned=pruned, brought=brought)
            fits = take(machine.name, made, machine.computes(made), own, requantize=requantize)
            taken.append(fits.layer)
    made_whole = machine.lower_network(taken) if taken else None
    if made_whole is None:
        return None
    return run(machine, made_whole, engine=engine, record="summary", verify=False).report


# ------------------------------------------------------------------ accuracy


def effective_recipe(
    machine: Machine, network: Network, rows: Sequence[Row], chosen: Recipe | None
) -> Recipe:
    """What became of every tensor of a network, operand by operand, as a recipe.

    It is the user's recipe, completed by the machine's own; the machine's own where an operand was
    rounded again; nothing for layers that the machine refused, and for operands whose codes the
    network's file brings: there it has them already.
    """
    assert network.subject is not None
    numbers, overrides = NetworkTensors(network=network), []
    ran = {row.name: row.report for row in rows if isinstance(row, LayerRun)}
    for layer in network.model.layers:
        names: dict[str, dict[str, TensorRecipe]] = {}
        for which in ROLES:
            used = TensorRecipe()
            if layer.name in ran:
                own = machine.recipe_for(layer)
                again = ran[layer.name].operands[which].how == "rounded again"
                asked = own if again or chosen is None else chosen
                brought = network.brought.get(layer.name)
                if brought is not None and chosen is None and not again:
                    asked = AS_BROUGHT
                if asked is not AS_BROUGHT or brought is None or brought.of(which) is None:
                    pruned = numbers.comes_pruned(layer)
                    used = operand_recipe(layer, which, asked, own, pruned=pruned)
            role = "activations" if isinstance(layer, MatMul) else which
            names.setdefault(operand_name(layer, which), {})[role] = used
        for name, made in names.items():
            overrides.append(Override(layers=glob.escape(name), **made))
    base = chosen or machine.recipe_for(network.model.layers[0])
    if chosen is None and network.brought:
        base = msgspec.structs.replace(base, name=AS_BROUGHT.name)
    for name in network.subject.tables:
        table = base.of("embeddings", name)
        overrides.append(Override(layers=glob.escape(name), embeddings=table))
    return Recipe(name=base.name, override=tuple(overrides))


def _judged(
    machine: Machine, network: Network, rows: Sequence[Row], chosen: Recipe | None
) -> Accuracy:
    """Measures of the network with the codes that ran."""
    from sparqsim.workloads.compress import compress

    assert network.subject is not None
    effective = effective_recipe(machine, network, rows, chosen)
    _, report, _ = compress(network.subject, effective)
    refused = [row.name for row in rows if isinstance(row, Refused)]
    told = [f"{len(refused)} refused layers stay in float32"] if refused else []
    products = [row for row in rows if isinstance(row, LayerRun) and row.kind == KINDS["matmul"]]
    if any(row.report.operands["weights"].format.startswith("ovp") for row in products):
        told.append(
            "the right operands of attention products are judged in pairs along features, where "
            "the machine pairs along the reduction"
        )
    return Accuracy(
        recipe=effective.name,
        float32=report.float32,
        compressed=report.compressed,
        note="; ".join(told),
    )


# ------------------------------------------------------------------ what a reader must know


def _notes(
    machine: Machine,
    network: Network,
    rows: Sequence[Row],
    whole: Report | None,
    accuracy: Accuracy | None,
    verify: bool,
) -> list[str]:
    """Of the whole network, what is too small first; then the layers' own, once each."""
    runs = [row for row in rows if isinstance(row, LayerRun)]
    refused = [row for row in rows if isinstance(row, Refused)]
    beside = [row for row in rows if isinstance(row, Beside) and row.cycles is None]
    reports = [row.report for row in runs] if whole is None else [whole]
    too_small = dict.fromkeys(
        name for report in reports for name, use in report.memory.items()
        if use.capacity_bits and not use.fits
    )  # fmt: skip
    notes = []
    for name in too_small:
        where = [
            each.layer for each in reports if name in each.memory and not each.memory[name].fits
        ]
        notes.append(
            f"{name}{TOO_SMALL} for {_listed(where)}: time and energy are those of a memory "
            "that holds what is kept"
        )
    if refused:
        macs = sum(row.macs * row.repeat for row in refused)
        share = macs / (macs + sum(row.macs * row.repeat for row in runs))
        notes.append(
            f"{sum(row.repeat for row in refused)} layers, {100 * share:.1f} % of the network's "
            f"MACs, do not run on {machine.name}: they are in no total"
        )
    if beside:
        kinds = ", ".join(dict.fromkeys(row.kind for row in beside))
        elements = sum(row.elements * row.repeat for row in beside)
        notes.append(
            f"work beside the layers ({kinds}; {elements:,} elements) is not timed: "
            f"{machine.name} has no unit for it that is modelled"
        )
    has_dram = any("dram" in report.memory for report in reports)
    if whole is not None:
        notes.append(
            "the network runs as one program, whose cycles, energy and traffic are the totals; a "
            "row is its layer alone"
        )
    elif runs and has_dram:
        notes.append(
            "layers run one after the other, and what passes between them goes through DRAM"
        )
    elif runs:
        notes.append(
            "layers run one after the other; what passes between them is not charged: the machine "
            "has no DRAM"
        )
    products = [row for row in runs if row.kind == KINDS["matmul"]]
    if has_dram and products:
        notes += _right_operands(network, products)
    if network.missing:
        notes.append(f"trained weights are not at hand: {network.missing}")
    if accuracy is None and network.subject is not None and network.layer is None:
        notes.append("the network was not judged" + ("" if verify else ", for nothing is verified"))
    return notes + _of_layers(runs)


def _right_operands(network: Network, products: Sequence[LayerRun]) -> list[str]:
    """Whether the right operands of attention products come from DRAM, by the bits it reads."""
    read: list[str] = []
    held: list[str] = []
    for row in products:
        gemm = network.model.layer(row.name).gemm()
        bits = gemm.batch * gemm.k * gemm.n * row.report.operands["weights"].bits
        from_dram = row.report.memory["dram"].read_bits >= bits
        (read if from_dram else held).append(row.name)
    cached = "the cached keys and values of a decoder among them"
    told = []
    if read:
        told.append(f"right operands of attention products are read from DRAM, {cached}")
    if held:
        told.append(f"right operands of {_listed(held)} are taken to be on the chip, {cached}")
    return told


def _of_layers(runs: Sequence[LayerRun]) -> list[str]:
    """The notes that all layers have, once, and how many others there are."""
    found: dict[str, int] = {}
    for row in runs:
        for note in row.report.notes:
            if TOO_SMALL not in note:
                found[note] = found.get(note, 0) + 1
    shared = [f"all layers: {note}" for note, count in found.items() if count == len(runs)]
    rest = len(found) - len(shared)
    if rest:
        shared.append(f"{rest} notes on single layers stand in their own reports")
    return shared


def _listed(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
