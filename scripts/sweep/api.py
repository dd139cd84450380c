"""A sweep from Python: :func:`sweep` with a file or a plain dict; :func:`open_store` reads one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparqsim.base import InputError
from sparqsim.scripts.sweep.file import Sweep, load
from sparqsim.scripts.sweep.frame import Points
from sparqsim.scripts.sweep.plan import Plan
from sparqsim.scripts.sweep.points import Networks
from sparqsim.scripts.sweep.runner import Local, Runner, carry_out, here, pending
from sparqsim.scripts.sweep.store import Store
from sparqsim.scripts.sweep.watch import Watch, goal_of

if TYPE_CHECKING:
    from sparqsim.scripts.sweep.cluster import Cluster


def sweep(
    given: str | Path | Mapping[str, Any],
    store: str | os.PathLike[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    quiet: bool = True,
) -> Points:
    """Run the points of a sweep that are not stored yet.

    Parameters
    ----------
    given
        A TOML file, a sweep that ships with Sparqsim by its name, or the same as a dict:
        docs/howto/sweep.md.
    store
        Folder of the results; made where there is none. Several sweeps may share it.
    workers
        Processes here; 0: this very process. numba's threads in a process that forks workers are
        those of its work queue.
    scheduler
        Address of a running Dask scheduler, whose workers then run the points.
    limit
        Points at most that are run now.
    retry_failed
        Run points again that failed.
    quiet
        Show no progress.

    Returns
    -------
    Points
        All points of the sweep that are stored now.

    Raises
    ------
    InputError
        At any mistake in the file, before any work; or if the store cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> block = {"work": "gemm:16x64x32", "machine": {"name": "bitfusion", "rows": [8, 16]},
    ...          "verify": False}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = sweep({"block": [block]}, folder, workers=0)
    ...     sorted(row["machine.rows"] for row in found.rows())
    [8, 16]
    """
    loaded = load(given)
    with Workers(workers, scheduler) as hands, Store(store, create=True) as opened:
        found = run(loaded, opened, hands, limit=limit, retry_failed=retry_failed, quiet=quiet)
    return open_store(store, keys=found[1])


def open_store(store: str | os.PathLike[str], keys: frozenset[str] | None = None) -> Points:
    """The points of a store, or those of some keys; of the version of the model written last."""
    return Points(Path(store), keys)


class Workers:
    """Processes here, ended at the end of the block, or a Dask cluster's, which is left there."""

    def __init__(
        self, workers: int, scheduler: str | None = None, local_cluster: int | None = None
    ) -> None:
        self.workers, self.scheduler, self.local_cluster = workers, scheduler, local_cluster
        self.hands: Cluster | Local | None = None
        if workers < 0:
            raise InputError(f"workers must be at least 0, got {workers}")

    def __enter__(self) -> Workers:
        if self.scheduler is not None or self.local_cluster is not None:
            from sparqsim.scripts.sweep.cluster import Cluster

            self.hands = Cluster(self.scheduler, self.local_cluster)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Dask's farewell takes seconds; its workers end by themselves when nobody is there.
        if self.hands is not None and not (self.local_cluster and kind is KeyboardInterrupt):
            self.hands.close()

    def runner(self, networks: Networks | None) -> Runner:
        """Who runs points; ``networks`` are those loaded here already."""
        if self.hands is None and self.workers:
            self.hands = Local(self.workers, networks)
        return self.hands or here


def run(
    loaded: Sweep,
    store: Store,
    workers: Workers,
    *,
    limit: int | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> tuple[Watch, frozenset[str]]:
    """Run what is left of a sweep or search; returns what was seen, and the keys of its points."""
    if loaded.file.search is not None:
        from sparqsim.scripts.sweep.search import Study

        study = Study(loaded, store, workers.runner(None), retry_failed=retry_failed)
        return study.run(limit=limit, quiet=quiet)
    plan = Plan(loaded)
    left = pending(plan, store, retry_failed)[:limit]
    watch = Watch(len(left), goal_of(loaded.file), quiet=quiet)
    if len(left):
        with watch:
            local = workers.runner(plan.keyed.networks)
            carry_out(plan, plan.arranged(left), store, local, watch)
    return watch, frozenset(key.decode() for key in plan.keys.tolist())
