"""Operations on quantized numbers as layers: with the codes, scales and zero points of the file.

A layer's weights and inputs are the real numbers that the codes stand for; beside them stand the
codes (:class:`~sparqsim.workloads.importers.Codes`, :class:`~sparqsim.workloads.importers.Range`).
Where the file multiplies bare integers (``ConvInteger``, ``MatMulInteger``) their scale is 1: the
graph multiplies by the scales later. Operators of the domain ``com.microsoft`` are onnxruntime's.

Source: the ONNX operator specification; onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.workloads.formats.integer import Int
from sparqsim.workloads.importers import Codes, Later, Range, Tensors
from sparqsim.workloads.importers.onnx_codes import coded
from sparqsim.workloads.importers.onnx_constants import Constant
from sparqsim.workloads.importers.onnx_convolutions import convolve
from sparqsim.workloads.importers.onnx_file import REAL
from sparqsim.workloads.importers.onnx_graph import Operand, Step
from sparqsim.workloads.importers.onnx_layers import Side, add_product, flat_product
from sparqsim.workloads.importers.onnx_operators import MICROSOFT
from sparqsim.workloads.importers.onnx_site import Site, per_output
from sparqsim.workloads.importers.products import Arrange, product_of
from sparqsim.workloads.layers import Linear

PACKED = 2  # ONNX's number of unsigned bytes
BYTE = (8, False)  # what DynamicQuantizeLinear makes: unsigned, with a zero point


def _inputs(site: Site, count: int) -> Iterator[str]:
    """The names of so many inputs; empty where one is left out."""
    return (site.input(which) for which in range(count))


def weights_of(site: Site, names: tuple[str, str, str], axis: int) -> Constant:
    """Constant codes with constant scales and zero points that a layer takes in."""
    found = coded(site.among.constants, names, site.place, axis)
    if found is None:
        raise site.fail("must have constant weights of codes of up to 16 bits")
    found.take()
    return found


def _side(site: Site, which: int, scale: str, zero: str, axis: int) -> Side:
    """An input of codes as a side of a product."""
    value = site.input(which)
    held = site.is_constant(value)
    weights = weights_of(site, (value, scale, zero), axis) if held else None
    return Side(value, weights, lambda name, arrange: site.codes(name, arrange, scale, zero))


def qlinear_conv(site: Site) -> bool:
    """``QLinearConv``: codes in, codes out, a bias of 32 bits in units of both scales."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (
        site.input(which) for which in range(8)
    )
    weights = weights_of(site, (w, w_scale, w_zero), 0)
    bias = None
    if site.input(8):
        units = site.number(x_scale) * site.vector(w_scale).astype(np.float64)
        bias = site.vector(site.input(8)) * units
    convolve(
        site,
        lambda value, arrange: site.codes(value, arrange, x_scale, x_zero),
        x,
        site.shape(x),
        weights,
        None if bias is None else per_output(bias, weights.shape[0]),
        [w],
        codes=site.output(y_scale, y_zero, site.node.output[0]),
    )
    return True


def conv_integer(site: Site) -> bool:
    """``ConvInteger``: whole numbers, less their zero points."""
    x, w, x_zero, w_zero = _inputs(site, 4)
    convolve(
        site,
        lambda value, arrange: site.codes(value, arrange, "", x_zero),
        x,
        site.shape(x),
        weights_of(site, (w, "", w_zero), 0),
        None,
        [w],
    )
    return True


def qlinear_matmul(site: Site) -> bool:
    """``QLinearMatMul``: codes in, codes out."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (
        site.input(which) for which in range(8)
    )
    sides = (_side(site, 0, a_scale, a_zero, -2), _side(site, 3, b_scale, b_zero, -1))
    codes = site.output(y_scale, y_zero, site.node.output[0])
    add_product(site, product_of(site.shape(a), site.shape(b)), sides, codes=codes)
    return True


def matmul_integer(site: Site) -> bool:
    """``MatMulInteger``: whole numbers, less their zero points."""
    sides = (_side(site, 0, "", site.input(2), -2), _side(site, 1, "", site.input(3), -1))
    shapes = [site.shape(site.input(which)) for which in (0, 1)]
    add_product(site, product_of(*shapes), sides)
    return True


def matmul_integer_to_float(site: Site) -> bool:
    """onnxruntime's ``MatMulIntegerToFloat``: whole numbers, then both scales and a bias."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = _inputs(site, 7)
    if not site.is_constant(a_scale):
        return _opaque_product(site, (b, b_scale, b_zero), BYTE)
    sides = (_side(site, 0, a_scale, a_zero, -2), _side(site, 1, b_scale, b_zero, -1))
    product = product_of(site.shape(a), site.shape(b))
    add_product(site, product, sides, bias=site.vector(bias) if bias else None)
    return True


def _opaque_product(site: Site, weights: tuple[str, str, str], kind: tuple[int, bool]) -> bool:
    """A product whose scales are known in the run alone, inside its operation."""
    left, held = site.shape(site.input(0)), weights_of(site, weights, -1)
    product = product_of(left, held.shape)
    if product.sizes["B"] != 1:
        raise site.fail("multiplies a stack of weights")
    sizes = product.sizes
    layer = Linear(
        name=site.among.name(site.node, [weights[0]]),
        in_features=sizes["K"],
        out_features=sizes["N"],
        rows=sizes["M"],
        bias=False,
    )
    site.closed(layer, held, product.right("BNK", layer.weight_shape), None, weights[0])
    site.among.ranges[layer.name] = Range(*kind, None)
    return True


