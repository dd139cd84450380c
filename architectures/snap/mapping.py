"""Who works where on SNAP: steps, their outputs, kernel taps and bundles, as tables.

A kernel of several rows runs in diagonal mode, anything else in row mode; see :func:`schedule`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.snap.config import Configuration
from sparqsim.simulator.mac import snap as mac
from sparqsim.workloads.layers import Conv2d


def schedule(machine: Configuration, layer: Conv2d) -> tuple[mac.Schedule, int]:
    """Who works where, and how many blocks of output channels a core works on at once.

    A kernel of several rows runs in diagonal mode: a PE row takes an output row (image rows are
    neighbours), one column per kernel row. Otherwise it is row mode: a PE row takes an output
    pixel, each column a slice of the taps and channels. Where there are fewer outputs than PE rows,
    the rows are shared out to several blocks of output channels.
    """
    out_height, out_width = layer.output
    kernel_height, kernel_width = layer.kernel
    bundles = -(-layer.in_channels // layer.groups // machine.bundle_channels)
    if kernel_height > 1:
        at_once = min(machine.rows, out_height)
        down = _dealt(np.arange(out_height), at_once)  # [tiles, rows]
        image, tile, x, row = np.indices((layer.batch, len(down), out_width, at_once))
        positions = _triples(image, down[tile, row], x, idle=down[tile, row] < 0)
        across = _dealt(np.arange(kernel_height), machine.columns)
        turn, s, b, column = np.indices((len(across), kernel_width, bundles, machine.columns))
        items = _triples(across[turn, column], s, b, idle=across[turn, column] < 0)
    else:
        pixels = np.arange(layer.batch * out_height * out_width)
        at_once = min(machine.rows, len(pixels))
        pixel = _dealt(pixels, at_once)
        image, place = np.divmod(pixel, out_height * out_width)
        positions = _triples(image, *np.divmod(place, out_width), idle=pixel < 0)
        tap = _dealt(np.arange(kernel_width * bundles), machine.columns)
        items = _triples(np.zeros_like(tap), *np.divmod(tap, bundles), idle=tap < 0)
    slots_per_core = machine.rows // at_once
    blocks = _blocks(machine, layer, machine.cores * slots_per_core)
    return mac.Schedule(blocks, positions, items), slots_per_core


def _dealt(numbers: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Numbers in rows of ``width``, the last row filled up with -1."""
    filled = np.full(-(-len(numbers) // width) * width, -1, np.int64)
    filled[: len(numbers)] = numbers
    return filled.reshape(-1, width)


def _triples(*parts: NDArray[np.int64], idle: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Three numbers for each place ``[..., width]`` as ``[turns, width, 3]``, -1 where idle."""
    joined = np.where(idle[..., None], -1, np.stack(parts, axis=-1))
    return np.ascontiguousarray(joined.reshape(-1, idle.shape[-1], 3))


def _blocks(machine: Configuration, layer: Conv2d, slots: int) -> NDArray[np.int64]:
    """Output channels in blocks, as even as they come, dealt to the slots in turn."""
    of_group = layer.out_channels // layer.groups
    rounds = -(-layer.out_channels // (slots * machine.kernels_per_step))
    size = min(-(-layer.out_channels // (slots * rounds)), of_group)
    count = -(-of_group // size)
    bounds = np.arange(count + 1) * of_group // count
    dealt = [
        (group, group * of_group + low, group * of_group + high)
        for group in range(layer.groups)
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    dealt += [(0, 0, 0)] * (-len(dealt) % slots)
    return np.array(dealt, np.int64).reshape(-1, slots, 3)
