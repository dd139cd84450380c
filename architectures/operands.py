"""Which number formats a machine computes, and what becomes of a layer's codes there.

The rules are the same for every machine. Codes of a format that the machine computes run as they
are. Codes whose every value one of its formats holds exactly (int4, flint4 or small powers of two
in int8) are stored in that format: a table from code to code, no rounding. Anything else is
refused, or rounded again by the machine's own recipe where the user asks for it. Scales may differ
by tensor or output channel. One scale for a group of weights along the reduction has to be applied
before sums are complete, and one for each token row by row: machines that do so say it, the others
refuse them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.simulator.report import Operand
from sparqsim.workloads import formats, recipes
from sparqsim.workloads.encoded import Coded, EncodedLayer, Tensor, encode, outline
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.formats import Format
from sparqsim.workloads.formats.codebook import Codebook
from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.quantize import Quantizer
from sparqsim.workloads.recipes import Recipe

NO_GROUPS = (
    "but sums over the whole reduction are scaled once; choose the granularity channel or tensor, "
    "or a machine that scales sums at the end of a group, such as plain or bitfusion"
)
NO_TOKENS = (
    "but outputs are scaled by channel; choose the granularity tensor, or a machine that "
    "requantizes row by row, such as plain or bitfusion"
)
LARGEST_RAISE = 32  # exponents below 0 are raised at most so far, so that integers hold them
ROLES = ("weights", "activations")


@dataclass(frozen=True, kw_only=True)
class Computes:
    """What a machine multiplies.

    Attributes
    ----------
    weights, activations : tuple of str
        Names of formats, the narrowest first; ``codebook4`` stands for any table of up to 16 values
        that keeps code 0 for zero, ``float32`` for a tensor that no recipe coded.
    zero_points : bool
        Whether operands may have one.
    channel_formats : bool
        Whether output channels of weights may differ in format.
    no_groups, no_tokens : str
        Why weights may not have a scale for every few values of a channel, and activations one for
        each token, in words that follow the scale; empty where they may.
    """

    weights: tuple[str, ...]
    activations: tuple[str, ...]
    zero_points: bool = False
    channel_formats: bool = False
    no_groups: str = NO_GROUPS
    no_tokens: str = NO_TOKENS

    def of(self, role: str) -> tuple[str, ...]:
        """The formats of ``weights`` or ``activations``."""
        found: tuple[str, ...] = getattr(self, role)
        return found


@dataclass(frozen=True, eq=False)
class Taken:
    """A layer as a machine takes it, and what became of its operands."""

    layer: EncodedLayer
    operands: dict[str, Operand]


def take(
    machine: str,
    layer: EncodedLayer,
    computes: Computes,
    own: Recipe,
    *,
    requantize: bool = False,
) -> Taken:
    """Store a layer's operands in formats that the machine computes.

    Parameters
    ----------
    machine
        Its name, for messages.
    own
        The machine's own recipe, by which ``requantize`` rounds again.

    Raises
    ------
    InputError
        If a format is not computed and not held exactly, unless ``requantize``.
    """
    fields: dict[str, Any] = {}
    found: dict[str, Operand] = {}
    for role, field in zip(ROLES, ("weight", "activation"), strict=True):
        tensor: Tensor = getattr(layer, field)
        stored = None if _unfit(tensor, computes, role) else _held(tensor, computes, role)
        if stored is None:
            if not requantize:
                raise InputError(_refusal(machine, layer, tensor, computes, role, own))
            again = (
                outline(layer.layer, own)
                if layer.given is None
                else encode(layer.given, own, own=own)  # its pruning is not for pruned weights
            )
            fresh: Tensor = getattr(again, field)
            stored = None if _unfit(fresh, computes, role) else _held(fresh, computes, role)
            if stored is None:
                raise InputError(_refusal(machine, again, fresh, computes, role, own))
            found[role] = _told(tensor, stored, "rounded again")
        else:
            how = "as it is" if _name(stored) == _name(tensor) else "held exactly"
            found[role] = _told(tensor, stored, how)
        fields[field] = stored
    return Taken(replace(layer, **fields), found)


def _name(tensor: Tensor) -> str:
    return tensor.name if isinstance(tensor, Coded) else recipes.KEEP


def _told(before: Tensor, after: Tensor, how: str) -> Operand:
    slices = after.quantizer.slices if isinstance(after, Coded) else None
    granularity = "tensor"
    if slices is not None and slices.tokens:
        granularity = "token"
    elif slices is not None and slices.group is not None:
        granularity = f"group of {slices.group}"
    elif slices is not None and slices.axis is not None:
        granularity = "channel"
    return Operand(
        format=_name(before),
        stored_as=_name(after),
        bits=after.bits if isinstance(after, Coded) else 32,
        how=how,
        granularity=granularity,
    )


def _unfit(tensor: Tensor, computes: Computes, role: str) -> str:
    """Why scales or zero points do not suit the machine, or nothing."""
    if not isinstance(tensor, Coded):
        return ""
    slices = tensor.quantizer.slices
    if slices.group is not None and (computes.no_groups or role == "activations"):
        return f"one scale for every {slices.group} values of a channel, " + (
            computes.no_groups or "which only weights may have; choose the granularity tensor"
        )
    if slices.tokens and computes.no_tokens:
        return f"one scale for each token, {computes.no_tokens}"
    if not computes.zero_points and np.any(tensor.zero_point):
        return "a zero point, which its multipliers do not take; leave out asymmetric"
    return ""


def _held(tensor: Tensor, computes: Computes, role: str) -> Tensor | None:
    """The tensor in the first of the machine's formats that holds it exactly, or None."""
    names = computes.of(role)
    if not isinstance(tensor, Coded):
        return tensor if recipes.KEEP in names else None
    grids = tensor.formats
    mixed = len(grids) > 1 and not computes.channel_formats
    if not mixed and all(_is_one_of(grid, names) for grid in grids):
        return tensor
    for name in names:
        if name == recipes.KEEP:
            continue
        held = _stored_in(tensor, name)
        if held is not None:
            return held
    return None


