"""The process that judges what a submission handed over: both engines, outputs, bounds, the laws.

    python -m sparqsim.scripts.grade.jury TASK.json FOLDER VERDICT.json

It holds no code of the student's. A machine is made whose ``lower`` gives back the program that was
read, and :func:`sparqsim.architectures.laws.broken` runs it as it runs every machine that ships.
Outputs are compared bit by bit with a product made here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from sparqsim.architectures.arrays.datapath import Work, integer_operand, integer_products
from sparqsim.architectures.laws import broken
from sparqsim.architectures.machine import Machine, Program
from sparqsim.architectures.operands import Computes
from sparqsim.base import InputError
from sparqsim.scripts.grade import handover
from sparqsim.scripts.grade.cases import RECIPE, Case, encoded, tensors
from sparqsim.simulator.engines import simulate
from sparqsim.simulator.memory.dram import DramChannel
from sparqsim.simulator.report import Verification
from sparqsim.workloads.encoded import EncodedLayer, as_convolution

SUM_BITS = 32
BURSTS = 2  # the field of a request to a DRAM that says how many


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """The budget of the student's sheet, and the cases."""

    multipliers: int
    bytes_per_cycle: int
    cases: list[Case]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What does not hold in one case, a sentence each, and its cycles over the lower bound."""

    laws: list[str] = []
    bounds: list[str] = []
    over_bound: float | None = None


def judge(task: Task, case: Case, path: Path) -> Verdict:
    """Judge the program of one case."""
    try:
        data, read = handover.read(path)
        work = _work(encoded(case))
        if read.outputs is not None and read.outputs.shape != work.outputs.shape:
            shapes = f"have shape {read.outputs.shape}, the layer's is {work.outputs.shape}"
            return Verdict(laws=[f"outputs {shapes}"])
        submitted = _machine(data, partial(_complete, read, case))
        laws = broken(submitted, tensors(case), RECIPE)
        bounds, over = _bounds(task, data, read, case, work)
    except InputError as error:
        return Verdict(laws=[str(error)])
    except Exception as error:  # numbers that nobody checks may break anything on their way
        return Verdict(laws=[f"{type(error).__name__}: {error}"])
    return Verdict(laws=laws, bounds=bounds, over_bound=over)


def _work(layer: EncodedLayer) -> Work:
    x, w = integer_operand(layer, "activations"), integer_operand(layer, "weights")
    return Work(layer, x, w, integer_products, SUM_BITS)


def _complete(read: Program, case: Case, layer: EncodedLayer) -> Program:
    """The program with a name and with outputs that are checked here."""
    return replace(
        read, layer=case.layer.name, inputs=layer.source, verify=partial(_verify, read, layer)
    )


def _verify(read: Program, layer: EncodedLayer) -> Verification:
    """Outputs, scale and zero point against those of the datapath that the task fixes."""
    work, outputs = _work(layer), read.outputs
    same = (
        isinstance(outputs, np.ndarray)
        and outputs.shape == work.outputs.shape
        and np.allclose(read.output_scale, work.output_scale, rtol=1e-12, atol=0)
        and read.output_zero == work.output_zero
    )
    wrong = int(np.count_nonzero(outputs != work.outputs)) if same else work.outputs.size
    return Verification(
        status="mismatch" if wrong else "exact",
        outputs=work.outputs.size,
        mismatches=wrong,
        against="8-bit codes in 32-bit sums, requantized, multiplied by the judge",
    )


def _machine(data: handover.ProgramData, lower: partial[Program]) -> Machine:
    """A machine that says what the submission says and lowers to what it handed over."""

    class Submitted(Machine, frozen=True, kw_only=True):
        name = "submission"
        title = "A student's machine"
        recipe = RECIPE

        def computes(self, layer: EncodedLayer) -> Computes:
            return Computes(
                weights=data.weights,
                activations=data.activations,
                zero_points=data.zero_points,
            )

        def bandwidth(self) -> float | None:
            return data.bandwidth

        def lower(self, layer: EncodedLayer) -> Program:
            return lower(layer)

    return Submitted()


def _bounds(
    task: Task, data: handover.ProgramData, read: Program, case: Case, work: Work
) -> tuple[list[str], float]:
    """What goes beyond the budget or moves too little, and cycles over the lower bound."""
    found = []
    if not 1 <= read.multipliers <= task.multipliers:
        found.append(f"multipliers must be 1 to {task.multipliers}, got {read.multipliers}")
    most = task.bytes_per_cycle * data.clock_hz
    if data.bandwidth is None or not 0 < data.bandwidth <= most:
        found.append(f"bandwidth() must be above 0 and at most {most:g}, got {data.bandwidth}")
    if read.macs.effectual not in (work.effectual, case.layer.macs):
        found.append(
            f"effectual MACs must be {work.effectual} (of two non-zeros) or all "
            f"{case.layer.macs}, got {read.macs.effectual}"
        )
    found += _drams(read, most)
    least_read = 8 * as_convolution(case.layer).weights
    least_written = 8 * case.layer.output_elements
    names = data.stores
    moved = read.account.moved(read.netlist, "dram") if "dram" in names else (0, 0)
    if moved[0] < least_read or moved[1] < least_written:
        found.append(
            f"the account must read at least {least_read} bits of weights from the memory 'dram' "
            f"and write {least_written} bits of outputs, got {moved[0]} and {moved[1]}"
        )
    compute = -(-work.effectual // task.multipliers)
    transfer = -(-(least_read + least_written) // (8 * task.bytes_per_cycle))
    bound = max(compute, transfer)
    cycles = simulate(read.netlist, record="summary").cycles
    if cycles < bound:
        found.append(f"{cycles} cycles are fewer than the lower bound of {bound}")
    return found, cycles / bound


def _drams(read: Program, most: float) -> Iterator[str]:
    """What DRAMs with rows and banks could move beyond the budget, or do not move but are told."""
    netlist, account = read.netlist, read.account
    drams = {r.name: r.model.dram.timing for r in netlist.resources
             if isinstance(r.model, DramChannel)}  # fmt: skip
    peak = sum(timing.peak_bytes_per_s for timing in drams.values())
    if peak > most:
        yield f"DRAM channels must move at most {most:g} bytes a second at best, got {peak:g}"
    for port in account.ports:
        actor = netlist.actor(port.actor)
        if port.store != "dram" or actor.resource not in drams:
            continue
        bursts = np.asarray(actor.request)[..., BURSTS]
        bursts = np.broadcast_to(bursts.reshape(actor.count, -1), (actor.count, actor.lanes))
        requested = 8 * int(bursts.sum()) * drams[actor.resource].burst_bytes
        told = sum(replace(account, ports=[port]).moved(netlist, "dram"))
        if told > requested:
            yield f"{actor.name} requests {requested} bits of the DRAM, the account has {told:g}"


def main(task: str, folder: str, verdict: str) -> None:
    """Judge every case and write the verdicts."""
    asked = msgspec.json.decode(Path(task).read_bytes(), type=Task)
    found = [
        judge(asked, case, Path(folder) / f"{number}.npz")
        for number, case in enumerate(asked.cases)
    ]
    Path(verdict).write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
