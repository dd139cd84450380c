"""Read a Timeloop problem: one convolution or matrix product, as YAML.

``problem:`` has a ``shape`` (a name, or a description with ``dimensions`` and data spaces) and the
sizes of its dimensions, in an ``instance`` or beside the shape, in version 0.4's form and the older
ones. A convolution has C or, with G groups, C a group, M or K output channels (likewise), N images,
P x Q outputs and R x S taps, with ``Wstride`` and ``Wdilation`` along P and R, ``Hstride`` and
``Hdilation`` along Q and S; without output channels it is depthwise. A product has M, N and K. A
dimension that is not given counts 1.

Timeloop knows no padding: an input is as large as its outputs reach, and so it is here. Densities
(Sparseloop's) are taken where they are numbers. Source: Timeloop's problem shapes ``cnn-layer`` and
``gemm-ABZ`` and its input format. Needs the extra ``timeloop`` (PyYAML).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparqsim.base import InputError
from sparqsim.workloads.layers import Conv2d, Layer, Linear, Model

CONV = frozenset("CMKNPQRSG")
COEFFICIENTS = ("Wstride", "Hstride", "Wdilation", "Hdilation")
LARGEST = 2**31 - 1  # assumed: no size of a layer of today comes near
LARGEST_FILE = 2**20  # assumed, bytes: a problem is a page


def import_timeloop(path: str | Path) -> Model:
    """Return the layer of a Timeloop problem.

    Raises
    ------
    InputError
        If the file cannot be read, is not YAML, holds no problem, or one that is neither a
        convolution nor a matrix product. Also if PyYAML is not installed.
    """
    path = Path(path)
    problem = _problem(path)
    shape = problem.get("shape", {})
    described: Mapping[str, Any] = shape if isinstance(shape, Mapping) else {}
    instance = problem.get("instance", {key: v for key, v in problem.items() if key != "shape"})
    if isinstance(instance, str):
        raise InputError(f"{path}: its instance must give sizes by name, as C: 64, got a formula")
    if not isinstance(instance, Mapping):
        raise InputError(f"{path}: its instance must give sizes by name, as C: 64")
    sizes = _sizes(path, described, instance)
    try:
        layer = _layer(path.stem, sizes, _densities(path, instance))
    except InputError as error:
        raise (
            error if str(error).startswith(str(path)) else InputError(f"{path}: {error}")
        ) from None
    return Model(name=path.stem, source=f"Timeloop problem {path.name}", layers=(layer,))


def _problem(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        raise InputError(
            "reading a Timeloop problem needs PyYAML; pip install 'sparqsim[timeloop]'"
        ) from None

    class Loader(yaml.SafeLoader):
        """Plain data alone; Timeloop's own tags (``!Problem``) say what their place says."""

    def untagged(loader: Any, _: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("!", untagged)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path} is too long for a problem, {path.stat().st_size:,} bytes")
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} is no YAML as it stands ({line}); expand templates and includes first"
        ) from None
    problem = content.get("problem", content) if isinstance(content, Mapping) else None
    if not isinstance(problem, Mapping) or not {"shape", "instance"} & set(problem):
        raise InputError(f"{path} must hold a Timeloop 'problem:' with its shape and its sizes")
    return problem


def _sizes(path: Path, shape: Mapping[str, Any], instance: Mapping[str, Any]) -> dict[str, int]:
    """Return every dimension and coefficient with its size."""
    dimensions = shape.get("dimensions", [])
    if not isinstance(dimensions, list) or not all(isinstance(each, str) for each in dimensions):
        raise InputError(f"{path}: its shape's dimensions must be names, got {dimensions!r}")
    sizes = dict.fromkeys(dimensions, 1)
    for each in shape.get("coefficients") or []:
        if isinstance(each, Mapping) and each.get("name") in COEFFICIENTS:
            sizes[each["name"]] = _whole(path, each["name"], each.get("default", 1))
    for name, value in instance.items():
        wanted = name in sizes or name in COEFFICIENTS
        if wanted or (not dimensions and name in CONV):
            sizes[name] = _whole(path, name, value)
    return sizes


def _whole(path: Path, name: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise InputError(f"{path}: {name} must be whole and at least 1, got {value!r}")
    return value


def _densities(path: Path, instance: Mapping[str, Any]) -> dict[str, float]:
    """Return densities by data space, where they are numbers."""
    given = instance.get("densities")
    found = {}
    for space, value in given.items() if isinstance(given, Mapping) else ():
        density = value.get("density") if isinstance(value, Mapping) else value
        if isinstance(density, int | float) and not isinstance(density, bool):
            if not 0 < density <= 1:
                raise InputError(f"{path}: density of {space} must be in (0, 1], got {density}")
            found[str(space)] = float(density)
    return found


def _layer(name: str, sizes: Mapping[str, int], densities: Mapping[str, float]) -> Layer:
    dimensions = {each for each in sizes if each not in COEFFICIENTS}
    other = sorted(each for each in dimensions if each not in CONV and sizes[each] > 1)
    if other:
        raise InputError(f"a problem over {', '.join(other)} is no convolution or matrix product")
    if dimensions & set("PQRSC"):
        return _conv(name, sizes, densities)
    if dimensions and dimensions <= set("MNK"):
        return Linear(
            name=name,
            in_features=sizes.get("K", 1),
            out_features=sizes.get("N", 1),
            rows=sizes.get("M", 1),
            bias=False,
            **_fields(densities, "B", "A"),
        )
    raise InputError("its dimensions must be those of a convolution (C M R S P Q N) or M N K")


def _fields(densities: Mapping[str, float], weights: str, inputs: str) -> dict[str, Any]:
    named = {"weight_density": densities.get(weights), "activation_density": densities.get(inputs)}
    fields: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    return fields | ({"density_source": "the Timeloop problem"} if fields else {})


def _conv(name: str, sizes: Mapping[str, int], densities: Mapping[str, float]) -> Layer:
    def size(dimension: str) -> int:
        return sizes.get(dimension, 1)

    if "M" in sizes and "K" in sizes:
        raise InputError("a convolution must name its output channels M or K, got both")
    depthwise = "M" not in sizes and "K" not in sizes
    groups = size("G") * (size("C") if depthwise else 1)
    kernel, output = (size("S"), size("R")), (size("Q"), size("P"))
    stride, dilation = (size("Hstride"), size("Wstride")), (size("Hdilation"), size("Wdilation"))
    reach = [
        (count - 1) * step + (taps - 1) * spread + 1
        for count, step, taps, spread in zip(output, stride, kernel, dilation, strict=True)
    ]
    return Conv2d(
        name=name,
        in_channels=size("G") * size("C"),
        out_channels=groups if depthwise else size("G") * size("M") * size("K"),
        input=(reach[0], reach[1]),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        bias=False,
        batch=size("N"),
        **_fields(densities, "Weights", "Inputs"),
    )