def one_of(tensor: Tensor, names: Sequence[str]) -> bool:
    """Whether a tensor is in one of these formats already."""
    if not isinstance(tensor, Coded):
        return recipes.KEEP in names
    return all(_is_one_of(grid, names) for grid in tensor.formats)


def held_in(tensor: Tensor, names: Sequence[str]) -> bool:
    """Whether one of these formats holds a tensor exactly."""
    if one_of(tensor, names):
        return True
    return isinstance(tensor, Coded) and any(
        _stored_in(tensor, name) is not None for name in names if name != recipes.KEEP
    )


def _is_one_of(grid: Format, names: Sequence[str]) -> bool:
    if isinstance(grid, Codebook):
        return grid.keeps_zero and grid.name in names
    if isinstance(grid, Int) and grid.narrow:
        return grid.name in names or f"int{grid.bits}_signed" in names
    return grid.name in names


def _stored_in(tensor: Coded, name: str) -> Coded | None:
    """The tensor with its codes in another format, if that has every value, or None.

    Values below 1 are raised by a power of two, and the scale is lowered to match.
    """
    if any(not hasattr(grid, "code_values") or _is_pairs(grid) for grid in tensor.formats):
        return None
    target = _table_of(tensor, name)
    if target is None:
        return None
    used = _used(tensor)
    raises = [_raise(values, target) for values in used]
    if None in raises:
        return None
    old = tensor.quantizer
    choice = np.zeros(len(old.scale), np.intp) if old.choice is None else old.choice
    factor = np.array([2.0**r for r in raises if r is not None])[choice]
    with np.errstate(over="ignore"):  # no NaN is in use, nor what overflows
        tables = [
            target.encode(np.nan_to_num(grid.code_values) * 2.0 ** (r or 0))
            for grid, r in zip(tensor.formats, raises, strict=True)
        ]
    if old.zero_point is not None and any(raises):
        return None
    quantizer = Quantizer(
        (target,), (old.scale / factor).astype(np.float32), old.zero_point, old.slices
    )
    return replace(tensor, codes=_recoded(tensor, tables, choice), quantizer=quantizer)


def _is_pairs(grid: Format) -> bool:
    return grid.name.startswith("ovp_")


def _table_of(tensor: Coded, name: str) -> Format | None:
    """The format of a name; of a codebook the one with zero and the tensor's other values."""
    if not name.startswith("codebook"):
        return formats.get(name)
    bits = int(name.removeprefix("codebook"))
    if len(tensor.formats) > 1:
        return None
    values = tensor.formats[0].values
    others = values[values != 0]
    return Codebook((0.0, *others.tolist()), bits) if len(others) < 1 << bits else None


def _used(tensor: Coded) -> list[NDArray[np.float64]]:
    """The values of each format that the tensor's codes may stand for.

    Of a single format those that its codes do stand for: a symmetric integer that never takes its
    most negative code suits a machine that has none. An outline may stand for all but that.
    """
    grids = tensor.formats
    codes = tensor.codes.values if isinstance(tensor.codes, CSC) else tensor.codes
    if len(grids) > 1 or not any(codes.strides):
        return [
            grid.values[1:] if isinstance(grid, Int) and grid.signed else grid.values
            for grid in grids
        ]
    present = np.bincount(codes.reshape(-1), minlength=len(grids[0].code_values)) > 0
    return [grids[0].code_values[present]]


def _raise(values: NDArray[np.float64], target: Format) -> int | None:
    """The least power of two by which all values are among those of ``target``."""
    for power in range(LARGEST_RAISE):
        raised = values * 2.0**power
        place = np.searchsorted(target.values, raised).clip(0, len(target.values) - 1)
        if (target.values[place] == raised).all():
            return power
        if abs(values).max(initial=0) * 2.0**power > abs(target.values[[0, -1]]).max():
            return None
    return None


def _recoded(
    tensor: Coded, tables: list[NDArray[np.unsignedinteger]], choice: NDArray[np.integer]
) -> NDArray[np.unsignedinteger] | CSC:
    if isinstance(tensor.codes, CSC):
        return tensor.codes.with_values(tables[0][tensor.codes.values])
    if len(tables) == 1 and not any(tensor.codes.strides):  # an outline: one code for all
        return np.broadcast_to(tables[0][tensor.codes.flat[0]], tensor.shape)
    if len(tables) == 1:
        return tables[0][tensor.codes]
    rows = tensor.quantizer.slices.split(tensor.codes)
    recoded = np.stack(tables)[np.asarray(choice)[:, None], rows]
    return tensor.quantizer.slices.join(recoded, tensor.shape)


def _refusal(
    machine: str, layer: EncodedLayer, tensor: Tensor, computes: Computes, role: str, own: Recipe
) -> str:
    where = f"layer {layer.name!r}, recipe {layer.recipe!r}: {machine}"
    why = _unfit(tensor, computes, role)
    if why:
        return f"{where} cannot take {role} with {why}"
    known, given = ", ".join(computes.of(role)), _name(tensor)
    if given in computes.of(role):
        given = f"a {given} that keeps no code for zero"
    return (
        f"{where} computes {role} in {known}; {given} is none of them, nor held exactly in one; "
        f"choose a recipe of these formats ({own.name!r} is its own) or another machine, or round "
        "again with --requantize"
    )
