"""Is the page on other simulators what its numbers say?"""

from __future__ import annotations

import sys

import msgspec
from paths import DOCS, ROOT

sys.path.insert(0, str(ROOT))
from benchmarks import peers


def found() -> peers.Peers:
    """The run that the page shows."""
    return msgspec.json.decode((DOCS / "data" / "peers.json").read_bytes(), type=peers.Peers)


def test_the_page_is_what_its_data_say() -> None:
    """No number on the page was typed in."""
    page = (DOCS / "background" / "peers.md").read_text(encoding="utf-8")
    assert page == peers.page(found())


def test_our_answers_are_still_those() -> None:
    """The closed form and the netlist of the smallest product give the cycles of the page, and the
    array's are SCALE-Sim's, which counts from 0."""
    job = min(found().jobs, key=lambda job: job.m * job.k * job.n)
    ours = job.answers["sparqsim"]
    assert peers.one(f"{job.m}x{job.k}x{job.n}") == {"array": ours.array, "memory": ours.memory}
    for each in found().jobs:
        assert each.answers["scale-sim"].array == each.answers["sparqsim"].array - 1


def test_the_jobs_are_those_of_the_network() -> None:
    """ResNet-50's products, each as often as it occurs: its multiply-accumulates."""
    layers = [job for job in peers.products() if job.repeat]
    macs = sum(job.m * job.k * job.n * job.repeat for job in layers)
    assert round(macs / 1e9, 3) == 4.089 and sum(job.repeat for job in layers) == 54
