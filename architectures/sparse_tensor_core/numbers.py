"""A layer multiplied on the MAC core, tile by tile where asked, and what it is checked against.

Sums are accumulators of 32 bits, float or integer. The epilogue scales float sums, adds the bias,
applies ReLU and stores floats of 16 bits as such, fp8's as bf16 (TF32's sums stay fp32); integer
sums leave as they are, bias and ReLU included, for scaling them is the next kernel's. Asymmetric
activations are exact: ``sum q_w (q_x - Z) = sum q_w q_x - Z sum q_w``, the second term known ahead
and in the bias.

The checks share nothing with this road: a convolution that never unfolds, in float64, within the
proven bound of every float sum; and for a sample the block multiply-add written for arrays, over
decoded rows, bit by bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.sparse_tensor_core.config import STORED
from sparqsim.architectures.sparse_tensor_core.cores import TensorCores
from sparqsim.architectures.sparse_tensor_core.matrices import encode, matrices
from sparqsim.architectures.sparse_tensor_core.plan import Plan
from sparqsim.simulator.mac import dense
from sparqsim.simulator.mac import sparse_tensor_core as mac
from sparqsim.simulator.netlist import Execute
from sparqsim.simulator.report import Verification
from sparqsim.workloads import formats
from sparqsim.workloads.encoded import (
    Coded,
    EncodedLayer,
    as_convolution,
    as_image,
    as_kernels,
    as_output,
)
from sparqsim.workloads.layers import Conv2d

SAMPLED = 4096  # float outputs that are checked bit by bit
AT_ONCE = 1 << 21  # elements of their rows that are held at a time
LARGEST_BIAS = 2**31 - 1
FP16_INFINITE = 65520.0  # from here on fp16 rounds to infinity
# Of what is stored: half a unit in the last place, relative and of the least numbers.
HALF_ULP = {"fp16": (2.0**-11, 2.0**-25), "bf16": (2.0**-8, 2.0**-134), "fp32": (0.0, 0.0)}


class Product:
    """A layer's products, computed.

    Parameters
    ----------
    plan
        How they are cut.
    layer
        In a format of the tensor cores.

    Attributes
    ----------
    sums : int32 or float32 [products, columns, rows]
        Accumulators.
    outputs : array in the layer's output shape
        What the epilogue stores.
    output_scale : number or array that goes with it
        Real value of an output of 1.
    effectual : int
        Products of two operands that are not zero.
    """

    def __init__(self, plan: Plan, layer: EncodedLayer) -> None:
        assert isinstance(layer.weight, Coded) and isinstance(layer.activation, Coded)
        self.plan, self.layer = plan, layer
        self.cores: TensorCores = plan.cores
        self.integers = plan.cores.kind.integers
        self.conv = as_convolution(layer.layer)
        self.zero = int(layer.activation.zero_point[0])
        rows, columns = matrices(layer, plan.cores.sparsity, plan.cores.kind)
        self.effectual = sum(
            dense.effectual(x != self.zero, w.T != 0)
            for x, w in zip(columns, rows, strict=True)
        )  # fmt: skip
        self.of_weights = rows.sum(axis=2)  # by output channel
        depth = plan.tiling.steps * plan.tiling.splits * plan.tiling.step  # whole steps
        around = ((0, 0), (0, 0), (0, depth - rows.shape[2]))
        self.columns = np.pad(columns, around)
        kept = [encode(one, plan.cores.sparsity) for one in np.pad(rows, around)]
        self.values = np.stack([values for values, _ in kept])
        self.positions = np.stack([positions for _, positions in kept])
        self.scale = layer.weight.scale * layer.activation.scale  # of a sum, one or by channel
        self.sums = self._multiplied()
        self.outputs = as_output(layer.layer, self._folded(self._epilogue()))
        self.run_parts: NDArray[Any] = np.zeros(
            (plan.tiling.splits, *self.sums.shape), self.sums.dtype
        )

    # ------------------------------------------------------------------ the datapath

    def _empty(self, columns: int, rows: int) -> NDArray[Any]:
        return np.zeros((columns, rows), np.int32 if self.integers else np.float32)

    def step(
        self, product: int, rows: slice, columns: slice, step: int, sums: NDArray[Any]
    ) -> None:
        """Add one step of the depth to the sums [columns, rows] of a part of the output."""
        cores, size = self.cores, self.plan.tiling.step
        kept, group = cores.sparsity.kept, cores.sparsity.group
        stored = slice(step * size // group * kept, (step + 1) * size // group * kept)
        deep = slice(step * size, (step + 1) * size)
        values = np.ascontiguousarray(self.values[product, rows, stored])
        positions = np.ascontiguousarray(self.positions[product, rows, stored])
        right = np.ascontiguousarray(self.columns[product, columns, deep])
        if self.integers:
            mac.multiply_integers(values, positions, kept, group, right, sums)
        else:
            mac.multiply_floats(
                values, positions, kept, group, right, cores.kind.least, cores.block,
                cores.fraction_bits, cores.kind.sum_bits, sums,
            )  # fmt: skip

    def joined(self, total: NDArray[Any], part: NDArray[Any]) -> NDArray[Any]:
        """The sum of two parts of the depth: wrapping, or rounded to fp32."""
        if self.integers:
            return dense.wrap(total.astype(np.int64) + part).astype(np.int32)
        return (total + part).astype(np.float32)

    def _multiplied(self) -> NDArray[Any]:
        rows, columns, tiling = self.values.shape[1], self.columns.shape[1], self.plan.tiling
        sums = []
        for product in range(len(self.values)):
            total = self._empty(columns, rows)
            for split in range(tiling.splits):
                part = self._empty(columns, rows)
                for step in range(tiling.steps):
                    at = split * tiling.steps + step
                    self.step(product, slice(0, rows), slice(0, columns), at, part)
                total = part if split == 0 else self.joined(total, part)
            sums.append(total)
        return np.stack(sums)

    def _by_product(self, channels: NDArray[Any]) -> NDArray[Any]:
        """One number, or one a channel, beside sums: [products or 1, 1, rows or 1]."""
        return channels.reshape(1 if len(channels) == 1 else len(self.values), 1, -1)

    @property
    def bias(self) -> NDArray[Any]:
        """Beside sums: whole units of a sum, zero points included; or fp32."""
        bias = self._by_product(self.layer.bias)
        if not self.integers:
            return bias.astype(np.float32)
        units = np.clip(np.rint(bias / self._by_product(self.scale)), -LARGEST_BIAS, LARGEST_BIAS)
        return units.astype(np.int64) - self.zero * self.of_weights[:, None]

    def _epilogue(self) -> NDArray[Any]:
        """What is stored of the sums."""
        if self.integers:
            found = dense.wrap(self.sums + self.bias).astype(np.int32)
            return np.maximum(found, 0) if self.layer.relu else found
        found = self.sums * self._by_product(self.scale).astype(np.float32) + self.bias
        found = np.maximum(found, np.float32(0)) if self.layer.relu else found
        stored = STORED[self.cores.dtype]
        if stored == "bf16":
            return formats.get("bfloat16").round(found).astype(np.float32)
        with np.errstate(over="ignore"):
            return found.astype(np.float16 if stored == "fp16" else np.float32)

    def _folded(self, sums: NDArray[Any]) -> NDArray[Any]:
        return dense.fold_outputs(sums, self.conv.batch, self.conv.output)

    @property
    def output_scale(self) -> Any:
        """Real value of an output of 1."""
        if not self.integers:
            return 1.0
        if len(self.scale) == 1:
            return float(self.scale[0])
        return self.scale.reshape((-1, 1, 1) if isinstance(self.layer.layer, Conv2d) else (-1,))

    @property
    def infinite(self) -> int:
        """Outputs that exceed the format they are stored in."""
        return int(self.outputs.size - np.isfinite(self.outputs).sum())

    # ------------------------------------------------------------------ the check

    def verify(self) -> Verification:
        """Compare the outputs with a convolution of the decoded operands, and a sample of sums."""
        wrong, against = self._wrong_integers() if self.integers else self._wrong_floats()
        return Verification(
            status="mismatch" if wrong.any() else "exact",
            outputs=wrong.size,
            mismatches=int(np.count_nonzero(wrong)),
            against=against,
        )

    def _decoded(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Image and kernels in levels, counted from zero."""
        layer = self.layer
        assert isinstance(layer.weight, Coded) and isinstance(layer.activation, Coded)
        image = as_image(layer.layer, layer.activation.levels()).astype(np.float64) - self.zero
        return image, as_kernels(layer.layer, layer.weight.levels()).astype(np.float64)

    @property
    def _geometry(self) -> tuple[Any, ...]:
        return self.conv.stride, self.conv.padding, self.conv.dilation, self.conv.groups

    def _channel(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(-1, 1, 1)

    def _wrong_integers(self) -> tuple[NDArray[np.bool_], str]:
        exact = dense.convolve_levels(*self._decoded(), *self._geometry).astype(np.int64)
        units = np.rint(self._channel(self.layer.bias) / self._channel(self.scale))
        expected = exact + np.clip(units, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int64)
        expected = (expected + 2**31) % 2**32 - 2**31
        if self.layer.relu:
            expected = np.where(expected > 0, expected, 0)
        wrong = as_output(self.layer.layer, expected) != self.outputs
        return wrong, "tap-by-tap convolution of the decoded integers, exact, wrapped at 32 bits"

    def _wrong_floats(self) -> tuple[NDArray[np.bool_], str]:
        image, kernels = self._decoded()
        exact = convolve(image, kernels, *self._geometry)
        bound = self.tolerance(image, kernels)
        sums = self._folded(self.sums)
        wrong = np.abs(sums - exact) > bound
        scale, bias = self._channel(self.scale), self._channel(self.layer.bias)
        real = scale * exact + bias
        # The epilogue's roundings: scale, bias, product and sum in fp32; then what is stored.
        far = scale * (np.abs(exact) + bound) + np.abs(bias)
        slack = scale * bound + 2.0**-22 * far + 2.0**-148
        real = np.where(real > 0, real, 0) if self.layer.relu else real
        relative, absolute = HALF_ULP[STORED[self.cores.dtype]]
        slack = slack + relative * (np.abs(real) + slack) + absolute
        real, slack = (as_output(self.layer.layer, each) for each in (real, slack))
        stored = self.outputs.astype(np.float64)
        off = ~(np.abs(stored - real) <= slack)
        if STORED[self.cores.dtype] == "fp16":
            off &= ~(np.isinf(stored) & (np.abs(real) + slack >= FP16_INFINITE))
        wrong = as_output(self.layer.layer, wrong) | off
        picked = self._sampled_mismatches(image, kernels, sums)
        marked = np.zeros(sums.size, bool)
        marked[picked] = True
        wrong |= as_output(self.layer.layer, marked.reshape(sums.shape))
        return wrong, (
            "tap-by-tap convolution of the decoded floats in float64, within the error bound; "
            f"{min(SAMPLED, sums.size)} sums also bit by bit with the block multiply-add over "
            "decoded rows"
        )

    def tolerance(
        self, image: NDArray[np.float64], kernels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The error bound of each float sum [batch, out channels, oh, ow]."""
        cores, tiling, floor = self.cores, self.plan.tiling, 2.0**self.cores.kind.least
        large = [np.where(each != 0, np.maximum(np.abs(each), floor), 0) for each in
                 (image, kernels)]  # fmt: skip
        kept = tiling.step // cores.sparsity.group * cores.sparsity.kept
        blocks = tiling.steps * tiling.splits * -(-kept // cores.block) + tiling.splits
        return mac.error_bound(
            convolve(large[0], large[1], *self._geometry), blocks * cores.block, cores.block,
            cores.fraction_bits, cores.kind.sum_bits,
        )  # fmt: skip

    def _sampled_mismatches(
        self, image: NDArray[np.float64], kernels: NDArray[np.float64], sums: NDArray[Any]
    ) -> NDArray[np.intp]:
        """Which of a sample of sums [batch, out, oh, ow] differ, as flat places.

        Rows are walked group by group; positions come from the non-zeros themselves, not from the
        metadata, and all sums of a share of the sample go through each block at once.
        """
        rng = np.random.default_rng(0)
        picked = rng.choice(sums.size, min(SAMPLED, sums.size), replace=False)
        each = max(1, AT_ONCE // self.columns.shape[2])
        top, left, bottom, right = self.conv.padding
        image = np.pad(image, ((0, 0), (0, 0), (top, bottom), (left, right)))
        found = []
        for low in range(0, len(picked), each):
            share = picked[low : low + each]
            place = np.unravel_index(share, sums.shape)
            again = self._again(*self._rows_of(image, kernels, *place))
            found.append(share[again != sums[place]])
        return np.concatenate(found)

    def _rows_of(
        self, image: NDArray[np.float64], kernels: NDArray[np.float64], batch: NDArray[np.intp],
        out: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
        """Weights and activations of some outputs [outputs, whole steps of the depth]."""
        conv, depth = self.conv, self.columns.shape[2]
        channels = kernels.shape[1]
        group = out // (conv.out_channels // conv.groups)
        rows = [
            at[:, None] * step + np.arange(taps) * apart
            for at, step, taps, apart in zip(
                (y, x), conv.stride, conv.kernel, conv.dilation, strict=True
            )
        ]
        seen = image[
            batch[:, None, None, None],
            (group[:, None] * channels + np.arange(channels))[:, None, None, :],
            rows[0][:, :, None, None],
            rows[1][:, None, :, None],
        ]
        weights = np.moveaxis(kernels[out], 1, -1)
        taps = conv.kernel[0] * conv.kernel[1]
        found = []
        for array in (weights, seen):
            room = np.zeros((len(out), depth))
            wide = self.plan.shape.depth // taps  # channels padded to whole groups
            padded = np.zeros((len(out), taps, wide))
            padded[..., :channels] = array.reshape(len(out), taps, channels)
            room[:, : taps * wide] = padded.reshape(len(out), -1)
            found.append(room)
        return found[0], found[1]

    def _again(
        self, weights: NDArray[np.float64], columns: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Sums of rows, block after block."""
        cores, tiling, sparsity = self.cores, self.plan.tiling, self.cores.sparsity
        count = len(weights)
        units = weights.reshape(count, -1, sparsity.m, sparsity.unit)
        # Kept first, in their order; short groups are filled with zeros, which change nothing
        # but the block a later value falls into - so there are always as many a group.
        order = kept_places(np.abs(units).sum(axis=-1) != 0, sparsity.n)
        at = (np.arange(units.shape[1])[:, None] * sparsity.m + order) * sparsity.unit
        at = (at[..., None] + np.arange(sparsity.unit)).reshape(count, -1)
        weights = np.take_along_axis(weights, at, axis=1)
        columns = np.take_along_axis(columns, at, axis=1)
        stored = tiling.step // sparsity.group * sparsity.kept
        total = np.zeros(count, np.float32)
        for split in range(tiling.splits):
            part = np.zeros(count)
            for step in range(tiling.steps):
                low = (split * tiling.steps + step) * stored
                for first in range(low, low + stored, cores.block):
                    span = slice(first, min(first + cores.block, low + stored))
                    part = mac.add_block(
                        part, weights[:, span], columns[:, span], cores.kind.least,
                        cores.fraction_bits, cores.kind.sum_bits,
                    )  # fmt: skip
            total = part.astype(np.float32) if split == 0 else total + part.astype(np.float32)
        return total

    # ------------------------------------------------------------------ execution

    def actions(self) -> dict[str, Execute]:
        """What each actor does with a token, for ``verify="execute"``; a token is (tile, step)."""
        plan, steps = self.plan, self.plan.tiling.steps
        parts: dict[int, NDArray[Any]] = {}
        made: dict[str, Execute] = {}

        def issue(suffix: str, first: int) -> Execute:
            def act(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
                if firing == 0 and first == 0 and lane == 0:
                    self.run_parts[:] = 0
                wave, step = divmod(firing, steps)
                token = (wave * plan.lanes + first + lane, step)
                starts = step % plan.fetch_steps == 0
                return {
                    f"asked{suffix}": [token],
                    f"stages{suffix}": [token],
                    f"misses{suffix}": [token] * starts,
                }

            return act

        def passed(source: str, target: str) -> Execute:
            return lambda lane, firing, got: {target: got[source]}

        def multiply(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            arrived = [token for name, values in got.items() if "arrived" in name
                       for token in values]  # fmt: skip
            last = firing % steps == steps - 1
            if not arrived:
                return {"sums": [None] * last}
            tile, step = arrived[0]
            product, split, rows, columns = self._place(tile)
            if step == 0:
                width = columns.stop - columns.start
                parts[lane] = self._empty(width, rows.stop - rows.start)
            self.step(product, rows, columns, split * steps + step, parts[lane])
            return {"sums": [(tile, parts[lane])] * last}

        def epilogue(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            bank = plan.banks[-1] if lane >= plan.banks[-1].first else plan.banks[0]
            return {f"output{bank.suffix}": got["sums"] * (firing < bank.tiles)}

        def store(suffix: str) -> Execute:
            def act(lane: int, firing: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
                for tile, part in got[f"output{suffix}"]:
                    product, split, rows, columns = self._place(tile)
                    self.run_parts[split, product, columns, rows] = part
                return {}

            return act

        for bank in plan.banks:
            x = bank.suffix
            made[f"issue{x}"] = issue(x, bank.first)
            made[f"l2_read{x}"] = passed(f"asked{x}", f"sectors{x}")
            made[f"sm_port{x}"] = passed(f"sectors{x}", f"arrived{x}")
            made[f"store{x}"] = store(x)
        return made | {"mma": multiply, "epilogue": epilogue}

    def _place(self, tile: int) -> tuple[int, int, slice, slice]:
        product, split, row, column = (int(v) for v in self.plan.order[tile])
        rows, columns = self.plan.tiling.rows, self.plan.tiling.columns
        return (
            product,
            split,
            slice(row * rows, min((row + 1) * rows, self.plan.shape.rows)),
            slice(column * columns, min((column + 1) * columns, self.plan.shape.columns)),
        )

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the kernel's sums.

        Parts of the depth are added in their order, as the library's semaphores see to.
        """
        total = self.run_parts[0]
        for part in self.run_parts[1:]:
            total = self.joined(total, part)
        return bool((total == self.sums).all())


def kept_places(filled: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """The ``count`` places of each group [..., m] that are stored, ascending.

    All non-zeros; then, of the last ``count`` places, the lowest free ones, which always suffice.
    """
    m = filled.shape[-1]
    free = ~filled & (np.arange(m) >= m - count)
    lacking = count - np.count_nonzero(filled, axis=-1)[..., None]
    stored = filled | (free & (np.cumsum(free, axis=-1, dtype=np.int16) <= lacking))
    return np.nonzero(stored)[-1].reshape(*filled.shape[:-1], count)


def convolve(
    image: NDArray[np.float64],
    kernels: NDArray[np.float64],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.float64]:
    """A convolution in float64, tap by tap: ``[batch, out channels, oh, ow]``."""
    top, left, bottom, right = padding
    padded = np.pad(image, ((0, 0), (0, 0), (top, bottom), (left, right)))
    taps = kernels.reshape(groups, -1, *kernels.shape[1:])
    high, wide = (
        (padded.shape[2 + axis] - dilation[axis] * (kernels.shape[2 + axis] - 1) - 1)
        // stride[axis] + 1 for axis in range(2)
    )  # fmt: skip
    sums = np.zeros((len(image), groups, taps.shape[1], high * wide))
    for row in range(kernels.shape[2]):
        for column in range(kernels.shape[3]):
            seen = padded[:, :, row * dilation[0] :, column * dilation[1] :]
            seen = seen[:, :, :: stride[0], :: stride[1]][:, :, :high, :wide]
            seen = seen.reshape(len(image), groups, -1, high * wide)
            sums += taps[:, :, :, row, column] @ seen
    return sums.reshape(len(image), -1, high, wide)
