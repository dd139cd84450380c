"""What holds of every machine, checked by running it: outputs, engines, bounds, the account.

:func:`broken` runs a machine on a layer and returns what does not hold, a sentence each. It judges
a machine that ships with Sparqsim and one that a user (or a student) wrote alike, and trusts none
of the machine's own words that it can check: the outputs are compared with a product of the decoded
operands that is made here, bits with the cycles of the actor that moves them.

Left out: whether the timing is that of real hardware. No law can say so; a paper's table can.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from sparqsim.architectures.machine import Machine, Program, Result, program, run
from sparqsim.architectures.operands import take
from sparqsim.base import InputError
from sparqsim.simulator.report import Report
from sparqsim.workloads.encoded import Coded, EncodedLayer, encode
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.tensors import LayerTensors

# derived: rounding is off by half a step at most; the mean of many is far less
MEAN_STEPS = 0.5
DRAM = "dram"


def broken(
    machine: Machine, tensors: LayerTensors, recipe: Recipe | str | None = None
) -> list[str]:
    """What does not hold of a machine on a layer; empty if all does.

    Parameters
    ----------
    tensors
        A small layer: the SimPy engine runs it too.

    Raises
    ------
    InputError
        If the machine refuses the layer or the recipe.
    """
    layer = tensors.layer
    own = machine.recipe_for(layer)
    coded = encode(tensors, recipe or own, own=own)
    lowered = program(machine, coded)
    fast = run(machine, lowered)
    taken = take(machine.name, coded, machine.computes(coded), own).layer
    found = [*_outputs(lowered, fast.report, taken), *_bounds(fast.report, layer)]
    found += [*_account(machine, fast), *_round_trip(fast.report)]
    found += [*_engines(machine, coded, fast), *_execution(machine, coded)]
    return found


def _outputs(lowered: Program, report: Report, layer: EncodedLayer) -> Iterator[str]:
    """Exact by the machine's own reference, and the decoded product by ours."""
    if report.verification.status != "exact":
        yield f"outputs are {report.verification.status}, not exact"
    values = lowered.values()
    if values is None or lowered.outputs is None:
        yield "there are no outputs"
        return
    if report.verification.outputs != layer.layer.output_elements:
        yield (
            f"{report.verification.outputs} outputs are verified, the layer has "
            f"{layer.layer.output_elements}"
        )
    expected = decoded_product(layer)
    if values.shape != expected.shape:
        yield f"outputs have shape {values.shape}, the layer's is {expected.shape}"
        return
    step = np.broadcast_to(np.asarray(lowered.output_scale, np.float64), values.shape)
    if lowered.outputs.dtype.kind == "f":
        step = np.full(values.shape, np.abs(expected).max(initial=0) * 2.0**-10 or 1.0)
    inside = (lowered.outputs > lowered.outputs.min()) & (lowered.outputs < lowered.outputs.max())
    error = ((values - expected) / step)[inside]
    most = MEAN_STEPS + lowered.lost_steps
    if error.size and abs(error.mean()) > most:
        yield f"outputs are {error.mean():+.2f} steps off on the average: another product"


def decoded_product(layer: EncodedLayer) -> np.ndarray:
    """The layer's output in float64 from its decoded operands, bias and ReLU included."""
    weight, activation = (
        each.values() if isinstance(each, Coded) else each
        for each in (layer.weight, layer.activation)
    )
    assert layer.given is not None
    same = LayerTensors(
        layer=layer.layer,
        weight=weight.astype(np.float64),
        activation=activation.astype(np.float64),
        bias=layer.given.bias,
        relu=layer.relu,
    )
    return same.output().astype(np.float64)


