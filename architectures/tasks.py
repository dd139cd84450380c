"""Layers to be simulated, one by one here or spread over processes.

A :class:`Task` is all that another process needs to run a layer: the numbers of a trained network
travel with it, synthetic ones are drawn where it runs.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

from sparqsim.architectures.machine import Machine, Result, refuse, run
from sparqsim.architectures.registry import file_of, get_machine
from sparqsim.base import InputError
from sparqsim.simulator.report import Report
from sparqsim.workloads.brought import Brought
from sparqsim.workloads.encoded import EncodedLayer, outline
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.network_tensors import NetworkTensors
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.shared import once
from sparqsim.workloads.tensors import LayerTensors

Progress = Callable[[str, int, int], None]  # what is done, steps done, steps in all
POOL_PAYS_AFTER_S = 4.0  # assumed: starting processes costs about as much


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A layer to be simulated; it can be sent to another process.

    ``numbers`` are the layer's, or draw them where it is run; None: an outline will do.
    ``pruned`` says that its weights come so, ``brought`` which codes its file has. The rest is as
    for :func:`~sparqsim.architectures.machine.run`.
    """

    machine: Machine
    layer: Layer
    numbers: LayerTensors | NetworkTensors | None
    pruned: bool
    recipe: Recipe | str | None
    requantize: bool
    engine: str
    verify: bool
    seed: int | None
    record: str = "summary"
    execute: bool = False
    brought: Brought | None = None

    def result(self) -> Result:
        """Run the layer; raises InputError if the machine cannot."""
        refuse(self.machine, self.layer)
        work: LayerTensors | EncodedLayer
        if self.numbers is None:
            own = self.machine.recipe_for(self.layer)
            chosen = self.recipe if self.brought else self.recipe or own
            work = once(
                "outline",
                (self.layer, chosen, own, self.pruned),
                () if self.brought is None else (self.brought,),
                partial(
                    outline, self.layer, chosen, own=own, pruned=self.pruned, brought=self.brought
                ),
            )
        elif isinstance(self.numbers, NetworkTensors):
            work = self.numbers.of(self.layer)
        else:
            work = self.numbers
        return run(
            self.machine,
            work,
            recipe=self.recipe,
            requantize=self.requantize,
            engine=self.engine,
            record=self.record,
            verify=self.verify,
            execute=self.execute,
            seed=self.seed,
        )

    def carry_out(self) -> Report | str:
        """The report, or why the machine does not run the layer."""
        if self.numbers is not None:
            return self._outcome()
        # Of shapes alone the outcome is the same in every network, but for the layer's name.
        key = (self.machine, self.layer, self.pruned, self.recipe, self.requantize)
        return once("outcome", (*key, self.engine, self.record), (), self._outcome)

    def _outcome(self) -> Report | str:
        try:
            return self.result().report
        except InputError as error:
            return str(error)


def task_of(
    machine: Machine,
    tensors: NetworkTensors,
    layer: Layer,
    *,
    recipe: Recipe | str | None = None,
    requantize: bool = False,
    engine: str = "compiled",
    verify: bool = True,
    record: str = "summary",
    execute: bool = False,
) -> Task:
    """A layer of a network to be simulated: with its numbers where they are needed."""
    outlined = is_outlined(machine, verify) and not execute
    numbers = None if outlined else tensors.of(layer) if tensors.is_real else tensors
    return Task(
        machine=machine,
        layer=layer,
        numbers=numbers,
        pruned=tensors.comes_pruned(layer),
        recipe=recipe,
        requantize=requantize,
        engine=engine,
        verify=verify,
        seed=None if outlined or tensors.is_real else tensors.seed,
        record=record,
        execute=execute,
        brought=tensors.network.brought.get(layer.name) if outlined else None,
    )


def is_outlined(machine: Machine, verify: bool) -> bool:
    """Whether shapes and formats alone will do."""
    return not verify and not machine.needs_numbers


def carried_out(
    machine: Machine,
    layers: Sequence[Layer],
    task: Callable[[Layer], Task],
    jobs: int,
    progress: Progress | None,
) -> list[Report | str]:
    """Outcomes in order: here at first, by several processes where much is left."""
    found: list[Report | str] = []

    def tell(layer: Layer) -> None:
        if progress is not None:
            progress(layer.name, len(found), len(layers))

    # The first layer loads kernels, so it says nothing of the others; outlines are always quick.
    start, done, left = 0.0, 0, sum(layer.macs for layer in layers)
    for number, layer in enumerate(layers):
        if number == 1:
            start = time.monotonic()
        left_s = (time.monotonic() - start) * left / done if done else 0.0
        if jobs > 1 and left_s * (1 - 1 / jobs) > POOL_PAYS_AFTER_S:
            break
        tell(layer)
        made = task(layer)
        found.append(made.carry_out())
        left -= layer.macs
        done += layer.macs if number and made.numbers is not None else 0
    rest = layers[len(found) :]
    for layer, outcome in zip(rest, _by_pool(machine, rest, task, jobs, tell), strict=True):
        found.append(outcome)
        tell(layer)
    return found


def _prepare(file: str | None) -> None:
    """Load a machine's file where a task of that machine is to be received."""
    if file is not None:
        get_machine(file)


def _by_pool(
    machine: Machine,
    layers: Sequence[Layer],
    task: Callable[[Layer], Task],
    jobs: int,
    tell: Callable[[Layer], None],
) -> Iterator[Report | str]:
    """Outcomes in order; few tasks wait at once, for each may carry its tensors."""
    if not layers:
        return
    tell(layers[0])
    pool = ProcessPoolExecutor(
        min(jobs, len(layers)),
        mp_context=multiprocessing.get_context("spawn"),  # threads of kernels forbid a fork
        initializer=_prepare,
        initargs=(file_of(type(machine)),),
    )
    waiting: deque[Future[Report | str]] = deque()
    try:
        for layer in layers:
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
            waiting.append(pool.submit(task(layer).carry_out))
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a process ended before its layer was done, for lack of memory or of the guard "
            'if __name__ == "__main__" in the script; use fewer jobs'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
