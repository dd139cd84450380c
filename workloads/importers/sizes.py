"""Products and convolutions given by their sizes, in one word of the command line.

``gemm:MxKxN`` is M rows of activations by a K x N matrix of weights; ``matmul:MxKxN,batch=B`` is B
products of two activation matrices; ``conv:CxHxW,KxRxS`` is K filters of R x S on C channels of
H x W, with ``stride``, ``pad`` and ``dilation`` (one number, or two as ``2x1`` for height and
width), ``groups`` and ``batch`` behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sparqsim.base import InputError
from sparqsim.workloads.importers import placed
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul, Model, for_batch

LARGEST = 2**31 - 1  # assumed: no size of a layer of today comes near
FORMS = {
    "gemm": "gemm:MxKxN, as gemm:128x768x3072",
    "matmul": "matmul:MxKxN, as matmul:128x64x128,batch=12",
    "conv": "conv:CxHxW,KxRxS, as conv:64x56x56,128x3x3,stride=2,pad=1",
}


def from_sizes(work: str, batch: int | None = None) -> Model:
    """Return the one layer that ``work`` describes; ``batch`` says how many inputs at once.

    Raises
    ------
    InputError
        If a size is missing, not whole or below 1, a key is unknown or twice, or ``batch`` is given
        in both ways.
    """
    kind, _, text = work.partition(":")
    sizes, keys = _parts(work, kind, text)
    own = keys.pop("batch", None)
    if own is not None and batch is not None:
        raise InputError(f"{work} has a batch of its own; drop the other one, {batch}")
    count = 1 if own is None else _number(work, "batch", own)
    makers: dict[str, Callable[..., Layer]] = {"gemm": _gemm, "matmul": _matmul, "conv": _conv}
    try:
        layer = for_batch(makers[kind](work, sizes, keys), count if batch is None else batch)
    except InputError as error:
        raise placed(error, work) from None
    return Model(name=work, source="sizes given", layers=(layer,))


def _parts(work: str, kind: str, text: str) -> tuple[list[str], dict[str, str]]:
    sizes: list[str] = []
    keys: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals and not keys:
            sizes.append(key)
        elif not equals or key in keys:
            why = f"{key!r} twice" if equals else f"{part!r} behind the keys"
            raise InputError(f"{work} must read {FORMS[kind]}, but has {why}")
        else:
            keys[key] = value
    return sizes, keys


def _number(work: str, what: str, text: str, least: int = 1) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not least <= int(text) <= LARGEST:
        raise InputError(f"{work}: {what} must be whole, {least} to {LARGEST:,}, got {text!r}")
    return int(text)


def _product(work: str, kind: str, text: str, names: str) -> list[int]:
    """Return the numbers of ``3x224x224``, as many as ``names`` has letters."""
    parts = text.lower().split("x")
    if len(parts) != len(names):
        raise InputError(f"{work} must read {FORMS[kind]}, got {text!r} for {'x'.join(names)}")
    return [_number(work, name, part) for name, part in zip(names, parts, strict=True)]


def _three(work: str, kind: str, sizes: list[str], keys: Mapping[str, str]) -> list[int]:
    if len(sizes) != 1 or keys:
        extra = ", ".join([*sizes[1:], *keys]) or "nothing"
        raise InputError(f"{work} must read {FORMS[kind]}; it takes no {extra}")
    return _product(work, kind, sizes[0], "MKN")


def _gemm(work: str, sizes: list[str], keys: Mapping[str, str]) -> Layer:
    m, k, n = _three(work, "gemm", sizes, keys)
    return Linear(name="gemm", in_features=k, out_features=n, rows=m, bias=False)


def _matmul(work: str, sizes: list[str], keys: Mapping[str, str]) -> Layer:
    m, k, n = _three(work, "matmul", sizes, keys)
    return MatMul(name="matmul", m=m, k=k, n=n)


def _conv(work: str, sizes: list[str], keys: Mapping[str, str]) -> Layer:
    if len(sizes) != 2:
        raise InputError(f"{work} must read {FORMS['conv']}, got {len(sizes)} sizes of two")
    channels, height, width = _product(work, "conv", sizes[0], "CHW")
    filters, *kernel = _product(work, "conv", sizes[1], "KRS")
    known = ("stride", "pad", "dilation", "groups")
    wrong = [key for key in keys if key not in known]
    if wrong:
        raise InputError(f"{work}: a convolution has no {wrong[0]!r}; it has {', '.join(known)}")

    def pair(key: str, default: str, least: int) -> tuple[int, int]:
        parts = keys.get(key, default).lower().split("x")
        if len(parts) > 2:
            raise InputError(f"{work}: {key} must be one number or two, got {keys[key]!r}")
        numbers = [_number(work, key, part, least) for part in parts]
        return numbers[0], numbers[-1]

    return Conv2d(
        name="conv",
        in_channels=channels,
        out_channels=filters,
        input=(height, width),
        kernel=(kernel[0], kernel[1]),
        stride=pair("stride", "1", 1),
        padding=pair("pad", "0", 0),
        dilation=pair("dilation", "1", 1),
        groups=_number(work, "groups", keys.get("groups", "1")),
        bias=False,
    )
