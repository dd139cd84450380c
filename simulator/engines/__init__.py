"""Two engines with one meaning: ``simpy``, the definition, and ``compiled``, the fast one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparqsim.base import InputError
from sparqsim.simulator import deadlock
from sparqsim.simulator.engines.limits import check_limits
from sparqsim.simulator.netlist import Netlist
from sparqsim.simulator.timeline import Timeline

ENGINES = ("compiled", "simpy")


def simulate(
    netlist: Netlist,
    engine: str = "compiled",
    record: str = "full",
    verify: str | None = None,
    observers: Sequence[Any] = (),
) -> Timeline:
    """Run a netlist until nothing can fire.

    Parameters
    ----------
    netlist
        What to run.
    engine
        ``"compiled"`` or ``"simpy"``; the same timeline comes from either.
    record
        ``"full"`` keeps the start and cause of every firing; ``"summary"`` only the sums of each
        lane, so that memory does not grow with the number of firings.
    verify
        ``"execute"`` runs each firing's arithmetic when it fires (SimPy engine only), tokens
        carrying the values, so that a lost, doubled or reordered token shows in the output.
    observers
        Objects called at every firing; see :class:`sparqsim.simulator.engines.actors.Observer`
        (SimPy engine only).

    Raises
    ------
    Deadlock
        If firings are left over when nothing can fire.
    InputError
        On an unknown option, one the engine cannot do, or a run beyond the memory there may be.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if record not in ("full", "summary"):
        raise InputError(f"record must be 'full' or 'summary', got {record!r}")
    if verify not in (None, "execute"):
        raise InputError(f"verify must be None or 'execute', got {verify!r}")
    check_limits(netlist, engine, record)
    if engine == "compiled":
        if verify or observers:
            raise InputError("verify='execute' and observers need engine='simpy'")
        if record in netlist.known:
            found: Timeline = netlist.known[record]
            return found
        from sparqsim.simulator.engines.compiled import run_compiled

        timeline = run_compiled(netlist, record)
    else:
        from sparqsim.simulator.engines.actors import Simulation

        timeline = Simulation(netlist, bool(verify), observers).run()
    stuck = deadlock.find(timeline)
    if stuck is not None:
        raise stuck
    return timeline.summary() if record == "summary" else timeline
