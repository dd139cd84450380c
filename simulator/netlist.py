"""The machine model: actors, channels and resources, and the netlist that holds them.

    Actors fire when the tokens they need are visible and there are free slots for what they make;
    a firing takes cycles; channels bound and delay tokens; resources are shared. Nothing that
    happens in a cycle is seen by another actor before the next.

An *actor* is a bank of identical lanes (64 processing elements are one actor of 64 lanes). A
*channel* is a bank of first-in first-out queues between the lanes of two actors. A *resource* is
a server that firings hold: a bus, an SRAM port, a DRAM channel. A :class:`Netlist` is the actors,
channels and resources of one run. It is whole at birth and never changes; both engines read it.

The rules, to the cycle
-----------------------
Firing ``k`` of a lane starts at the earliest cycle by which (a) its firing ``k - 1`` has ended,
(b) every input channel shows the tokens it consumes, (c) every output channel has free slots for
what it produces, and (d) its resource is granted. At the start inputs are popped and output slots
are taken. A popped slot is free for the producer one cycle later. Tokens of a firing that starts
at ``t`` are visible at ``t + latency`` and never overtake earlier tokens of their queue. A request
for a resource queues from the cycle in which (a) to (c) hold; once all else in a cycle has
happened, a free server goes to the waiting request of least rank (that of its firing, then that of
a stateful resource), then the oldest, then that of the earlier declared actor, then of the lower
lane.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparqsim.base import InputError
from sparqsim.simulator.amounts import (
    MOST_FIRINGS,
    as_array,
    check_clock,
    check_count,
    check_name,
    found,
    is_number,
    least_and_most,
    near,
    per_firing,
)
from sparqsim.simulator.loops import Loops

if TYPE_CHECKING:
    import networkx

Execute = Callable[[int, int, dict[str, list[Any]]], dict[str, list[Any]]]
Behaviour = Callable[[Any], Generator[Any, Any, None]]


class Pattern(enum.Enum):
    """Which lanes of the source a channel joins to which lanes of the target.

    Every pair has a queue of its own. ``LANE``: lane i to lane i. ``BROADCAST``: the one lane of
    the source to all; a token goes to every queue at once, and waits for a slot in all. ``GATHER``:
    all lanes to the one lane of the target, which takes its tokens from every queue at once.
    ``SHIFT``: lane i to lane i + offset; lanes without a partner are not held back by it.
    """

    LANE = "lane"
    BROADCAST = "broadcast"
    GATHER = "gather"
    SHIFT = "shift"


@dataclass(frozen=True, eq=False, kw_only=True)
class Actor:
    """A bank of identical lanes, each with the same number of firings.

    Parameters
    ----------
    name
        Unique in the netlist.
    lanes
        Number of lanes.
    firings
        Firings of each lane. May be left out if ``busy`` is an array over firings.
    busy
        Cycles for which a firing occupies its lane: a number, an array ``[firings]`` or
        ``[firings, lanes]``, or :class:`~sparqsim.simulator.loops.Loops`, which do not grow with
        the firings. 0 is allowed only where no resource is used.
    latency
        Cycles from a firing's start until its results are visible, at least 1; shaped as
        ``busy``. By default results are visible when the firing ends (and never before 1 cycle).
    resource
        Name of the resource that every firing holds, for ``busy`` cycles unless the resource
        computes the hold itself.
    request
        What a banked or stateful resource needs to know of each firing: integers
        ``[firings, fields]`` or ``[firings, lanes, fields]``. For a banked resource the one field
        is the bank.
    rank
        Rank of each firing's request, at least 0 and shaped as ``busy``: of the requests that wait
        the least goes first, the number of the work that waits for it, say.
    execute
        The arithmetic of one firing, run by the SimPy engine under ``verify="execute"``:
        ``execute(lane, firing, {channel: [consumed values]}) -> {channel: [produced values]}``.
    behaviour
        An actor written by the user as a Python generator (SimPy engine only); see
        :class:`sparqsim.simulator.engines.actors.Lane`. Such an actor has no ``firings``.
    part
        The block of the block diagram this actor stands for; default: its name.
    """

    name: str
    lanes: int = 1
    firings: int | None = None
    busy: ArrayLike | Loops = 1
    latency: ArrayLike | Loops | None = None
    resource: str | None = None
    request: ArrayLike | None = None
    rank: ArrayLike | Loops = 0
    execute: Execute | None = None
    behaviour: Behaviour | None = None
    part: str = ""

    def __post_init__(self) -> None:
        where = f"actor {self.name!r}"
        check_name("an actor", self.name)
        object.__setattr__(self, "lanes", check_count(f"{where}: lanes", self.lanes, least=1))
        if self.behaviour is not None:
            if self.firings is not None:
                raise InputError(f"{where}: an actor with a behaviour decides its own firings")
            if self.execute is not None:
                raise InputError(f"{where}: a behaviour does its own arithmetic; drop execute")
            object.__setattr__(self, "firings", 0)
        elif self.firings is None:
            busy = self.busy
            if not isinstance(busy, Loops):
                busy = as_array(f"{where}: busy", busy)
                if not busy.ndim:
                    raise InputError(f"{where}: give firings, or busy as an array over firings")
            firings = busy.firings if isinstance(busy, Loops) else len(busy)
            object.__setattr__(self, "firings", firings)
        firings = check_count(f"{where}: firings", self.firings, least=0)
        object.__setattr__(self, "firings", firings)
        shape = (self.count, self.lanes)
        least = 1 if self.resource else 0
        object.__setattr__(self, "busy", per_firing(f"{where}: busy", self.busy, shape, least))
        if self.latency is not None:
            latency = per_firing(f"{where}: latency", self.latency, shape, 1)
            object.__setattr__(self, "latency", latency)
        object.__setattr__(self, "rank", per_firing(f"{where}: rank", self.rank, shape, 0))
        if self.request is not None:
            object.__setattr__(self, "request", self._checked_request(where))
        if not self.part:
            object.__setattr__(self, "part", self.name)

    def _checked_request(self, where: str) -> NDArray[np.int64]:
        request = as_array(f"{where}: request", self.request)
        if request.dtype.kind not in "iu":
            raise InputError(f"{where}: request must hold integers, got {request.dtype}")
        if self.resource is None:
            raise InputError(f"{where}: a request needs a resource to go to")
        if request.ndim == 2:
            request = request[:, None, :]
        wanted = (self.count, self.lanes)
        if (
            request.ndim != 3
            or request.shape[0] != wanted[0]
            or request.shape[1] not in (1, wanted[1])
        ):
            raise InputError(
                f"{where}: request must be [firings, fields] or [firings, lanes, fields] with "
                f"{wanted[0]} firings and {wanted[1]} lanes, got {request.shape}"
            )
        return np.ascontiguousarray(request, dtype=np.int64)

    @property
    def count(self) -> int:
        """Firings of each lane."""
        assert self.firings is not None
        return self.firings


@dataclass(frozen=True, eq=False, kw_only=True)
class Channel:
    """A bank of queues from the lanes of one actor to the lanes of another.

    Parameters
    ----------
    name, source, target
        Its own name and those of the two actors.
    capacity
        Tokens each queue can hold, from the start of the firing that makes one to the start of
        the firing that takes it.
    pattern, offset
        How lanes are joined; ``offset`` is for :attr:`Pattern.SHIFT` alone.
    produce, consume
        Tokens a firing of the source makes, and a firing of the target takes: a number or an
        array ``[firings]`` or ``[firings, lanes]``, or
        :class:`~sparqsim.simulator.loops.Loops`.
    """

    name: str
    source: str
    target: str
    capacity: int
    pattern: Pattern = Pattern.LANE
    offset: int = 1
    produce: ArrayLike | Loops = 1
    consume: ArrayLike | Loops = 1

    def __post_init__(self) -> None:
        check_name("a channel", self.name)
        for name, least in (("capacity", 1), ("offset", -MOST_FIRINGS)):
            count = check_count(f"channel {self.name!r}: {name}", getattr(self, name), least)
            object.__setattr__(self, name, count)
        if not isinstance(self.pattern, Pattern):
            raise InputError(
                f"channel {self.name!r}: pattern must be a Pattern, got {self.pattern!r}"
            )

    def source_lanes(self, target_lane: int, lanes: int) -> range:
        """The lanes of the source (it has ``lanes``) that feed a lane of the target."""
        if self.pattern is Pattern.BROADCAST:
            return range(1)
        if self.pattern is Pattern.GATHER:
            return range(lanes)
        lane = target_lane - (self.offset if self.pattern is Pattern.SHIFT else 0)
        return range(lane, lane + 1) if 0 <= lane < lanes else range(0)

    def target_lanes(self, source_lane: int, lanes: int) -> range:
        """The lanes of the target (it has ``lanes``) that a lane of the source feeds."""
        if self.pattern is Pattern.BROADCAST:
            return range(lanes)
        if self.pattern is Pattern.GATHER:
            return range(1)
        lane = source_lane + (self.offset if self.pattern is Pattern.SHIFT else 0)
        return range(lane, lane + 1) if 0 <= lane < lanes else range(0)


class FieldBound(NamedTuple):
    """A field of a request and the least and most it may be."""

    name: str
    least: int
    most: int


class ResourceModel(Protocol):
    """A stateful resource: it computes how long a request holds it (a DRAM channel, say).

    Requests are checked by its ``bounds`` when a netlist is built, so that the kernels, which check
    nothing, only ever see what they can serve. Its functions get the integer arrays of this
    resource and one row of :attr:`Actor.request`. The compiled engine runs the numba functions
    registered under ``kind`` in :mod:`sparqsim.simulator.engines.stateful`; they are the same.
    """

    kind: str

    def bounds(self) -> Sequence[FieldBound]:
        """The fields of a request, in order, each with the values it may have."""
        ...

    def parameters(self) -> NDArray[np.int64]:
        """Constants of the model."""
        ...

    def initial_state(self) -> NDArray[np.int64]:
        """State at cycle 0; each run works on a copy."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Resource:
    """Servers that firings hold.

    Parameters
    ----------
    name
        Unique in the netlist.
    servers
        How many firings can hold it at once.
    banked
        If true the servers are banks and a firing needs the one its ``request`` names (an SRAM
        bank); if false any free server will do (a bus, identical ports).
    model
        A stateful model that computes the hold of each request from its ``request``.
    """

    name: str
    servers: int = 1
    banked: bool = False
    model: ResourceModel | None = None

    def __post_init__(self) -> None:
        check_name("a resource", self.name)
        servers = check_count(f"resource {self.name!r}: servers", self.servers, least=1)
        object.__setattr__(self, "servers", servers)
        if self.banked and self.model is not None:
            raise InputError(f"resource {self.name!r}: a stateful model keeps its own banks")

    @property
    def fields(self) -> int:
        """Fields of a request it reads."""
        return len(self.bounds)

    @property
    def bounds(self) -> tuple[FieldBound, ...]:
        """What each field of a request may be."""
        if self.model is not None:
            return tuple(self.model.bounds())
        return (FieldBound("bank", 0, self.servers - 1),) if self.banked else ()

    def check_request(self, where: str, request: NDArray[np.integer]) -> None:
        """Refuse requests ``[..., fields]`` of which a field is out of its bounds.

        Raises
        ------
        InputError
            Naming the field, the first value that is wrong and its place.
        """
        for place, field_ in enumerate(self.bounds):
            values = request[..., place]
            wrong = (values < field_.least) | (values > field_.most)
            if wrong.any():
                first = np.unravel_index(int(wrong.argmax()), wrong.shape)
                at = f" (firing {first[0]})" if wrong.ndim else ""
                raise InputError(
                    f"{where}: the field {field_.name!r} of a request to {self.name!r} must be "
                    f"{field_.least} to {field_.most}, got {values[first]}{at}"
                )