def _bounds(report: Report, layer: Layer) -> Iterator[str]:
    """Work is that of the layer; nothing works more than all the time, or less than nothing."""
    if report.macs.dense != layer.macs:
        yield f"{report.macs.dense} dense MACs are told, the layer has {layer.macs}"
    if not 0 <= report.macs.effectual <= report.macs.dense:
        yield f"effectual MACs must be 0 to {report.macs.dense}, got {report.macs.effectual}"
    for name, use in report.utilization.items():
        if not 0 <= use <= 1 + 1e-9:
            yield f"use of {name} must be 0 to 1, got {use:.4g}"
    for name, stall in report.stalls.items():
        spent = stall.busy + stall.starved + stall.blocked + stall.waiting + stall.finished
        if spent != stall.lanes * report.cycles:
            yield f"lane-cycles of {name} sum to {spent}, not to {stall.lanes * report.cycles}"
    counted = {**report.counters, "macs.padding": report.macs.padding}
    for name, count in counted.items():
        if count < 0:
            yield f"counter {name} is negative: {count}"
    for name, memory in report.memory.items():
        if min(memory.read_bits, memory.written_bits, memory.used_bits) < 0:
            yield f"memory {name} moves or holds fewer than 0 bits"
    parts = [part.energy_pj for part in report.energy.parts]
    known, total = sum(each for each in parts if each is not None), report.energy.total_pj
    if (total is None) != (None in parts) or not np.isclose(known, total or known):
        yield f"energy of the parts is {known:.6g} pJ, the total {total} pJ"
    for part in report.energy.parts:
        if (part.energy_pj or 0) < 0 or not part.source:
            yield f"energy of {part.part} must be at least 0 and have a source"


def _account(machine: Machine, result: Result) -> Iterator[str]:
    """Memories of the report are sums of the ports, and no port is faster than its memory."""
    report, lowered = result.report, result.program
    for name, use in report.memory.items():
        read, written = lowered.account.moved(lowered.netlist, name)
        if (read, written) != (use.read_bits, use.written_bits):
            yield f"{name}: the report's bits are not the sum over its ports"
    bandwidth = machine.bandwidth()
    if bandwidth is None:
        return
    bits_per_cycle = 8 * bandwidth / lowered.netlist.clock_hz
    for port in lowered.account.ports:
        if port.store != DRAM:
            continue
        starts = result.timeline.starts_of(port.actor)
        busy = np.maximum(result.timeline.busy(port.actor), 1)
        bits = np.asarray(port.read_bits, np.float64) + np.asarray(port.written_bits, np.float64)
        bits = bits[:, None] if bits.ndim == 1 else bits
        whole = float(np.broadcast_to(bits, starts.shape).sum())
        # A transfer ends within a cycle, so each may round one cycle off.
        room = float((busy + 1).sum()) * bits_per_cycle
        if whole > room * (1 + 1e-9):
            yield (
                f"{port.actor} moves {whole:.4g} bits at the DRAM in {int(busy.sum())} busy "
                f"cycles, in which {room:.4g} can move"
            )


def _round_trip(report: Report) -> Iterator[str]:
    """JSON gives the same report back."""
    if msgspec.json.decode(msgspec.json.encode(report), type=Report) != report:
        yield "the report read back from JSON is another"


def _engines(machine: Machine, coded: EncodedLayer, fast: Result) -> Iterator[str]:
    """Both engines give the same report, and so does the same engine again."""
    for engine in ("compiled", "simpy"):
        again = run(machine, program(machine, coded), engine=engine).report
        same = msgspec.structs.replace(again, provenance=fast.report.provenance)
        if same != fast.report:
            differ = [
                name for name in Report.__struct_fields__
                if getattr(same, name) != getattr(fast.report, name)
            ]  # fmt: skip
            yield f"a run on the {engine} engine differs in {', '.join(differ)}"


def _execution(machine: Machine, coded: EncodedLayer) -> Iterator[str]:
    """Firings carry the arithmetic, or the run that asks for it is refused."""
    lowered = program(machine, coded)
    if lowered.executed is None:
        try:
            run(machine, lowered, engine="simpy", execute=True)
        except InputError:
            return
        yield "execute is accepted, but the firings carry no arithmetic"
        return
    report = run(machine, lowered, engine="simpy", execute=True).report
    if report.verification.status != "exact":
        yield "tokens do not carry to the outputs that were computed"
