"""A layer multiplied, requantized and checked as the array machines do it.

Operands come as codes (:class:`Operand`); the convolution is unfolded, the machine's MAC core
multiplies codes, sums start from the bias and are requantized. Zero points leave the products as
they are:

    sum (q_x - Z_x)(q_w - Z_w) = sum q_x q_w - Z_x (sum q_w - K Z_w) - Z_w sum q_x

The second term does not depend on the input and is folded into the bias ahead of time, padding
included, since a padded place holds the code Z_x. The third needs the sum of the activations of
each output pixel, which adders at the array's border make; it is only there where weights have a
zero point. Scales of groups along the reduction and of tokens: :mod:`.scales`. Outputs are compared
with a convolution that never unfolds, of the decoded whole numbers, requantized by the formula
written out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.scales import (
    Groups,
    Ints,
    Tokens,
    by_definition,
    spread,
    with_outputs,
)
from sparqsim.architectures.arrays.tokens import TileTokens
from sparqsim.architectures.arrays.walk import Walk
from sparqsim.architectures.machine import Computed
from sparqsim.simulator.mac import dense, flint
from sparqsim.simulator.netlist import Execute
from sparqsim.simulator.report import Verification
from sparqsim.workloads.encoded import (
    Coded,
    EncodedLayer,
    Role,
    as_convolution,
    as_image,
    as_kernels,
    as_output,
)
from sparqsim.workloads.formats.base import TableFormat
from sparqsim.workloads.requantize import Multiplier, requantize

ACCUMULATOR_LIMIT = 2**31 - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Operand:
    """A tensor as an array machine multiplies it.

    Attributes
    ----------
    codes : integers
        ``[batch, channels, height, width]`` or ``[out, channels of a group, kh, kw]``, as the MAC
        core takes them.
    levels : float64, of the shape of ``codes``
        The whole numbers the codes stand for, by the format's table.
    scale : float64 [scales]
        Real value of one: of the tensor, by output channel, or finer (:mod:`.scales`).
    zero : int64 [scales]
        The level that stands for 0.
    signed : bool
        Whether levels may be negative.
    bits : int
        Of a code.
    tensor : Coded
        What it was made from.
    """

    codes: NDArray[Any]
    levels: NDArray[np.float64]
    scale: NDArray[np.float64]
    zero: NDArray[np.int64]
    signed: bool
    bits: int
    tensor: Coded


def in_shape(layer: EncodedLayer, role: Role, array: NDArray[Any]) -> NDArray[Any]:
    """An array of an operand's shape as that of the convolution which the layer is."""
    return (as_kernels if role == "weights" else as_image)(layer.layer, array)


def integer_operand(layer: EncodedLayer, role: Role) -> Operand:
    """An operand whose codes are integers: the MAC core takes the integers themselves."""
    tensor: Coded = layer.weight if role == "weights" else layer.activation  # type: ignore[assignment]
    levels = in_shape(layer, role, tensor.levels()).astype(np.float64)
    return Operand(
        codes=levels.astype(np.int32),
        levels=levels,
        scale=tensor.scale,
        zero=tensor.zero_point,
        signed=bool(tensor.formats[0].values[0] < 0),
        bits=tensor.bits,
        tensor=tensor,
    )


def raised(grid: TableFormat) -> int:
    """By how much the exponents of a type are raised, that none is below 0."""
    return max(0, -int(grid.exponent_integers[0].min()))


def coded_operand(layer: EncodedLayer, role: Role) -> Operand:
    """An operand of exponents and integers, decoded at the array's borders.

    The MAC core takes one term for each place, or the two halves of an 8-bit integer, packed
    (:func:`sparqsim.simulator.mac.flint.pack`). Exponents below 0 are raised to 0 for a whole
    format, and the scale is lowered to match.
    """
    tensor: Coded = layer.weight if role == "weights" else layer.activation  # type: ignore[assignment]
    quantizer, codes = tensor.quantizer, tensor.dense.codes
    assert isinstance(codes, np.ndarray)
    grids: tuple[TableFormat, ...] = quantizer.formats  # type: ignore[assignment]
    raises = np.array([raised(grid) for grid in grids])
    choice = np.zeros(1, np.intp) if quantizer.choice is None else quantizer.choice
    place = choice if len(choice) == 1 else choice.reshape(-1, *(1,) * (codes.ndim - 1))
    exponents, integers = (
        np.stack([grid.exponent_integers[part] for grid in grids]).astype(np.int32)[place, codes]
        for part in (0, 1)
    )
    terms = [(exponents + raises.astype(np.int32)[place], integers)]
    if tensor.bits > flint.HALF_BITS:
        terms = flint.gang(integers)
    factors = 2.0 ** raises[choice]
    levels = in_shape(layer, role, tensor.levels()).astype(np.float64)
    return Operand(
        codes=in_shape(layer, role, flint.pack(terms)),
        levels=levels * factors.reshape(-1, 1, 1, 1),
        scale=tensor.scale / factors,
        zero=tensor.zero_point,
        signed=bool(grids[0].values[0] < 0),
        bits=tensor.bits,
        tensor=tensor,
    )


