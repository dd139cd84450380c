"""Channels and resources of the SimPy engine, built on SimPy's bases.

What a :class:`Link` holds carries the cycle in which it becomes true (a token visible, a slot
free); a :class:`Server` decides once everything else in the cycle has happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import simpy
from simpy.resources.base import BaseResource, Get, Put

from sparqsim.base import InputError
from sparqsim.simulator.netlist import Resource

AFTER_ALL_ELSE = 2  # SimPy's own priorities are 0 (urgent) and 1 (normal)


class Shown(Get):
    """Happens in the cycle in which ``tokens`` tokens of a link, not all yet made, are visible.

    It joins the link's queue without asking first whether it can happen, which it cannot.
    """

    def __init__(self, link: Link, tokens: int) -> None:
        simpy.Event.__init__(self, link._env)
        self.tokens = tokens
        link.get_queue.append(self)


class Freed(Put):
    """Happens in the cycle in which ``tokens`` slots of a link, not all yet freed, are free."""

    def __init__(self, link: Link, tokens: int) -> None:
        simpy.Event.__init__(self, link._env)
        self.tokens = tokens
        link.put_queue.append(self)


class Link(BaseResource):
    """One queue from a lane to a lane.

    Invariant: tokens held + free slots + slots never used = capacity.
    """

    def __init__(self, env: simpy.Environment, capacity: int) -> None:
        super().__init__(env, capacity)
        self.unused = capacity
        self.free: deque[int] = deque()  # the cycle from which each slot is free again
        # The cycle from which each token is visible, and its value.
        self.tokens: deque[tuple[int, Any]] = deque()
        self.newest = 0

    def visible_at(self, count: int) -> int | None:
        """The cycle from which ``count`` tokens are visible; None if they are not yet made."""
        return self.tokens[count - 1][0] if len(self.tokens) >= count else None

    def free_at(self, count: int) -> int | None:
        """The cycle from which there are free slots for ``count`` tokens; None if not yet freed."""
        missing = count - self.unused
        if missing <= 0:
            return 0
        return self.free[missing - 1] if len(self.free) >= missing else None

    def put_tokens(self, visible: int, values: Sequence[Any]) -> None:
        """Add tokens that become visible in a cycle, after all earlier ones."""
        if not values:
            return
        if visible < self.newest:
            visible = self.newest
        self.newest = visible
        for value in values:
            self.tokens.append((visible, value))
            if self.unused:
                self.unused -= 1
            else:
                self.free.popleft()
        if self.get_queue:
            self._trigger_get(None)

    def take_tokens(self, now: int, count: int) -> list[Any]:
        """Pop tokens; their slots are free from the next cycle."""
        taken = []
        for _ in range(count):
            taken.append(self.tokens.popleft()[1])
            self.free.append(now + 1)
        if self.put_queue:
            self._trigger_put(None)
        return taken

    def _do_get(self, event: Shown) -> bool:
        return self._happen(event, self.visible_at(event.tokens))

    def _do_put(self, event: Freed) -> bool:
        return self._happen(event, self.free_at(event.tokens))

    def _happen(self, event: simpy.Event, cycle: int | None) -> bool:
        if cycle is not None:
            event._ok, event._value = True, None
            self._env.schedule(event, delay=max(0, cycle - self._env.now))
        return cycle is not None


class Ask(Get):
    """A request for a server; its value is (busy, hold, latency), latency None if not computed."""

    def __init__(self, server: Server, order: int, busy: int, request: Any, rank: int) -> None:
        self.order, self.busy, self.request, self.since = order, busy, request, server._env.now
        self.rank = rank
        super().__init__(server)


class Server(BaseResource):
    """A resource: grants in each cycle, once all else in it has happened."""

    def __init__(self, env: simpy.Environment, resource: Resource) -> None:
        super().__init__(env, resource.servers)
        self.resource = resource
        self.free_at = [0] * resource.servers
        self.asked = -1  # the cycle in which requests will be decided, once for all of them
        self.serve: Callable[..., tuple[int, int, int]] | None = None
        if resource.model is not None:
            model = resource.model
            self.params, self.state = model.parameters(), model.initial_state().copy()
            self.serve, self.rank = _functions(model)

    def _trigger_get(self, _: Any) -> None:
        if self.asked != self._env.now:
            self.asked = self._env.now
            self._decide_after(0)

    def _decide_after(self, delay: int) -> None:
        decision = simpy.Event(self._env)
        decision._ok, decision._value = True, None
        decision.callbacks = [self._decide]
        self._env.schedule(decision, AFTER_ALL_ELSE, delay)

    def _server_for(self, ask: Ask) -> int | None:
        if self.resource.banked:
            bank = int(ask.request[0])
            return bank if self.free_at[bank] <= self._env.now else None
        return next((i for i, t in enumerate(self.free_at) if t <= self._env.now), None)

    def _order(self, ask: Ask) -> tuple[int, int, int, int]:
        rank = 0
        if self.serve is not None:
            rank = self.rank(self.params, self.state, ask.request, self._env.now)
        return ask.rank, rank, ask.since, ask.order

    def _decide(self, _: simpy.Event) -> None:
        now = self._env.now
        self.asked = -1
        while min(self.free_at) <= now and (
            ready := [ask for ask in self.get_queue if self._server_for(ask) is not None]
        ):
            ask = min(ready, key=self._order)
            self.get_queue.remove(ask)
            server = self._server_for(ask)
            assert server is not None
            hold, busy, latency = ask.busy, ask.busy, None
            if self.serve is not None:
                hold, busy, latency = self.serve(self.params, self.state, ask.request, now)
                if min(hold, busy, latency) < 1:
                    raise InputError(
                        f"resource {self.resource.name!r}: serve must return a hold, a busy time "
                        f"and a latency of at least 1 cycle, got {(hold, busy, latency)}"
                    )
            self.free_at[server] = now + hold
            self._decide_after(hold)
            ask.succeed((max(busy, ask.busy), hold, latency))


def _functions(model: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The model's own ``serve`` and ``rank``, or those of its kind."""
    if hasattr(model, "serve"):
        return model.serve, model.rank
    from sparqsim.simulator.engines import stateful

    if model.kind not in stateful.KINDS:
        raise InputError(
            f"there is no stateful resource of kind {model.kind!r}; there is "
            f"{', '.join(stateful.KINDS)}, or give the model methods serve and rank of its own"
        )
    kind = stateful.KINDS[model.kind]
    return (lambda *args: stateful.serve(kind, *args), lambda *args: stateful.rank(kind, *args))
