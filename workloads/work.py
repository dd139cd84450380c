"""Work is one argument: a network by name, a file, or a product given by its sizes.

======================================  ============================================================
``resnet50``                            a network Sparqsim knows (``sparqsim models`` lists them)
``resnet50/layer1.0.conv2``             one of its layers
``net.onnx``, ``net.onnx/conv1``        an ONNX file, or one layer of it
``topology.csv``                        a SCALE-Sim topology, convolutions or matrix products
``layers.csv``                          one's own: ``name``, ``kind``, one field per column
``problem.yaml``                        a Timeloop problem
``folder``                              Hugging Face's: ``config.json``, safetensors
``model.gguf``                          a decoder as llama.cpp has it
``gemm:MxKxN``                          M input rows by a K x N matrix of weights
``matmul:MxKxN,batch=B``                B products of two activation matrices, as in attention
``conv:CxHxW,KxRxS,stride=2,pad=1``     K filters of R x S on C channels of H x W
======================================  ============================================================

The same words serve every command. Where a network brings trained weights, real inputs and a way
to judge it (digits, MiniLM, a user's ONNX file with data), :class:`Network` has them; elsewhere
tensors are synthetic, from the shapes (:mod:`sparqsim.workloads.tensors`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads.brought import Brought, BroughtCodes
from sparqsim.workloads.importers import Imported, ImportReport
from sparqsim.workloads.importers.scalesim import import_scalesim
from sparqsim.workloads.importers.sizes import LARGEST, from_sizes
from sparqsim.workloads.importers.table import import_table, is_table
from sparqsim.workloads.importers.timeloop import import_timeloop
from sparqsim.workloads.layers import Layer, Model, OtherWork, for_batch, unknown
from sparqsim.workloads.models import TABLE, get_model, model_options
from sparqsim.workloads.models.real import PRUNED, SUBJECTS, Subject, subject

if TYPE_CHECKING:
    from sparqsim.workloads.importers.onnx_inputs import Samples

Array = NDArray[np.float32]
CONFIG = "config.json"  # of a folder as Hugging Face has it


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """What is to be run: shapes, and the numbers that come with them.

    Attributes
    ----------
    name : str
        As the user wrote it, without the layer.
    model : Model
        Shapes of all layers, in order; ``repeat`` says how often each stands.
    layer : str or None
        The one layer that was asked for; None for all.
    weights : mapping of str to float32 array, or None
        Trained weights by layer name, of the layer's ``weight_shape``, normalisation folded in.
        None: nothing but shapes is known.
    biases : mapping of str to float32 array [out]
        By layer name, where a layer has one and its values are known.
    relus : mapping of str to bool
        Whether negative outputs are cut to 0 right behind a layer (ReLU, ReLU6), where known.
    brought : mapping of str to Brought
        By layer name, the codes that its file has for the numbers: they run as they are.
    inputs : callable or None
        ``inputs()`` gives real operands that fit ``model.layers``: under a layer's name
        ``[rows, in_features]`` or ``[batch, channels, height, width]``; for a product of two
        activations ``NAME.left`` ``[batch, m, k]`` and ``NAME.right`` ``[batch, n, k]``, outputs
        first as weights have them. None: none are at hand.
    subject : Subject or None
        What a recipe is tried on: calibrates and judges. Its operands have the same names. None:
        the network cannot be judged.
    bare : Subject or None
        The same where there are weights but no inputs: nothing but its weights can be compressed.
    missing : str
        What to install or to lay beside the file for trained weights, where it lacks; else empty.
    source : str
        Who published the shapes and weights, or which file they are from.
    report : ImportReport or None
        Of a file: what became of its parts.
    """

    name: str
    model: Model
    source: str
    layer: str | None = None
    weights: Mapping[str, Array] | None = None
    biases: Mapping[str, Array] = field(default_factory=dict)
    relus: Mapping[str, bool] = field(default_factory=dict)
    brought: Mapping[str, Brought] = field(default_factory=dict)
    inputs: Callable[[], Mapping[str, Array]] | None = None
    subject: Subject | None = None
    bare: Subject | None = None
    missing: str = ""
    report: ImportReport | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers to run: all, or the one that was asked for."""
        return self.model.layers if self.layer is None else (self.model.layer(self.layer),)

    @property
    def other(self) -> tuple[OtherWork, ...]:
        """Pooling, element-wise work, softmax, normalisation: none for a single layer."""
        return self.model.other if self.layer is None else ()


