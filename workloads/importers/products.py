"""Any product of two arrays as a batch of matrix products, each operand counted once.

ONNX and numpy multiply the last two axes and broadcast those before. An axis that only the left
operand has is more rows of one product, one that only the right operand has more columns, and one
that both have is a batch: so no matrix stands twice. ``[1, 4, 8, 64, 64]`` by
``[1, 4, 1, 64, 2048]`` (grouped-query attention: 8 query heads a key head) is 4 products of
``8 * 64`` rows, and ``[2, 3]`` by ``[4, 3, 5]`` one product with ``4 * 5`` columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Arrange:
    """A rearrangement of an array: reshape, permute axes, reshape.

    Of so many ``copies`` of a matrix in a row the first is taken.
    """

    first: Shape
    axes: tuple[int, ...]
    last: Shape
    copies: int = 1

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        if self.copies > 1:
            x = x.reshape(-1, self.copies, *self.first[-2:])[:, 0]
        return x.reshape(self.first).transpose(self.axes).reshape(self.last)

    def undone(self, x: NDArray[Any], shape: Shape) -> NDArray[Any]:
        """Return ``y`` of ``shape`` so that ``self(y)`` is ``x``."""
        between = [self.first[axis] for axis in self.axes]
        back = np.argsort(self.axes)
        return x.reshape(between).transpose(back).reshape(shape)


@dataclass(frozen=True)
class Product:
    """``batch`` products of ``m x k`` by ``k x n``, and where their operands stand.

    The axes of an operand are its letters in the order wanted: ``left("BMK")`` makes
    ``[batch, m, k]`` of the left operand, ``right("BNK")`` ``[batch, n, k]`` of the right one, and
    ``result("BMN")`` ``[batch, m, n]`` of the result, so that undone it gives the result.

    Attributes
    ----------
    sizes : mapping of letter to int
        B, M, N and K.
    shape : tuple of int
        Of the result, as numpy has it.
    of_letters : bool
        The axes of the result stand in an order of their own, as an equation has it.
    copies : (int, int)
        So many matrices in a row of the left and of the right operand are one.
    """

    sizes: dict[str, int]
    shape: Shape
    shapes: tuple[Shape, Shape, Shape]
    axes: tuple[dict[str, Shape], dict[str, Shape], dict[str, Shape]]
    of_letters: bool = False
    copies: tuple[int, int] = (1, 1)

    def left(self, letters: str, last: Shape | None = None) -> Arrange:
        return self._arranged(0, letters, last)

    def right(self, letters: str, last: Shape | None = None) -> Arrange:
        return self._arranged(1, letters, last)

    def result(self, letters: str, last: Shape | None = None) -> Arrange:
        return self._arranged(2, letters, last)

    def flipped(self, left: bool, right: bool) -> Product:
        """Return the same product of operands that come transposed: two matrices."""
        (a, b, whole), axes = self.shapes, self.axes
        return replace(
            self,
            shapes=(a[::-1] if left else a, b[::-1] if right else b, whole),
            axes=(
                {"B": (), "M": (1,), "K": (0,)} if left else axes[0],
                {"B": (), "N": (0,), "K": (1,)} if right else axes[1],
                axes[2],
            ),
        )

    def turned(self, which: int) -> Product:
        """Return the same product where one operand comes with its last two axes exchanged."""
        shapes, axes = list(self.shapes), list(self.axes)
        shape = shapes[which]
        rank = len(shape)
        places = [*range(rank - 2), rank - 1, rank - 2]
        shapes[which] = tuple(shape[place] for place in places)
        axes[which] = {
            letter: tuple(places[axis] for axis in found) for letter, found in axes[which].items()
        }
        return replace(
            self, shapes=(shapes[0], shapes[1], shapes[2]), axes=(axes[0], axes[1], axes[2])
        )

    def _arranged(self, which: int, letters: str, last: Shape | None) -> Arrange:
        axes = tuple(axis for letter in letters for axis in self.axes[which][letter])
        shape = tuple(self.sizes[letter] for letter in letters) if last is None else last
        return Arrange(self.shapes[which], axes, shape, (*self.copies, 1)[which])


def product_of_copies(left: Shape, right: Shape, copies: tuple[int, int]) -> Product:
    """As :func:`product_of`, of stacks in which so many matrices in a row are copies of one.

    Where the stacks are alike and one of them has copies, those that meet the same matrix are more
    rows, or columns, of one product (keys that are repeated for each of their query heads).
    """
    many = max(copies)
    if min(copies) > 1 or many == 1 or left[:-2] != right[:-2] or len(left) < 3 or left[-3] % many:
        return product_of(left, right)
    apart = [
        (*shape[:-3], shape[-3] // many, many // each, *shape[-2:])
        for shape, each in zip((left, right), copies, strict=True)
    ]
    shape = (*left[:-1], right[-1])
    return replace(product_of(*apart), shape=shape, copies=copies)


def product_of(left: Shape, right: Shape) -> Product:
    """Return the product of two arrays by their shapes, as ``numpy.matmul`` multiplies.

    Raises
    ------
    InputError
        If they are scalars, their depths differ, or they do not broadcast.
    """
    if not left or not right:
        raise InputError("it must multiply matrices, got a scalar")
    a, b = (1, *left) if len(left) == 1 else left, (*right, 1) if len(right) == 1 else right
    rank = max(len(a), len(b)) - 2
    a, b = (1,) * (rank + 2 - len(a)) + a, (1,) * (rank + 2 - len(b)) + b
    stacks = list(zip(a[:-2], b[:-2], strict=True))
    if a[-1] != b[-2] or any(i != j and 1 not in (i, j) for i, j in stacks):
        raise InputError(f"{list(left)} by {list(right)} does not fit")
    both = tuple(axis for axis, (i, j) in enumerate(stacks) if i == j)
    rows = tuple(axis for axis, (i, j) in enumerate(stacks) if i != j and j == 1)
    columns = tuple(axis for axis, (i, j) in enumerate(stacks) if i != j and i == 1)
    stack = tuple(max(i, j) if 0 not in (i, j) else 0 for i, j in stacks)
    whole = (*stack, a[-2], b[-1])
    shape = stack + (() if len(left) == 1 else (a[-2],)) + (() if len(right) == 1 else (b[-1],))
    return Product(
        sizes={
            "B": math.prod(stack[axis] for axis in both),
            "M": math.prod(stack[axis] for axis in rows) * a[-2],
            "N": math.prod(stack[axis] for axis in columns) * b[-1],
            "K": a[-1],
        },
        shape=shape,
        shapes=(a, b, whole),
        axes=(  # an axis of size 1 may stand anywhere
            {"B": both, "M": (*columns, *rows, rank), "K": (rank + 1,)},
            {"B": both, "N": (*rows, *columns, rank + 1), "K": (rank,)},
            {"B": both, "M": (*rows, rank), "N": (*columns, rank + 1)},
        ),
    )


def einsum_of(equation: str, left: Shape, right: Shape) -> Product:
    """Return the product that an Einstein sum of two arrays is.

    A letter of both arrays is a batch where the result has it, else part of the depth; a letter of
    one is of its rows or columns.

    Raises
    ------
    InputError
        If the sum is no product: a letter stands twice in an array, or is summed in one alone.
    """
    text, arrow, made = equation.replace(" ", "").partition("->")
    terms = text.split(",")
    if len(terms) != 2 or "." in text:
        raise InputError(f"its equation must be of two arrays without '...', got {equation!r}")
    a, b = terms
    if not arrow:
        made = "".join(sorted(letter for letter in set(a + b) if (a + b).count(letter) == 1))
    sizes: dict[str, int] = {}
    for term, shape in ((a, left), (b, right)):
        if len(term) != len(shape) or len(set(term)) != len(term):
            raise InputError(f"its equation {equation!r} does not fit an array {list(shape)}")
        for letter, size in zip(term, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise InputError(f"{list(left)} by {list(right)} does not fit {equation!r}")
    kinds = {
        letter: ("B" if letter in made else "K") if letter in a and letter in b
        else "M" if letter in a else "N"
        for letter in dict.fromkeys(a + b)
    }  # fmt: skip
    lost = [letter for letter, kind in kinds.items() if kind in "MN" and letter not in made]
    if lost or len(set(made)) != len(made) or not set(made) <= kinds.keys():
        raise InputError(f"its equation {equation!r} is no product of two matrices")

    def axes(term: str) -> dict[str, Shape]:
        order = {kind: [c for c in kinds if kinds[c] == kind] for kind in "BMNK"}
        return {
            kind: tuple(term.index(letter) for letter in letters if letter in term)
            for kind, letters in order.items()
        }

    whole = tuple(sizes[letter] for letter in made)
    return Product(
        sizes={
            kind: math.prod(sizes[letter] for letter in kinds if kinds[letter] == kind)
            for kind in "BMNK"
        },
        shape=whole,
        shapes=(left, right, whole),
        axes=(axes(a), axes(b), axes(made)),
        of_letters=True,
    )