@dataclass(frozen=True, eq=False)
class Netlist:
    """The actors, channels and resources of one run; checked when built, then never changed.

    What runs have found of it may be kept in ``known``, by what they record.

    Raises
    ------
    InputError
        On a duplicate or unknown name, lanes that do not fit a pattern, a rate that can never
        fit its channel's capacity, a wrong shape, a resource nobody uses.

    Examples
    --------
    >>> net = Netlist(
    ...     actors=[Actor(name="make", firings=3), Actor(name="take", firings=3, busy=2)],
    ...     channels=[Channel(name="queue", source="make", target="take", capacity=1)],
    ... )
    >>> net.lane_firings
    6
    """

    actors: Sequence[Actor]
    channels: Sequence[Channel] = ()
    resources: Sequence[Resource] = ()
    clock_hz: float = 1e9
    name: str = "netlist"
    known: dict[str, Any] = field(init=False, repr=False, default_factory=dict)
    _index: dict[str, int] = field(init=False, repr=False)
    _channel_index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for kind in ("actors", "channels", "resources"):
            object.__setattr__(self, kind, tuple(getattr(self, kind)))
        if not self.actors:
            raise InputError("a netlist needs at least one actor, got none")
        check_clock(self.clock_hz)
        parts: list[Actor | Channel | Resource]
        parts = [*self.actors, *self.channels, *self.resources]
        doubled = [name for name, times in Counter(p.name for p in parts).items() if times > 1]
        if doubled:
            raise InputError(f"names in a netlist must differ; used twice: {', '.join(doubled)}")
        object.__setattr__(self, "_index", {a.name: i for i, a in enumerate(self.actors)})
        object.__setattr__(self, "_channel_index", {c.name: i for i, c in enumerate(self.channels)})
        object.__setattr__(self, "channels", tuple(self._checked(c) for c in self.channels))
        self._check_resources()

    def _checked(self, channel: Channel) -> Channel:
        """The channel with its rates as arrays ``[firings or 1, lanes or 1]``."""
        where = f"channel {channel.name!r}"
        for end in (channel.source, channel.target):
            if not isinstance(end, str):
                raise InputError(f"{where}: source and target must be names of actors, got {end!r}")
            if end not in self._index:
                hint = near(end, self._index)
                raise InputError(f"{where} ends at {end!r}, but there is no such actor{hint}")
        source, target = self.actor(channel.source), self.actor(channel.target)
        fits = {
            Pattern.LANE: source.lanes == target.lanes,
            Pattern.BROADCAST: source.lanes == 1,
            Pattern.GATHER: target.lanes == 1,
            Pattern.SHIFT: True,
        }
        if not fits[channel.pattern]:
            raise InputError(
                f"{where}: the pattern {channel.pattern.value} does not fit {source.lanes} lanes "
                f"of {source.name!r} and {target.lanes} of {target.name!r}"
            )
        rates = {}
        for key, actor in (("produce", source), ("consume", target)):
            rate = per_firing(
                f"{where}: {key}", getattr(channel, key), (actor.count, actor.lanes), 0
            )
            most = least_and_most(rate)[1]
            if most > channel.capacity and actor.behaviour is None:
                raise InputError(
                    f"{where} holds {channel.capacity} tokens, but a firing of {actor.name!r} "
                    f"would {key} {most} at once and could never start; enlarge the capacity"
                )
            rates[key] = rate
        return Channel(
            name=channel.name,
            source=channel.source,
            target=channel.target,
            capacity=channel.capacity,
            pattern=channel.pattern,
            offset=channel.offset,
            **rates,
        )

    def _check_resources(self) -> None:
        known = {resource.name: resource for resource in self.resources}
        used = set()
        for actor in self.actors:
            if actor.resource is None:
                continue
            if actor.resource not in known:
                raise InputError(
                    f"actor {actor.name!r} holds {actor.resource!r}, but there is no such "
                    f"resource; there is {', '.join(known) or 'none'}"
                )
            resource = known[actor.resource]
            used.add(resource.name)
            fields = 0 if actor.request is None else np.shape(actor.request)[2]
            if resource.fields != fields and actor.behaviour is None:
                raise InputError(
                    f"actor {actor.name!r}: resource {resource.name!r} reads {resource.fields} "
                    f"fields of a request, got {fields}"
                )
            if actor.request is not None:
                resource.check_request(f"actor {actor.name!r}", np.asarray(actor.request))
            if resource.model is not None and actor.latency is not None:
                raise InputError(
                    f"actor {actor.name!r}: {resource.name!r} computes the latency itself; "
                    "leave latency out"
                )
        idle = [name for name in known if name not in used]
        if idle:
            raise InputError(f"no actor holds the resource {', '.join(map(repr, idle))}; remove it")

    def __repr__(self) -> str:
        parts = f"{len(self.actors)} actors, {len(self.channels)} channels"
        return f"<Netlist {self.name!r}: {parts}, {len(self.resources)} resources>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from sparqsim.simulator.pages.notebook import of_netlist

        return of_netlist(self)

    def pandas(self) -> Any:
        """A pandas frame with a row for every actor, channel and resource; needs pandas."""
        from sparqsim.simulator.frames import frame, rows_of_netlist

        return frame(rows_of_netlist(self))

    def named(self, name: str) -> Netlist:
        """The same under another name."""
        same = copy(self)
        object.__setattr__(same, "name", name)
        return same

    def retimed(self, capacities: Mapping[str, int], clock_hz: float) -> Netlist:
        """The same with other capacities of some channels, by name, and another clock.

        Only these are checked again. Raises InputError as a new netlist would.
        """
        check_clock(clock_hz)
        for name in capacities:
            self.channel(name)
        same = copy(self)
        same.__dict__.pop("graph", None)  # it names capacities
        channels = tuple(
            self._checked(replace(channel, capacity=capacities[channel.name]))
            if channel.name in capacities
            else channel
            for channel in self.channels
        )
        for field_name, value in (("channels", channels), ("clock_hz", clock_hz), ("known", {})):
            object.__setattr__(same, field_name, value)
        return same

    def actor(self, name: str) -> Actor:
        """The actor of that name; raises InputError if there is none."""
        return self.actors[self.index(name)]

    def index(self, name: str) -> int:
        """The position of an actor in the order of declaration; raises InputError if unknown."""
        return found(self._index, name, f"actor in {self.name!r}")

    def channel(self, name: str) -> Channel:
        """The channel of that name; raises InputError if there is none."""
        return self.channels[found(self._channel_index, name, f"channel in {self.name!r}")]

    @cached_property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """For each actor the positions of the channels into it, in the order of declaration."""
        return self._ends("target")

    @cached_property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """For each actor the positions of the channels out of it, in the order of declaration."""
        return self._ends("source")

    def _ends(self, side: str) -> tuple[tuple[int, ...], ...]:
        ends: list[list[int]] = [[] for _ in self.actors]
        for i, channel in enumerate(self.channels):
            ends[self._index[getattr(channel, side)]].append(i)
        return tuple(map(tuple, ends))

    @cached_property
    def holders(self) -> dict[str, tuple[int, ...]]:
        """For each resource the positions of the actors that hold it."""
        users: dict[str, list[int]] = {resource.name: [] for resource in self.resources}
        for i, actor in enumerate(self.actors):
            if actor.resource is not None:
                users[actor.resource].append(i)
        return {name: tuple(actors) for name, actors in users.items()}

    @property
    def lane_firings(self) -> int:
        """Firings of all lanes of all actors."""
        return sum(actor.count * actor.lanes for actor in self.actors)

    def cycles_from_ns(self, nanoseconds: float) -> int:
        """Whole cycles of the clock that cover a time given in ns; rounded up, once."""
        return cycles_from_ns(nanoseconds, self.clock_hz)

    @cached_property
    def graph(self) -> networkx.MultiDiGraph:
        """The topology: actors and resources as nodes, channels and holds as edges.

        Node attributes: ``kind`` ("actor" or "resource"), ``lanes`` or ``servers``. Edge
        attributes: ``kind`` ("channel" or "holds"), and a channel's ``pattern`` and ``capacity``.
        """
        import networkx

        graph = networkx.MultiDiGraph(name=self.name)
        for actor in self.actors:
            graph.add_node(actor.name, kind="actor", lanes=actor.lanes, part=actor.part)
        for resource in self.resources:
            graph.add_node(resource.name, kind="resource", servers=resource.servers)
        for channel in self.channels:
            graph.add_edge(
                channel.source,
                channel.target,
                key=channel.name,
                kind="channel",
                pattern=channel.pattern.value,
                capacity=channel.capacity,
            )
        for actor in self.actors:
            if actor.resource:
                graph.add_edge(actor.name, actor.resource, key=f"{actor.name} holds", kind="holds")
        return graph


def cycles_from_ns(nanoseconds: float, clock_hz: float) -> int:
    """Whole cycles that cover a time in ns, in exact arithmetic on the decimal numbers given.

    Raises
    ------
    InputError
        If the time is negative or not finite, or the clock is not a positive number.

    Examples
    --------
    >>> cycles_from_ns(2.5, 800e6), cycles_from_ns(2.6, 800e6)
    (2, 3)
    """
    check_clock(clock_hz)
    if not is_number(nanoseconds) or nanoseconds < 0:
        raise InputError(f"a time must be a number of ns of at least 0, got {nanoseconds!r}")
    exact = Fraction(str(nanoseconds)) * Fraction(str(clock_hz)) / 10**9
    return -int(-exact // 1)
