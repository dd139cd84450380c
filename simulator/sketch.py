"""What the run of a layer looked like, small enough for a page of hundreds of layers.

A :class:`Sketch` stands in the report of a layer whose firings were recorded on the way to a page:
the block diagram's parts, the load of the lanes and the fill of the queues over time, a byte a
point. What needs more than a glance has the layer's own page.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.simulator.load import load_over_time
from sparqsim.simulator.queues import held, is_countable
from sparqsim.simulator.timeline import Timeline
from sparqsim.simulator.topology import Topology, topology_of

INTERVALS, ROWS = 60, 32  # of a sketch, at most
QUEUES = 6  # channels, at most: the fullest


class QueueSketch(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that the queues of a channel held.

    Attributes
    ----------
    channel
        Its name.
    queues, capacity
        How many it has, and the tokens each can hold.
    mean_tokens
        Of a queue, over the run.
    most_tokens
        The highest mean of its queues in an interval.
    over_time
        One byte per interval: the mean of its queues, 255 being ``most_tokens``. In JSON base64.
    """

    channel: str
    queues: int
    capacity: int
    mean_tokens: float
    most_tokens: float
    over_time: bytes


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """What a run looked like.

    Attributes
    ----------
    topology
        The parts of its netlist.
    actor, lanes
        Whose load ``load`` is, and how many lanes it has.
    rows
        Groups of neighbouring lanes in ``load``; 0 where single firings were not kept.
    load
        ``[rows, intervals]`` from cycle 0 to the end, a byte each: 255 is busy all of it. In JSON
        base64.
    queues
        The fullest, those that ever held a token.
    """

    topology: Topology
    actor: str
    lanes: int
    rows: int = 0
    load: bytes = b""
    queues: list[QueueSketch] = []

    def shares(self) -> NDArray[np.float64]:
        """The load as shares ``[rows, intervals]``, 0 to 1."""
        return np.frombuffer(self.load, np.uint8).reshape(self.rows, -1) / 255


def sketch_of(timeline: Timeline, actor: str) -> Sketch:
    """The sketch of a run; ``actor`` does the work. Of a run of sums it has the topology alone."""
    topology, lanes = topology_of(timeline.netlist), timeline.netlist.actor(actor).lanes
    if timeline.starts is None or not timeline.cycles:
        return Sketch(topology=topology, actor=actor, lanes=lanes)
    shares = load_over_time(timeline, actor, INTERVALS, ROWS).shares
    return Sketch(
        topology=topology,
        actor=actor,
        lanes=lanes,
        rows=len(shares),
        load=_bytes(shares),
        queues=_queues(timeline),
    )


def _queues(timeline: Timeline) -> list[QueueSketch]:
    """Of the channels that were the fullest, in the order of declaration."""
    found: dict[str, tuple[float, QueueSketch]] = {}
    for channel in timeline.netlist.channels:
        if not is_countable(timeline.netlist, channel):
            continue
        full = held(timeline, channel.name, INTERVALS)
        if not full.tokens.any():
            continue
        over_time = full.tokens.mean(axis=1)
        mean = float(np.average(over_time, weights=np.diff(full.edges)))
        most = float(over_time.max())
        found[channel.name] = (
            mean / channel.capacity,
            QueueSketch(
                channel=channel.name,
                queues=full.tokens.shape[1],
                capacity=int(channel.capacity),
                mean_tokens=mean,
                most_tokens=most,
                over_time=_bytes(over_time / most),
            ),
        )
    kept = sorted(found, key=lambda name: -found[name][0])[:QUEUES]
    return [sketch for name, (_, sketch) in found.items() if name in kept]


def _bytes(shares: NDArray[np.float64]) -> bytes:
    return np.clip(np.rint(255 * shares), 0, 255).astype(np.uint8).tobytes()
