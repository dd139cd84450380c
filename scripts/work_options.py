"""The options that say what work is: the same for every command that takes a WORK."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sparqsim.base import InputError

F = TypeVar("F", bound=Callable[..., Any])

WORK_HELP = """\b
WORK is one of
  resnet50, resnet50/conv1      a network, or one layer of it (sparqsim models lists them)
  net.onnx, net.onnx/conv1      an ONNX file
  topology.csv, problem.yaml    a SCALE-Sim topology, a Timeloop problem
  gemm:MxKxN                    M rows by a K x N matrix of weights
  matmul:MxKxN,batch=B          B products of two activation matrices
  conv:CxHxW,KxRxS,stride=2,pad=1,dilation=1,groups=1
"""


def _shapes(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    return dict(map(shape, texts))


def shape(text: str) -> tuple[str, int | tuple[int, ...]]:
    """Return name and sizes of ``x=1x3x224x224``, ``x:0=1`` or ``N=1``.

    Raises
    ------
    InputError
        If it reads otherwise.
    """
    name, _, value = text.rpartition("=")
    if not name or not re.fullmatch(r"\d{1,12}(x\d{1,12})*", value, re.ASCII):
        raise InputError(
            f"a shape is INPUT=SIZES, INPUT:AXIS=SIZE or NAME=SIZE, as x=1x3x224x224, got {text!r}"
        )
    sizes = tuple(map(int, value.split("x")))
    return name, sizes if len(sizes) > 1 else sizes[0]


shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=_shapes,
    metavar="INPUT=1x3x224x224",
    help="Sizes that an ONNX file leaves open: of an input, of one axis (x:0=1), or by their own "
    "name (N=1).",
)


def work_options(function: F) -> F:
    """Add ``--batch``, ``--sequence``, ``--context`` and ``--shape`` (``shapes``)."""
    for option in (
        shape_option,
        click.option(
            "--context",
            type=click.IntRange(1),
            metavar="TOKENS",
            help="Decode one token that attends to so many, the KV cache and itself.",
        ),
        click.option(
            "--sequence", type=click.IntRange(1), metavar="TOKENS", help="Tokens of a sequence."
        ),
        click.option(
            "--batch",
            type=click.IntRange(1),
            metavar="COUNT",
            help="Images, sequences or vectors at once.",
        ),
    ):
        function = option(function)
    return function


def data_options(function: F) -> F:
    """Add ``--calibration`` and ``--inputs``."""
    for option in (
        click.option(
            "--inputs",
            metavar="FILE.npz",
            help="Inputs on which an ONNX network is judged (labels: an array of classes).",
        ),
        click.option(
            "--calibration",
            metavar="FILE.npz",
            help="Inputs on which its ranges are found: arrays named as the graph's inputs, "
            "samples first. Given alone, its second half judges.",
        ),
    ):
        function = option(function)
    return function