def load(
    work: str,
    *,
    batch: int | None = None,
    sequence: int | None = None,
    context: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    calibration: str | Path | None = None,
    inputs: str | Path | None = None,
    dense: bool = False,
    numbers: bool = True,
) -> Network:
    """Return the network that ``work`` names; see the table above.

    Parameters
    ----------
    work : str
    batch : int, optional
        Images, sentences or vectors at once; the network's own default (mostly 1) otherwise.
    sequence : int, optional
        Tokens of a sequence, for transformers.
    context : int, optional
        Decode one token that attends to so many keys (itself included), for decoders.
    shapes : mapping, optional
        Sizes that an ONNX file leaves open: ``{"x": (1, 3, 224, 224)}``, ``{"x:0": 1}`` for one
        axis of input ``x``, or ``{"N": 1}`` by the size's own name.
    calibration, inputs : path, optional
        ``.npz`` files for an ONNX file: arrays named as its inputs (or a single array, for a single
        input) with samples along the first axis. Ranges are found on the one, the network is judged
        on the other; without ``inputs`` the first half of ``calibration`` calibrates and the second
        half judges. ``labels`` in the latter gives accuracy.
    dense : bool
        Take a network's weights from before it was pruned, where it comes both ways (digits).
    numbers : bool
        Whether weights and inputs are wanted; shapes alone are found faster.

    Raises
    ------
    InputError
        If there is no such work (the message lists the nearest), a file cannot be read, or an
        option changes nothing for this work.
    """
    options = Options(batch, sequence, context, shapes, calibration, inputs, dense, numbers)
    if re.match(r"(gemm|matmul|conv):", work):
        options.only(work, "batch")
        model = from_sizes(work, batch)
        return Network(name=work, model=model, source=model.source)
    name, layer = _split(work)
    network = _known(name, options) if name in TABLE else _from_file(name, options)
    return network if layer is None else replace(network, layer=_named(network.model, layer))


@dataclass(frozen=True)
class Options:
    """What may be asked of work beside its name; see :func:`load`."""

    batch: int | None
    sequence: int | None
    context: int | None
    shapes: Mapping[str, int | tuple[int, ...]] | None
    calibration: str | Path | None
    inputs: str | Path | None
    dense: bool
    numbers: bool

    def __post_init__(self) -> None:
        for name in ("batch", "sequence", "context"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= LARGEST):
                raise InputError(f"{name} must be whole, 1 to {LARGEST:,}, got {value!r}")

    def only(self, work: str, *names: str) -> None:
        """Refuse every option but these: it would change nothing.

        Raises
        ------
        InputError
            If another one is given.
        """
        for each in ("batch", "sequence", "context", "shapes", "calibration", "inputs", "dense"):
            if each not in names and getattr(self, each) not in (None, False, {}):
                takes = ", ".join(names) or "none"
                raise InputError(
                    f"{each} changes nothing for {work}; of these options it takes {takes}"
                )


def _split(work: str) -> tuple[str, str | None]:
    """Return the network or file, the longest that exists, and the layer behind it."""
    ends = [match.start() for match in re.finditer("/", work)]
    for end in (len(work), *reversed(ends)):
        name, layer = work[:end], work[end + 1 :]
        if name in TABLE or (name and not name.endswith("/") and _is_work(name)):
            return name, layer or None
    for end in (*ends, len(work)):
        if Path(work[:end]).suffix.lower() in READERS:
            raise InputError(f"cannot read {work[:end]}: there is no such file")
    if work and (work[0] in "/.~" or os.path.exists(work)):
        kinds = ", ".join(READERS)
        raise InputError(
            f"cannot take {work!r}: it must be a network by name, a file ending in {kinds}, or a "
            "folder with config.json"
        )
    family, _, rest = work.partition("/")
    if any(name.startswith(f"{family}/") for name in TABLE):
        family = f"{family}/{rest.partition('/')[0]}"
    raise unknown("there is no model", family, TABLE)


def _named(model: Model, layer: str) -> str:
    """Return the layer's name; one that begins with a slash may be given without."""
    names = {each.name for each in model.layers}
    return f"/{layer}" if layer not in names and f"/{layer}" in names else model.layer(layer).name


