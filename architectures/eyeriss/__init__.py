"""Eyeriss v1: the row-stationary dense accelerator (Chen et al., ISCA 2016 and JSSC 2017).

12 x 14 processing elements (PEs) share a global buffer (GLB) of 108 KB. A PE holds a *row* of a
filter in its scratchpad and slides it over a row of the input: a one-dimensional convolution. PEs
stacked R high (one a filter row) add their partial sums upwards to a row of the output; e such
columns make e output rows: the R x e *logical set*. Filter rows are shared along rows, input rows
along diagonals. ``r x t`` sets (r on other channels, t on other filters) are placed on the grid; a
set wider than the grid is folded. A PE interleaves p filters and q channels in its scratchpads.

A layer is a sequence of *passes*, each on n images, q r channels, p t filters and e output rows;
partial sums of n images, m filters and e rows wait in the GLB until all channels are done.

    filter_dma -> filter_noc -> ifmap_fill => pe_array ->  drain -> ofmap_dma    (=> every PE)
     ifmap_dma -------------^        | \\-> psum_noc -/   /
                                     \\--> ifmap_noc ----/

The one overhead, and it is structural: *a pass begins with empty scratchpads*. Filters, then the
first window of every input row, are loaded before the first product, and nothing is loaded for the
next pass meanwhile. Then computing, the streaming of inputs and the traffic of partial sums
overlap; the slowest of the three makes the pass.

Zero padding of the input is in no memory: the read port of the GLB inserts it (assumed), and the
networks and PEs carry it like any zero. The paper's own GLB traffic counts it as stored and read
(``padded_glb``).

Zeros save power, not time: a zero input gates the PE's filter read, multiplier and partial sum
update, and activations are run-length coded on their way to and from DRAM. Left out: pooling, the
configuration scan chain (once a layer), the shape of the networks' trees, DRAM latency.
"""

from sparqsim.architectures.eyeriss.config import RowStationary
from sparqsim.architectures.eyeriss.machine import Eyeriss

__all__ = ["Eyeriss", "RowStationary"]