def term_products(
    rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
) -> NDArray[np.integer]:
    """Exponent-integer products of packed terms."""
    left, right = (
        flint.unpack(words, 1 if operand.bits <= flint.HALF_BITS else 2)
        for words, operand in ((rows, x), (columns, w))
    )
    return flint.gemm_terms(left, right)


def integer_products(
    rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
) -> NDArray[np.integer]:
    """Products of integers."""
    out = np.zeros((len(rows), columns.shape[1]), np.int32)
    dense.gemm(rows, columns, out)
    return out


Multiply = Callable[[NDArray[Any], NDArray[Any], Operand, Operand], NDArray[np.integer]]


class Multiplied(Computed, Protocol):
    """What a program and its netlist of tiles take of a layer's numbers; see :class:`Work`."""

    lost_steps: float
    tokens: TileTokens | None

    def actions(self, walk: Walk) -> dict[str, Execute]: ...

    def executed(self) -> bool: ...


class Work:
    """A layer multiplied and requantized; and what it is checked against.

    Parameters
    ----------
    layer
        Its name and ReLU, bias and geometry.
    x, w
        Its operands.
    multiply
        The machine's MAC core: codes ``[M, K]`` by ``[K, N]``.
    sum_bits
        Width of an accumulator, at most 32; sums wrap around it.

    Attributes
    ----------
    outputs : integers
        Requantized, in the layer's output shape; real value ``output_scale * (output - zero)``.
    effectual : int
        Products of two operands that are not zero.
    """

    def __init__(
        self, layer: EncodedLayer, x: Operand, w: Operand, multiply: Multiply, sum_bits: int
    ) -> None:
        self.layer, self.x, self.w, self.sum_bits = layer, x, w, sum_bits
        conv = self.conv = as_convolution(layer.layer)
        geometry = self.geometry = (
            conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups,
        )  # fmt: skip
        self.by_token = Tokens.of(layer, x)
        self.fill = 0 if self.by_token else int(x.zero[0])  # a padded place holds the code of zero
        unit = float(x.scale[0]) if self.by_token is None else self.by_token.unit
        grouped = w.tensor.quantizer.slices.group is not None
        self.groups = Groups(layer, x, w, unit, sum_bits) if grouped else None
        self.left, self.right = without_zeros(layer, "activations", x), without_zeros(
            layer, "weights", w
        )  # fmt: skip
        rows = dense.unfold(x.codes, *geometry, fill=self.fill)
        columns = dense.unfold_weights(w.codes, conv.groups)
        self.effectual = sum(
            dense.effectual(r, c) for r, c in zip(
                dense.unfold(self.left != 0, *geometry),
                dense.unfold_weights(self.right != 0, conv.groups), strict=True,
            )
        )  # fmt: skip
        self.lost_steps = 0.0
        # Real value of 1 in a sum, by channel, and what an input of 1 everywhere would give.
        if self.groups is not None:
            self.unit = unit * self.groups.unit
            offset = self.groups.offset
        else:
            self.unit = unit * w.scale
            offset = self.right.sum(axis=(1, 2, 3)).astype(np.int64)
        self.zeros = with_outputs(layer, x.tensor, x.zero)[..., None, None]
        self.ahead = -self.zeros * offset.reshape(-1, 1, 1)
        units = np.rint(layer.bias / self.unit)
        self.bias = np.clip(units, -ACCUMULATOR_LIMIT, ACCUMULATOR_LIMIT).astype(np.int64)
        self.sums = self._finished(self._summed(rows, columns, multiply) + self.ahead)
        self._requantize()
        self.tokens: TileTokens | None = None  # of a netlist whose firings execute

    def _summed(self, rows: NDArray[Any], columns: NDArray[Any], multiply: Multiply) -> Ints:
        """Sums of products ``[batch, out, oh, ow]``, zero points of the weights taken off."""
        conv = self.conv
        if self.groups is not None:
            sums = self.groups.sums(rows, columns, multiply)
            return dense.fold_outputs(sums, conv.batch, conv.output)
        each = [multiply(r, c, self.x, self.w) for r, c in zip(rows, columns, strict=True)]
        folded = dense.fold_outputs(np.stack(each).astype(np.int64), conv.batch, conv.output)
        if self.w.zero.any():
            of_pixels = rows.sum(axis=2, dtype=np.int64)[:, :, None]  # of each pixel and group
            spread = np.repeat(of_pixels, conv.out_channels // conv.groups, axis=2)
            sums = dense.fold_outputs(spread, conv.batch, conv.output)
            folded -= self.w.zero.reshape(-1, 1, 1) * sums
        return folded

    def _finished(self, sums: Ints, expected: bool = False) -> Ints:
        """Sums without zero points, at one scale, with the bias; ``expected``: by definition."""
        if self.by_token is not None:
            held = dense.wrap(sums, self.sum_bits)
            sums = self.by_token.expected(held) if expected else self.by_token.scaled(held)
        return dense.wrap(sums + self.bias[:, None, None], self.sum_bits)

    def _requantize(self) -> None:
        """Fit the range of the outputs, as calibration would, and bring the sums to codes."""
        bits = max(self.x.bits, 2)
        scale = np.broadcast_to(self.unit, (self.conv.out_channels,))
        real = self.sums * scale[:, None, None]
        low, high = float(real.min(initial=0)), float(real.max(initial=0))
        self.output_zero = 0
        if self.layer.relu:
            low, self.low, self.high = 0.0, 0, 2**bits - 1
            span = high / self.high
        elif self.x.tensor.quantizer.zero_point is not None:
            self.low, self.high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
            span = (high - low) / (self.high - self.low)
            self.output_zero = self.low + round(-low / span) if span > 0 else 0
        else:
            self.low, self.high = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
            span = max(-low, high) / self.high
        self.output_scale = span if span > 0 else 1.0
        self.multipliers = [Multiplier.of(float(one) / self.output_scale) for one in scale]
        last = np.moveaxis(self.sums, 1, -1)
        found = requantize(last, self.multipliers, self.output_zero, self.low, self.high)
        self.outputs = as_output(self.layer.layer, np.moveaxis(found, -1, 1))

    @cached_property
    def exact(self) -> Ints:
        """The reference's sums without bias, unwrapped; ``[batch, out, height, width]``."""
        if self.groups is not None:
            return self.groups.expected(self.left, self.zeros) + self.ahead
        products = dense.convolve_levels(self.left, self.right, *self.geometry[1:])
        return products.astype(np.int64)

    @property
    def wrapped(self) -> int:
        """Sums beyond the accumulators; needs no reference where none can be so large."""
        if self.groups is not None:
            return self.groups.wrapped  # sums of all groups fit
        depth = int(np.prod(self.w.levels.shape[1:]))
        largest = [float(np.abs(each).max(initial=0)) for each in (self.left, self.right)]
        bound = largest[0] * largest[1] * depth + float(np.abs(self.bias).max(initial=0))
        if bound < 2 ** (self.sum_bits - 1):
            return 0
        sums = self.exact if self.by_token else self.exact + self.bias[:, None, None]
        return int(np.count_nonzero(sums != dense.wrap(sums, self.sum_bits)))

    def verify(self) -> Verification:
        """Compare with the reference, bit by bit."""
        expected = as_output(
            self.layer.layer,
            requantized(
                self._finished(self.exact, expected=True), self.multipliers, self.output_zero,
                self.low, self.high,
            ),
        )  # fmt: skip
        mismatches = int(np.count_nonzero(self.outputs != expected))
        return Verification(
            status="mismatch" if mismatches else "exact",
            outputs=self.outputs.size,
            mismatches=mismatches,
            against="tap-by-tap convolution of decoded values in floating point, requantized",
        )

    def actions(self, walk: Walk) -> dict[str, Execute]:
        """What the actors of a netlist of tiles do with their tokens, for ``verify="execute"``."""
        if self.groups is None:
            self.tokens = TileTokens(self.conv, self.left, self.right)
        else:  # zero points come off behind the scaling
            self.tokens = TileTokens(
                self.conv, self.x.levels, self.right, self.groups.products, self.fill
            )
        return self.tokens.actions(walk)

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run carried the kernel's sums."""
        carried = None if self.tokens is None else self.tokens.sums()
        if carried is None:
            return False
        ahead = 0 if self.groups is None else self.ahead
        return np.array_equal(self._finished(carried + ahead), self.sums)


def without_zeros(layer: EncodedLayer, role: Role, operand: Operand) -> NDArray[np.float64]:
    """Levels counted from the zero point of each."""
    if not operand.zero.any():
        return operand.levels
    return operand.levels - in_shape(layer, role, spread(operand.tensor, operand.zero))


def requantized(sums: Ints, multipliers: list[Multiplier], zero: int, low: int, high: int) -> Ints:
    """Requantize ``[batch, channels, ...]`` by the definition, for checks."""
    shape = (-1, *(1,) * (sums.ndim - 2))
    factor = np.array([m.m0_q31 for m in multipliers], np.int64).reshape(shape)
    right = np.array([m.right_shift for m in multipliers], np.int64).reshape(shape)
    return np.clip(by_definition(sums, factor, right) + zero, low, high)