def _known(name: str, options: Options) -> Network:
    """Return a network of the table, with its numbers where it is a trained one."""
    known = model_options(name)
    length = next((key for key in ("sequence_length", "tokens") if key in known), None)
    takes = ["batch"] * ("batch" in known) + ["sequence"] * (length is not None)
    takes += ["context"] * ("decode" in known) + ["dense"] * (name in PRUNED)
    options.only(name, *takes)
    if options.sequence is not None and options.context is not None:
        raise InputError(
            f"{name}: decoding computes one token; give the context it attends to, or a sequence"
        )
    chosen: dict[str, Any] = {} if options.batch is None else {"batch": options.batch}
    if options.context is not None:
        chosen |= {"decode": True, "sequence_length": options.context}
    elif options.sequence is not None:
        chosen[str(length)] = options.sequence
    model = get_model(name, **chosen)
    network = Network(name=name, model=model, source=model.source)
    if name not in SUBJECTS or not options.numbers:
        return network
    tokens = chosen.get(str(length), known.get(str(length), 1))
    try:
        trained = subject(name, pruned=not options.dense)
    except InputError as error:  # a wheel is not installed
        return replace(network, missing=str(error))
    return _with_numbers(network, trained, options.batch or 1, tokens)


def _with_numbers(network: Network, trained: Subject, batch: int, tokens: int) -> Network:
    layers = {layer.name for layer in network.model.layers}
    run = trained.inputs
    return replace(
        network,
        source=trained.source,
        weights=_Some(trained.weights, layers),
        biases=trained.biases,
        relus=trained.relus,
        inputs=None if run is None else partial(run, batch, tokens),
        subject=trained,
    )


class _Some(Mapping[str, Array]):
    """The items of a mapping under some of its names, taken when they are asked for."""

    def __init__(self, whole: Mapping[str, Array], names: set[str]) -> None:
        self.whole, self.names = whole, [name for name in whole if name in names]

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        return self.whole[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Both(Mapping[str, Array]):
    """The items of two mappings, taken when they are asked for."""

    def __init__(self, first: Mapping[str, Array], second: Mapping[str, Array]) -> None:
        self.first, self.second = first, second

    def __getitem__(self, name: str) -> Array:
        return self.first[name] if name in self.first else self.second[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self.first), **dict.fromkeys(self.second)})

    def __len__(self) -> int:
        return len({*self.first, *self.second})


def _is_work(name: str) -> bool:
    """Whether there is such a file, or a folder with a configuration."""
    return os.path.isfile(name) or os.path.isfile(os.path.join(name, CONFIG))


def _from_file(name: str, options: Options) -> Network:
    if os.path.isdir(name):
        return _folder(name, options)
    suffix = Path(name).suffix.lower()
    if suffix not in READERS:
        raise InputError(f"{name} must be a file of {', '.join(READERS)}")
    return READERS[suffix](name, options)


def _onnx(name: str, options: Options) -> Network:
    """A user's own network: with its weights, and judged where inputs are given."""
    from sparqsim.workloads.importers.onnx import import_onnx
    from sparqsim.workloads.importers.onnx_inputs import LABELS, read_arrays, samples_of
    from sparqsim.workloads.importers.onnx_run import Closed, subject_of

    options.only(name, "batch", "shapes", "calibration", "inputs")
    if options.inputs is not None and options.calibration is None:
        raise InputError(
            "inputs to judge on need others to calibrate on; give them as --calibration FILE.npz "
            "(given alone, its first half calibrates and its second half judges)"
        )
    files = {"calibration": options.calibration, "inputs": options.inputs}
    arrays = {key: read_arrays(path) for key, path in files.items() if path is not None}
    fed = arrays.get("calibration", {})
    like = {key: array.shape for key, array in fed.items() if key != LABELS}
    imported = import_onnx(name, options.shapes, batch=options.batch, like=like)
    network = Network(
        name=name, model=imported.model, source=imported.model.source, report=imported.report
    )
    if imported.missing:
        text = f"the values of {name} lie in {imported.missing[0]!r}, which is not beside it"
        network = replace(network, missing=f"{text}; copy it there")
    if imported.missing or not options.numbers:
        return network
    samples = {
        key: samples_of(each, imported.graph, str(files[key])) for key, each in arrays.items()
    }
    calibration, judged = samples.get("calibration"), samples.get("inputs")
    source = imported.model.source
    if calibration is not None and judged is None:
        calibration, judged = _halves(calibration, str(options.calibration))
        source += f"; calibrated on the first half of {options.calibration}, judged on the second"
    trained = replace(subject_of(imported, calibration, judged), source=source)
    network = _with_numbers(network, trained, 1, 1)
    inside = Closed(imported)
    if inside:
        network = replace(network, weights=_Both(inside, network.weights or {}))
    network = replace(network, brought=BroughtCodes(imported))
    return network if calibration else replace(network, subject=None, bare=trained)


