"""A point: work, a recipe, a machine with its parameters and a seed; its key; and how it is run.

The key is a hash of everything the result depends on: the canonical configuration (defaults filled
in), a digest of the work (shapes and, where they count, the tensors), the seed, and the version of
the model, which is a digest of Sparqsim's own source. What would change nothing is not in it: the
seed of a run that needs no numbers, a recipe's description.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from sparqsim.architectures.machine import Machine
from sparqsim.architectures.network import run_layer, run_network
from sparqsim.architectures.registry import get_machine
from sparqsim.architectures.tasks import is_outlined
from sparqsim.base import InputError
from sparqsim.scripts.sweep import measures
from sparqsim.simulator.report import NetworkReport, Report
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.recipes import Recipe
from sparqsim.workloads.shared import Kept, sharing
from sparqsim.workloads.work import Network, load

# Whose source is the model; and that of the measures, which are stored with a report.
PARTS = ("simulator", "architectures", "workloads")
SOURCES = (".py", ".toml", ".csv", ".json", ".tsv", ".txt")
KEY_DIGITS = 32  # of a key, hexadecimal: 128 bits
NETWORKS = 8  # loaded at once by a process
SHARED_BYTES = 1 << 29  # of tensors and counted work that a process keeps for the next points


class Work(Struct, frozen=True, kw_only=True):
    """Work by its name, with what :func:`sparqsim.load` may be told of it."""

    name: str
    batch: int | None = None
    sequence: int | None = None
    context: int | None = None
    dense: bool = False
    calibration: str | None = None
    inputs: str | None = None
    numbers: bool = True

    def load(self) -> Network:
        """The network; raises InputError if there is none, or an option changes nothing."""
        given = msgspec.structs.asdict(self)
        return load(given.pop("name"), **given)


class Synthetic(Struct, frozen=True, kw_only=True):
    """What synthetic tensors are drawn by; None: as published, and independent."""

    weight_density: float | None = None
    activation_density: float | None = None
    correlation: float | None = None


class Point(Struct, frozen=True, kw_only=True):
    """All that is needed to run one point.

    Attributes
    ----------
    key
        Of its result.
    machine, fields
        Name, and every field of its configuration.
    seed, synthetic
        Of synthetic tensors; no seed where none are drawn.
    values
        What the sweep's file gives, by dotted names.
    """

    key: str
    work: Work
    recipe: Recipe | None
    machine: str
    fields: dict[str, Any]
    seed: int | None
    synthetic: Synthetic
    verify: bool
    requantize: bool
    values: dict[str, Any]

    def configuration(self) -> Machine:
        """The machine; raises InputError if it refuses a field."""
        return configured(get_machine(self.machine), self.fields)

    def run(self, network: Network) -> Report | NetworkReport:
        """Simulate it on a loaded network.

        Raises
        ------
        InputError
            If the machine does not run the layer, or the recipe does not fit.
        """
        machine = self.configuration()
        options: dict[str, Any] = {
            "recipe": self.recipe,
            "requantize": self.requantize,
            "verify": self.verify,
            "seed": self.seed or 0,
            **msgspec.structs.asdict(self.synthetic),
        }
        if network.layer is None and (len(network.layers) > 1 or network.other):
            report = run_network(machine, network, **options)
            if not report.runs:
                raise InputError(f"no layer runs on {report.machine}: {report.refused[0].why}")
            return report
        return run_layer(machine, network, record="summary", **options).report


def configured(kind: type[Machine], fields: Mapping[str, Any]) -> Machine:
    """A machine with fields; raises InputError if it refuses one."""
    try:
        return msgspec.convert(fields, kind, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise InputError(f"{kind.name}: {error}") from None


def key_of(point: Point, work_digest: str) -> str:
    """The key of a point, whatever stands in its ``key``."""
    recipe = None
    if point.recipe is not None:
        recipe = msgspec.structs.replace(point.recipe, description="")
    content = (
        model_version(point.machine),
        work_digest,
        msgspec.structs.replace(point, key="", recipe=recipe, values={}),
    )
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[
        :KEY_DIGITS
    ]


# ------------------------------------------------------------------ digests


@cache
def model_version(machine: str) -> str:
    """Of Sparqsim's model: its version and a digest of the source that computes.

    The file of a machine from outside counts too.
    """
    told = f"{version('sparqsim')}+{_source_digest()}"
    module = inspect.getmodule(get_machine(machine))
    if module is not None and not module.__name__.startswith("sparqsim."):
        source = Path(str(module.__file__)).read_bytes()
        told += f"+{hashlib.sha256(source).hexdigest()[:8]}"
    return told


@cache
def _source_digest() -> str:
    import sparqsim.simulator

    top = Path(str(sparqsim.simulator.__file__)).resolve().parents[1]
    found = hashlib.sha256()
    paths = [path for part in PARTS for path in sorted((top / part).rglob("*"))]
    for path in [*paths, Path(str(measures.__file__)).resolve()]:
        if path.suffix in SOURCES:
            content = path.read_bytes()
            found.update(f"{path.name}\0{path.parent.name}\0{len(content)}\0".encode())
            found.update(content)
    return found.hexdigest()[:12]


def digest_of(work: Work, network: Network) -> str:
    """Of shapes and, where they count, of all tensors that come with the network."""
    found = hashlib.sha256()
    shapes = (work.name, network.source, network.layer, network.layers, network.other)
    found.update(msgspec.json.encode(shapes, order="deterministic"))
    found.update(msgspec.json.encode(sorted(network.relus.items())))
    for path in (work.calibration, work.inputs):
        if path is not None:
            found.update(Path(path).read_bytes())
    if work.numbers:
        for tensors in (network.weights, network.biases, network.inputs and network.inputs()):
            for name in sorted(tensors or ()):
                assert tensors is not None
                _hash(found, name, tensors[name])
    return found.hexdigest()[:KEY_DIGITS]


def _hash(found: Any, name: str, values: Any) -> None:
    arrays = [values]
    if isinstance(values, CSC):
        arrays = [values.values, values.indices, values.indptr]
    for array in arrays:
        whole = np.ascontiguousarray(array)
        found.update(f"{name}\0{whole.dtype.str}{whole.shape}\0".encode())
        found.update(whole.data)


# ------------------------------------------------------------------ what a process keeps


class Networks:
    """The networks a process has loaded, the last few of them."""

    def __init__(self) -> None:
        self.loaded: OrderedDict[Work, Network] = OrderedDict()

    def get(self, work: Work) -> Network:
        """A network, loaded if need be; raises InputError if it cannot be."""
        if work in self.loaded:
            self.loaded.move_to_end(work)
            return self.loaded[work]
        self.loaded[work] = work.load()
        if len(self.loaded) > NETWORKS:
            self.loaded.popitem(last=False)
        return self.loaded[work]


class Bench:
    """Where points are run one after the other: what they share is kept between them."""

    def __init__(self, networks: Networks | None = None) -> None:
        self.networks = networks or Networks()
        self.kept = Kept(SHARED_BYTES)

    def run(self, point: Point) -> Report | NetworkReport:
        """The report of a point; raises InputError as :meth:`Point.run`."""
        with sharing(self.kept):
            return point.run(self.networks.get(point.work))


def numbers_needed(machine: Machine, verify: bool) -> bool:
    """Whether the result depends on the values of tensors."""
    return not is_outlined(machine, verify)
