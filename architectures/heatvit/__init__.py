"""HeatViT: token pruning on an FPGA (Dong et al., HPCA 2023).

One tiled matrix engine does everything: ``parallel_heads`` x ``parallel_inputs`` x
``parallel_outputs`` 8-bit multipliers. In an attention product its parts work on different heads,
as on different groups of a convolution; in a linear layer they share the reduction. Before blocks
4, 7 and 10 a *token selector* scores the tokens - on the same engine - and a small unit compares
the scores with a threshold, moves the kept tokens together and averages the others into one package
token. The class token always stays. Every later product is smaller, and by how much depends on the
image: the run is dynamic, and a batch of images has a spread of times.

    image_dma -> engine -> post -> (next product) engine       weight_dma => engine
                           post -> selector -> (next product) engine
                           post -> rescale -> output_dma        (ranges found in the run)

Activations stay on the chip; weights stream from DRAM into a double buffer, the next product's
while this one computes. A product begins when the one before is whole. ``post`` requantizes and
applies GELU or softmax as results come. Where ranges are found in the run, sums of 32 bits wait in
the activation memory until the last of them is known, and are read again and scaled by ``rescale``.

:meth:`HeatViT.lower` runs one encoded layer. :meth:`HeatViT.infer` runs an image through a network,
each product on codes made by the machine's own recipe, and lowers the products it met;
:meth:`HeatViT.plan` knows numbers of tokens alone, which gives the bound of a fixed keep ratio.

Left out: layer norm (on the FPGA's processor in the paper), the polynomial approximations (softmax,
GELU and sigmoid are exact, selectors score in floating point), DRAM latency. Tile sizes are those
of an open reimplementation, not the paper's; so absolute times are ours, and only ratios compare.
"""

from sparqsim.architectures.heatvit.machine import HeatViT
from sparqsim.architectures.heatvit.products import EVERY_BLOCK, Product, Selection, network_steps

__all__ = ["EVERY_BLOCK", "HeatViT", "Product", "Selection", "network_steps"]