def dynamic_matmul(site: Site) -> bool:
    """onnxruntime's ``DynamicQuantizeMatMul``: real inputs that it rounds to 8 bits in each run."""
    a, b, b_scale, b_zero, bias = _inputs(site, 5)
    left = Side(
        a,
        None,
        lambda value, arrange: Operand(value, arrange, range=Range(*BYTE, None), finds=True),
    )
    product = product_of(site.shape(a), site.shape(b))
    sides = (left, _side(site, 1, b_scale, b_zero, -1))
    if sides[1].weights is None:
        raise site.fail("must have constant weights")
    add_product(site, product, sides, bias=site.vector(bias) if bias else None)
    return True


def qgemm(site: Site) -> bool:
    """onnxruntime's ``QGemm``: codes in; codes out where a scale is given, else real numbers."""
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = _inputs(site, 9)
    product = flat_product(site, site.shape(a), site.shape(b))
    alpha = site.real("alpha", 1.0)
    along = 0 if site.whole("transB", 0) else 1
    sides = (_side(site, 0, a_scale, a_zero, 0), _side(site, 3, b_scale, b_zero, along))
    bias = None
    if c:
        units = alpha * site.number(a_scale) * site.vector(b_scale).astype(np.float64)
        values = site.vector(c)
        if values.size not in (1, product.sizes["N"]):
            raise site.fail(f"has a C of {values.size} numbers; it must have one an output")
        bias = values * units
    codes = site.output(y_scale, y_zero, site.node.output[0]) if y_scale else None
    add_product(site, product, sides, scale=alpha, bias=bias, codes=codes)
    return True


def matmul_nbits(site: Site) -> bool:
    """onnxruntime's ``MatMulNBits``: weights of 2, 4 or 8 bits in blocks along the reduction.

    Codes lie ``[out, blocks, bytes]``, the lower first in a byte; without zero points they stand
    for what they exceed ``2^(bits - 1)`` by.
    """
    a, packed, scales, zeros, groups, bias = _inputs(site, 6)
    depth, outputs = site.whole("K", 0), site.whole("N", 0)
    bits, block = site.whole("bits", 4), site.whole("block_size", 0)
    if groups:
        raise site.fail("takes its blocks in an order of their own, which is not supported")
    if bits not in (2, 4, 8) or min(depth, outputs, block) < 1:
        raise site.fail(f"must have 2, 4 or 8 bits, K, N and block_size, got {bits} bits")
    constants = site.among.constants
    if not all(name in constants for name in (packed, scales, zeros) if name):
        raise site.fail("must have constant weights, scales and zero points")
    left = site.shape(a)
    if not left or left[-1] != depth:
        raise site.fail(f"must read {depth} inputs a row, got {list(left)}")
    packing = site.among.file.types
    if packing.get(packed) != PACKED or (zeros and packing.get(zeros) not in (PACKED, *REAL)):
        raise site.fail("must have packed bytes for weights and zero points")
    blocks = -(-depth // block)
    sources = [constants[name] for name in (packed, scales, zeros) if name]
    if math.prod(sources[0].shape) * 8 != outputs * blocks * block * bits:
        raise site.fail(f"has weights {list(sources[0].shape)}, which do not fit its K and N")
    if math.prod(sources[1].shape) != outputs * blocks:
        raise site.fail(f"has scales {list(sources[1].shape)}; they must be {[outputs, blocks]}")
    shape = (outputs, depth)

    def wide(each: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(each.reshape(outputs, blocks), block, 1)[:, :depth]

    def zero() -> NDArray[Any]:
        if not zeros:
            return np.broadcast_to(np.float32(1 << bits - 1), shape)
        held = constants[zeros].values()
        if held.dtype.kind == "f" or held.dtype.name == "bfloat16":
            return wide(held.astype(np.float32))
        return wide(unpacked(held.reshape(outputs, -1), bits)[:, :blocks])

    codes = Codes(
        Later(shape, lambda: unpacked(sources[0].values().reshape(outputs, -1), bits)[:, :depth]),
        Later(shape, lambda: wide(sources[1].values().astype(np.float32))),
        Later(shape, zero),
        Int(bits, False),
    )
    held = constants.made_of(sources, Later(shape, codes.values), True, site.place, codes)
    held.take()
    rows = math.prod(left[:-1])
    layer = Linear(
        name=site.among.name(site.node, [packed, bias] if bias else [packed]),
        in_features=depth,
        out_features=outputs,
        rows=rows,
        bias=bool(bias),
    )
    whole = (*left[:-1], outputs)
    step = Step(
        layer.name,
        site.operand(a, Arrange(left, tuple(range(len(left))), (rows, depth))),
        None,
        site.node.output[0],
        Arrange(whole, tuple(range(len(whole))), (rows, outputs)),
        whole,
    )
    tensors = Tensors(held.array, codes=codes).then(None, site.vector(bias) if bias else None)
    site.add(layer, step, tensors, -1, packed)
    return True


def unpacked(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Rows of bytes as codes, the lower first in a byte."""
    found = np.empty((*packed.shape, 8 // bits), np.uint8)
    for place in range(8 // bits):
        found[..., place] = (packed >> (bits * place)) & ((1 << bits) - 1)
    return found.reshape(packed.shape[0], -1)


QUANTIZED_LAYERS: dict[tuple[str, str], Callable[[Site], bool]] = {
    ("", "QLinearConv"): qlinear_conv,
    ("", "ConvInteger"): conv_integer,
    ("", "QLinearMatMul"): qlinear_matmul,
    ("", "MatMulInteger"): matmul_integer,
    (MICROSOFT, "QLinearConv"): qlinear_conv,
    (MICROSOFT, "QGemm"): qgemm,
    (MICROSOFT, "MatMulIntegerToFloat"): matmul_integer_to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): dynamic_matmul,
    (MICROSOFT, "MatMulNBits"): matmul_nbits,
}