class Held(Mapping[str, Array]):
    """The weights of an imported network by layer, made when they are asked for."""

    def __init__(self, imported: Imported) -> None:
        self.imported = imported

    def __getitem__(self, name: str) -> Array:
        if name not in self.imported.tensors:
            raise KeyError(name)
        return self.imported.weights(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.imported.tensors)

    def __len__(self) -> int:
        return len(self.imported.tensors)


def subject_for(network: Network) -> Subject:
    """Return what a recipe is tried on, judged or with its bare weights.

    Raises
    ------
    InputError
        If the network has no weights; the message says what is missing.
    """
    found = network.subject or network.bare
    if found is None:
        raise InputError(
            network.missing
            or f"{network.name} is a table of shapes, without weights to compress; give an ONNX "
            f"file or one of {', '.join(SUBJECTS)}"
        )
    return found


def _halves(samples: Samples, where: str) -> tuple[Samples, Samples]:
    if samples.runs < 2:
        raise InputError(
            f"{where} has inputs for a single run; give others to judge on, as --inputs FILE.npz"
        )
    half = samples.runs // 2
    return samples.part(0, half), samples.part(half, samples.runs)


def _folder(name: str, options: Options) -> Network:
    """A folder as Hugging Face has it, with its weights where they lie there."""
    from sparqsim.workloads.importers.hugging_face import import_folder

    return _transformer(import_folder, name, options)


def _gguf(name: str, options: Options) -> Network:
    """A decoder in a file of llama.cpp, with its weights."""
    from sparqsim.workloads.importers.gguf import import_gguf

    return _transformer(import_gguf, name, options)


def _transformer(reader: Callable[..., Imported], name: str, options: Options) -> Network:
    """A network of blocks on ``sequence`` tokens, or on one behind ``context``."""
    options.only(name, "batch", "sequence", "context")
    if options.sequence is not None and options.context is not None:
        raise InputError(
            f"{name}: decoding computes one token; give the context it attends to, or a sequence"
        )
    imported = reader(
        name, batch=options.batch or 1, sequence=options.sequence, context=options.context
    )
    return _imported(name, imported, options)


def _imported(name: str, imported: Imported, options: Options) -> Network:
    """A network that is not run: its shapes, and its weights where they are wanted."""
    network = Network(
        name=name, model=imported.model, source=imported.model.source, report=imported.report
    )
    if imported.missing:
        text = f"the values of {name} lie in {imported.missing[0]!r}, which is not there"
        return replace(network, missing=text)
    if not options.numbers:
        return network
    found = {layer: imported.bias(layer) for layer in imported.tensors}
    biases = {layer: bias for layer, bias in found.items() if bias is not None}

    def unseen(*_: Any) -> Any:
        raise InputError(
            f"{name} is not run here, so what its layers read is not known; compress weights alone"
        )

    bare = Subject(
        name=imported.model.name,
        source=imported.model.source,
        layers=imported.model.layers,
        weights=Held(imported),
        capture=unseen,
        judge=unseen,
        biases=biases,
    )
    return replace(
        network,
        weights=bare.weights,
        biases=biases,
        bare=bare,
        brought=BroughtCodes(imported),
    )


def _table_file(reader: Callable[[str], Model], name: str, options: Options) -> Network:
    """A file of shapes alone, for ``batch`` inputs at once."""
    options.only(name, "batch")
    model = reader(name)
    if options.batch is not None:
        layers = tuple(for_batch(layer, options.batch) for layer in model.layers)
        model = msgspec.structs.replace(model, layers=layers)
    taken = Counter(type(layer).__name__ for layer in model.layers)
    report = ImportReport(taken=taken)
    return Network(name=name, model=model, source=model.source, report=report)


def _csv(name: str) -> Model:
    """A table of one's own, or a SCALE-Sim topology."""
    return import_table(name) if is_table(name) else import_scalesim(name)


READERS: dict[str, Callable[[str, Options], Network]] = {
    ".onnx": _onnx,
    ".gguf": _gguf,
    ".csv": partial(_table_file, _csv),
    ".yaml": partial(_table_file, import_timeloop),
    ".yml": partial(_table_file, import_timeloop),
}
