"""The SimPy engine: every lane a process.

This is the definition of what a netlist means, to which the compiled engine is held start by start,
and the place to extend. A lane asks for its conditions one after the other: its tokens, its free
slots, its resource; each is an event of a :class:`Link` or a :class:`Server`, and the lane sleeps
until it happens. What a link holds carries the cycle in which it becomes true (a token visible, a
slot free), so the cause of a start is read off, not guessed from the order of events.

Nothing that happens in a cycle is seen before the next, so the order in which SimPy runs the
processes of one cycle does not matter - except for who gets a server. Servers therefore decide in
an event of lower priority, once everything else in the cycle has happened.

A user's own actor is a generator that asks its lane for one firing after another::

    def sink(lane):
        while True:
            got = yield from lane.fire(busy=2, consume={"queue": 1})
            print(lane.now, got["queue"])

    Actor(name="sink", behaviour=sink)
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import simpy

from sparqsim.base import InputError
from sparqsim.simulator.amounts import check_count
from sparqsim.simulator.engines.links import Ask, Freed, Link, Server, Shown
from sparqsim.simulator.loops import STRETCH, Loops
from sparqsim.simulator.netlist import Actor, Channel, Netlist
from sparqsim.simulator.timeline import (
    FREE,
    GRANT,
    INPUT,
    OUTPUT,
    PREVIOUS,
    Decided,
    Grants,
    Timeline,
)

Wait = Generator[simpy.Event, Any, Any]


class Observer(Protocol):
    """What can be attached to a run from outside."""

    def fired(self, cycle: int, actor: str, lane: int, firing: int, cause: int) -> None:
        """Called when a firing starts."""
        ...


class Lane:
    """One lane of an actor as a SimPy process, and the handle a user's behaviour is given.

    Attributes
    ----------
    actor, index
        The actor it belongs to and its position in the bank.
    """

    def __init__(self, run: Simulation, actor: Actor, index: int, order: int) -> None:
        self.actor, self.index, self.order = actor, index, order
        self._run, self._env = run, run.env
        self._server = run.servers[actor.resource] if actor.resource else None
        self._end = 0
        self.starts: list[int] = []
        self.causes: list[int] = []
        self.ready: list[int] = []
        self.ready_causes: list[int] = []
        self.held: list[int] = []
        self.occupied: list[int] = []
        self.shown: list[int] = []
        self.busy: list[int] = []
        self.finish = 0
        self.delays: list[int] = []  # kept for a behaviour only, as are the two below
        self.consumed: list[Mapping[str, int]] = []
        self.produced: list[Mapping[str, int]] = []
        self.inputs: dict[str, tuple[int, list[Link], Any]] = {}
        self.outputs: dict[str, tuple[int, list[Link], Any]] = {}

    @property
    def now(self) -> int:
        """The current cycle."""
        return int(self._env.now)

    def fire(
        self,
        busy: int = 1,
        latency: int | None = None,
        consume: Mapping[str, int] | None = None,
        produce: Mapping[str, int | Sequence[Any]] | None = None,
        request: Any = None,
        rank: int = 0,
    ) -> Wait:
        """One firing of a user's behaviour; use with ``yield from``.

        Parameters
        ----------
        busy, latency
            As in :class:`~sparqsim.simulator.netlist.Actor`, for this firing.
        consume
            Tokens to take from each channel.
        produce
            Tokens to put into each channel: a number, or the list of their values.
        request
            The row of integers for a banked or stateful resource.
        rank
            Of the request among those that wait: the least goes first.

        Returns
        -------
        dict
            The values of the consumed tokens, one list per channel. The generator returns in the
            cycle the firing starts.
        """
        taken = dict(consume or {})
        made = {
            name: [None] * given if isinstance(given, int | np.integer) else list(given)
            for name, given in (produce or {}).items()
        }
        counts = {name: len(values) for name, values in made.items()}
        self._check(busy, latency, taken, counts)
        request = self._checked_request(request)
        takes = [
            (code, links, taken[name])
            for name, (code, links, _) in self.inputs.items()
            if name in taken
        ]
        makes = [
            (code, links, counts[name])
            for name, (code, links, _) in self.outputs.items()
            if name in counts
        ]
        start, _, latency = yield from self._start(takes, makes, busy, latency, request, rank)
        self.delays.append(latency)
        self.consumed.append(taken)
        self.produced.append(counts)
        got = {
            name: [value for link in self.inputs[name][1] for value in link.take_tokens(start, n)]
            for name, n in taken.items()
        }
        for name, values in made.items():
            for link in self.outputs[name][1]:
                link.put_tokens(start + latency, values)
        return got

    def _check(
        self,
        busy: int,
        latency: int | None,
        consume: Mapping[str, int],
        produce: Mapping[str, int],
    ) -> None:
        """An error message if a firing of a behaviour asks for what cannot be."""
        where = f"actor {self.actor.name!r}[{self.index}] firing {len(self.starts)}"
        check_count(f"{where}: busy", busy, least=1 if self._server else 0)
        if latency is not None:
            check_count(f"{where}: latency", latency, least=1)
        for moved, ends, verb in (
            (consume, self.inputs, "consume"),
            (produce, self.outputs, "produce"),
        ):
            for name, count in moved.items():
                if name not in ends:
                    raise InputError(
                        f"{where} cannot {verb} tokens of {name!r}; its channels to {verb} are "
                        f"{', '.join(ends) or 'none'}"
                    )
                check_count(f"{where}: tokens of {name!r} to {verb}", count, least=0)
                capacity = self._run.netlist.channel(name).capacity
                if count > capacity:
                    raise InputError(
                        f"{where} would {verb} {count} tokens of {name!r} at once, but it holds "
                        f"{capacity} and the firing could never start"
                    )

    def _checked_request(self, given: Any) -> Any:
        """The request of a behaviour's firing as the integers its resource reads."""
        if self._server is None or not (fields := self._server.resource.fields):
            return None
        resource = self._server.resource
        request = np.asarray(given)
        where = f"actor {self.actor.name!r}[{self.index}] firing {len(self.starts)}"
        if request.dtype.kind not in "iu" or request.shape != (fields,):
            raise InputError(
                f"{where}: request must be {fields} integers for {resource.name!r}, got {given!r}"
            )
        resource.check_request(where, request)
        return request.astype(np.int64)

    def process(self) -> Wait:
        """The lane's whole life; an error in a user's code is told where it happened."""
        behaviour = self.actor.behaviour
        try:
            body = behaviour(self) if behaviour else self.declared()
            if not isinstance(body, Generator):
                raise InputError(
                    f"actor {self.actor.name!r}: behaviour must be a generator function, one that "
                    f"fires with 'yield from lane.fire(...)'; got {behaviour!r}"
                )
            yield from body
        except Exception as error:
            error.add_note(
                f"in actor {self.actor.name!r} lane {self.index}, after {len(self.starts)} "
                f"firings, at cycle {self.now}"
            )
            self._run.failure = self._run.failure or error
            raise

    def _start(
        self,
        takes: list[tuple[int, list[Link], int]],
        makes: list[tuple[int, list[Link], int]],
        busy: int,
        latency: int | None,
        request: Any,
        rank: int,
    ) -> Wait:
        """Wait for (a) to (d), in this order; returns (start, busy, latency)."""
        env = self._env
        firing = len(self.starts)
        latest, cause = self._end, PREVIOUS if firing else FREE
        for code, links, count in takes:
            if count:
                for link in links:
                    at = link.visible_at(count)
                    if at is None:
                        yield Shown(link, count)
                        at = link.visible_at(count)
                    if at > latest:  # type: ignore[operator]
                        latest, cause = at, code  # type: ignore[assignment]
        for code, links, count in makes:
            if count:
                for link in links:
                    at = link.free_at(count)
                    if at is None:
                        yield Freed(link, count)
                        at = link.free_at(count)
                    if at > latest:  # type: ignore[operator]
                        latest, cause = at, code  # type: ignore[assignment]
        if latest > env.now:
            yield env.timeout(latest - env.now)
        if self._server is not None:
            self.ready.append(latest)
            self.ready_causes.append(cause)
            busy, hold, answer = yield Ask(self._server, self.order, busy, request, rank)
            if env.now > latest:
                latest, cause = env.now, GRANT
            if answer is not None:
                latency = answer
                self.held.append(hold)
                self.occupied.append(busy)
                self.shown.append(answer)
        if latency is None:
            latency = busy if busy > 1 else 1
        self._end = latest + busy
        self.starts.append(latest)
        self.causes.append(cause)
        self.busy.append(busy)
        done = latest + (latency if latency > busy else busy)
        if done > self.finish:
            self.finish = done
        for observer in self._run.observers:
            observer.fired(latest, self.actor.name, self.index, firing, cause)
        return latest, busy, latency

    def declared(self) -> Wait:
        """The process of a lane whose firings were declared."""
        actor, lane = self.actor, self.index
        busy = _column(actor.busy, lane, actor.count)
        latency: Any = [None] * actor.count
        if actor.latency is not None:
            latency = _column(actor.latency, lane, actor.count)
        requests, ranks = actor.request, _column(actor.rank, lane, actor.count)
        inputs, outputs = list(self.inputs.items()), list(self.outputs.items())
        takes = [(code, links, 1) for _, (code, links, _) in inputs]
        makes = [(code, links, 1) for _, (code, links, _) in outputs]
        same = all(rates is None for _, (_, _, rates) in (*inputs, *outputs))
        execute = actor.execute if self._run.execute else None
        request = None
        for k in range(actor.count):
            if not same:
                takes = [(c, links, _rate(rates, k)) for _, (c, links, rates) in inputs]
                makes = [(c, links, _rate(rates, k)) for _, (c, links, rates) in outputs]
            if requests is not None:
                assert isinstance(requests, np.ndarray)
                request = requests[k, lane % requests.shape[1]]
            start, _, delay = yield from self._start(
                takes, makes, busy[k], latency[k], request, ranks[k]
            )
            visible = start + delay
            if execute is None:
                for _, links, count in takes:
                    for link in links:
                        link.take_tokens(start, count)
                for _, links, count in makes:
                    for link in links:
                        link.put_tokens(visible, (None,) * count)
                continue
            got = {
                name: [v for link in links for v in link.take_tokens(start, count)]
                for (name, _), (_, links, count) in zip(inputs, takes, strict=True)
            }
            made = execute(lane, k, got) or {}
            if not made.keys() <= self.outputs.keys():
                raise InputError(
                    f"actor {actor.name!r} has no channels "
                    f"{', '.join(sorted(made.keys() - self.outputs.keys()))} to make tokens for; "
                    f"its outputs are {', '.join(self.outputs) or 'none'}"
                )
            for (name, _), (_, links, count) in zip(outputs, makes, strict=True):
                values = made.get(name, [None] * count)
                if len(values) != count:
                    raise InputError(
                        f"actor {actor.name!r} firing {k} must make {count} tokens for {name!r}, "
                        f"its execute made {len(values)}"
                    )
                for link in links:
                    link.put_tokens(visible, values)


