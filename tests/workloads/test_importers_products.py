"""Is a product of two arrays the batch of matrix products that it is said to be?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparqsim.base import InputError
from sparqsim.workloads.importers.products import product_of

Shape = tuple[int, ...]


@st.composite
def operands(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """Shapes that numpy multiplies: vectors, matrices, stacks that broadcast either way."""
    size = st.integers(1, 3)
    m, k, n = draw(size), draw(size), draw(size)
    stack = [draw(st.sampled_from([(s, s), (s, 1), (1, s)])) for s in draw(st.lists(size))]
    left, right = [i for i, _ in stack], [j for _, j in stack]
    left, right = left[draw(st.integers(0, len(left))) :], right[draw(st.integers(0, len(right))) :]
    a = (k,) if not left and draw(st.booleans()) else (*left, m, k)
    b = (k,) if not right and draw(st.booleans()) else (*right, k, n)
    return a, b


@given(operands())
def test_arranged_operands_multiply_to_the_arranged_result(shapes: tuple[Shape, Shape]) -> None:
    """Whatever broadcasts: B products of [M, K] by [K, N] are numpy's result, in every order."""
    g = np.random.default_rng(0)
    a, b = (g.integers(-9, 9, shape) for shape in shapes)
    product = product_of(*shapes)
    left, right = product.left("BMK")(a), product.right("BNK")(b)
    made = left @ right.swapaxes(1, 2)
    assert np.array_equal(product.result("BMN").undone(made, product.shape), a @ b)
    turned = product.result("BNM").undone(made.swapaxes(1, 2), product.shape)
    assert np.array_equal(turned, a @ b)
    # every element of an operand stands once
    assert left.size == a.size and right.size == b.size
    assert math.prod(product.sizes.values()) == (a @ b).size * shapes[0][-1]


@given(st.booleans(), st.booleans())
def test_transposed_matrices(left: bool, right: bool) -> None:
    """A matrix that comes transposed is the same operand."""
    g = np.random.default_rng(1)
    a, b = g.integers(-9, 9, (2, 3)), g.integers(-9, 9, (3, 5))
    product = product_of(a.shape, b.shape).flipped(left, right)
    x = product.left("BMK")(a.T if left else a)
    y = product.right("BNK")(b.T if right else b)
    made = x @ y.swapaxes(1, 2)
    assert np.array_equal(product.result("BMN").undone(made, product.shape), a @ b)


def test_grouped_query_attention_reads_a_key_once() -> None:
    """Eight query heads to a key head: 4 products of 512 rows, 655,360 elements read."""
    product = product_of((1, 4, 8, 64, 64), (1, 4, 1, 64, 2048))
    assert product.sizes == {"B": 4, "M": 512, "N": 2048, "K": 64}


@pytest.mark.parametrize(
    "left, right", [((2, 3), (4, 5)), ((), (3,)), ((2, 3, 4), (3, 4, 5)), ((3,), ())]
)
def test_what_does_not_multiply_is_refused(left: Shape, right: Shape) -> None:
    """Scalars, unequal depths and stacks that do not broadcast are error messages."""
    with pytest.raises(InputError):
        product_of(left, right)