def _column(given: Any, lane: int, firings: int) -> Sequence[Any] | Loops:
    """One lane's column of an array ``[1 or firings, 1 or lanes]``, to be read by the firing."""
    if isinstance(given, Loops):
        return given if len(given) > STRETCH else given.window(0, len(given)).tolist()
    column = given[:, lane % given.shape[1]].tolist()
    return column * firings if len(column) == 1 else column


def _rate(rates: Sequence[int] | Loops | None, firing: int) -> int:
    return 1 if rates is None else rates[firing]


class Simulation:
    """One run of the SimPy engine; can be stepped through.

    Parameters
    ----------
    netlist, observers
        As for :func:`sparqsim.simulator.engines.simulate`.
    execute
        Whether firings run their arithmetic.

    Attributes
    ----------
    env
        The SimPy environment: ``simulation.env.step()`` runs one event,
        ``simulation.env.run(until=100)`` the first hundred cycles.
    """

    def __init__(
        self,
        netlist: Netlist,
        execute: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.netlist, self.execute = netlist, execute
        self.observers = tuple(observers)
        self.env = simpy.Environment()
        self.servers = {r.name: Server(self.env, r) for r in netlist.resources}
        self.failure: Exception | None = None  # what first went wrong in a lane, with its note
        self.lanes: dict[str, list[Lane]] = {}
        self.links: dict[str, dict[tuple[int, int], Link]] = {}
        order = 0
        for actor in netlist.actors:
            self.lanes[actor.name] = [
                Lane(self, actor, lane, order + lane) for lane in range(actor.lanes)
            ]
            order += actor.lanes
        for number, channel in enumerate(netlist.channels):
            self._connect(number, channel)
        for actor in netlist.actors:
            for lane in self.lanes[actor.name]:
                self.env.process(lane.process())

    def _connect(self, number: int, channel: Channel) -> None:
        source, target = self.lanes[channel.source], self.lanes[channel.target]
        links = {
            (i, j): Link(self.env, channel.capacity)
            for j in range(len(target))
            for i in channel.source_lanes(j, len(source))
        }
        self.links[channel.name] = links
        for kind, lanes, rates, side, code in (
            ("outputs", source, channel.produce, 0, OUTPUT + 2 * number),
            ("inputs", target, channel.consume, 1, INPUT + 2 * number),
        ):
            assert isinstance(rates, np.ndarray | Loops)
            mine: list[list[Link]] = [[] for _ in lanes]
            for ends, link in links.items():
                mine[ends[side]].append(link)
            for lane in lanes:
                count = lane.actor.count
                column = None
                if isinstance(rates, Loops) or rates.shape != (1, 1) or rates[0, 0] != 1:
                    column = _column(rates, lane.index, count)
                getattr(lane, kind)[channel.name] = (code, mine[lane.index], column)

    def run(self) -> Timeline:
        """Run to the end and return the timeline of what happened."""
        try:
            self.env.run()
        except Exception:
            if self.failure is None:
                raise
            raise self.failure from None  # SimPy raises a copy, without the notes
        return self.timeline()

    def timeline(self) -> Timeline:
        """What has happened so far."""
        netlist = self.netlist
        starts, causes = [], []
        grants: list[Grants | None] = []
        decided: dict[str, Decided] = {}
        for actor in netlist.actors:
            lanes = self.lanes[actor.name]
            rows = actor.count
            if actor.behaviour is not None:
                rows = max(len(lane.starts) for lane in lanes)
                decided[actor.name] = _decided(lanes, rows)
            starts.append(_matrix([lane.starts for lane in lanes], rows))
            causes.append(_matrix([lane.causes for lane in lanes], rows).astype(np.int32))
            if actor.resource is None:
                grants.append(None)
                continue
            known = Grants(
                ready=_matrix([lane.ready[: len(lane.starts)] for lane in lanes], rows),
                causes=_matrix(
                    [lane.ready_causes[: len(lane.starts)] for lane in lanes], rows
                ).astype(np.int32),
            )
            if self.servers[actor.resource].resource.model is not None:
                answers = [
                    _matrix([getattr(lane, kind) for lane in lanes], rows)
                    for kind in ("held", "occupied", "shown")
                ]
                known = Grants(known.ready, known.causes, *answers)
            grants.append(known)
        cycles = max((lane.finish for lanes in self.lanes.values() for lane in lanes), default=0)
        return Timeline(
            netlist=netlist,
            cycles=cycles,
            fired=tuple(
                np.array([len(lane.starts) for lane in lanes]) for lanes in self.lanes.values()
            ),
            starts=tuple(starts),
            causes=tuple(causes),
            grants=tuple(grants),
            decided=decided,
        )


def _decided(lanes: list[Lane], rows: int) -> Decided:
    """What the lanes of a behaviour did."""

    def tokens(kind: str, channel: str) -> Any:
        columns = [[moved.get(channel, 0) for moved in getattr(lane, kind)] for lane in lanes]
        return _matrix(columns, rows, empty=0)

    return Decided(
        busy=_matrix([lane.busy for lane in lanes], rows, empty=0),
        latency=_matrix([lane.delays for lane in lanes], rows, empty=0),
        consume={name: tokens("consumed", name) for name in lanes[0].inputs},
        produce={name: tokens("produced", name) for name in lanes[0].outputs},
    )


def _matrix(columns: list[list[int]], rows: int, empty: int = -1) -> Any:
    """Lists over firings, one a lane, as ``[firings, lanes]``, ``empty`` where nothing happened."""
    matrix = np.full((rows, len(columns)), empty, np.int64)
    for lane, column in enumerate(columns):
        matrix[: len(column), lane] = column
    return matrix
