"""HeatViT: token pruning on an FPGA (Dong et al., HPCA 2023).

One tiled matrix engine does everything: Th heads x (Ti x To) 8-bit multipliers. In an attention
product the Th parts work on different heads; in a linear layer they share the reduction. Before
blocks 4, 7 and 10 a *token selector* scores the tokens - on the same engine - and a small unit
compares the scores with a threshold, moves the kept tokens together and averages the others into
one package token. The class token always stays. Every later product is smaller, and by how much
depends on the image: the run is dynamic, and a batch of images has a spread of times.

    image_dma -> engine -> post -> (next product) engine       weight_dma => engine
                           post -> selector -> (next product) engine

Activations stay on the chip; weights stream from DRAM into a double buffer, the next product's
while this one computes. A product begins when the one before is whole. ``post`` requantizes and
applies GELU or softmax as results come. :meth:`HeatViT.infer` runs an image's forward pass on the
engine's integers and lowers the products it met; :meth:`HeatViT.plan` knows numbers of tokens
alone, which gives the bound of a fixed keep ratio.

Left out: layer norm (on the FPGA's processor in the paper), the polynomial approximations (softmax,
GELU and sigmoid are exact, selectors score in floating point), DRAM latency. Tile sizes are those
of an open reimplementation, not the paper's; so absolute times are ours, and only ratios compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.machine import Figure, Machine, Program
from sparqsim.architectures.tiling import check_positive, check_whole
from sparqsim.base import InputError
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.mac import dense
from sparqsim.simulator.netlist import Actor, Channel, Execute, Netlist, Resource
from sparqsim.simulator.report import EnergyPart, Macs, Memory, Verification, memory_use
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.layers import Conv2d
from sparqsim.workloads.models.vit import BLOCKS, HEAD_WIDTH, PATCH
from sparqsim.workloads.tensors import LayerTensors
from sparqsim.workloads.tokens import TokenSelector
from sparqsim.workloads.vision_transformer import (
    CLASSES,
    PATCHES,
    Forward,
    VisionTransformer,
    forward,
)

KIB = 1024 * 8  # bits
BITS, LARGEST = 8, 127  # published: 8-bit fixed point, symmetric here
BLOCK_RAM_KIB = 4096  # published: 32.1 Mbit of block RAM in the ZCU102's device, rounded
BOARD_W = 10.697  # published (secondary): DeiT-S on the ZCU102
SOFTMAX_PASSES = 3  # assumed: maximum, exponentials with their sum, division
POST_STAGES = 8  # assumed: requantization and look-ups, To results of a head and cycle

EXACT_DEPTH = 2**24 // LARGEST**2  # products that float32 adds exactly

Ints = NDArray[np.int64]


class Product(NamedTuple):
    """A matrix product on the engine: ``heads`` of [m, k] by [k, n]."""

    name: str
    m: int
    n: int
    k: int
    heads: int = 1
    weights: bool = True  # whether the right operand comes from DRAM

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.m * self.n * self.k * self.heads


class Selection(NamedTuple):
    """A selector's decision: tokens seen, and left."""

    seen: int
    left: int


Step = Product | Selection


class _Tile(NamedTuple):
    """What the engine does in a firing: a share of the columns, or of the heads, of a product."""

    product: int
    columns: slice
    heads: slice
    cycles: int
    post: int
    weight_bits: int


class HeatViT(Machine, frozen=True, kw_only=True):
    """Configuration of the engine.

    Attributes
    ----------
    th
        Heads the engine multiplies side by side, or parts of a linear layer's reduction.
    ti
        Inputs of each in a cycle.
    to
        Outputs of each in a cycle.
    clock_hz
        Clock.
    dram_gbytes_per_s
        Of the memory that holds the weights.
    weight_buffer_kib
        Both halves of the weight buffer.
    """

    name: ClassVar[str] = "heatvit"
    title: ClassVar[str] = "HeatViT (HPCA 2023): vision transformer with token selectors, FPGA"

    th: int = 3  # assumed: of an open reimplementation, not the paper's
    ti: int = 8  # assumed: likewise
    to: int = 8  # assumed: likewise
    clock_hz: float = 150e6  # assumed: recalled; a comparison table says 300 MHz
    dram_gbytes_per_s: float = 19.2  # assumed: the ZCU102's 64-bit DDR4-2400
    weight_buffer_kib: int = 256  # assumed: two tiles of 64 columns of DeiT-S's widest product

    def __post_init__(self) -> None:
        check_positive("heatvit", clock_hz=self.clock_hz, dram_gbytes_per_s=self.dram_gbytes_per_s)
        sizes = {name: getattr(self, name) for name in ("th", "ti", "to", "weight_buffer_kib")}
        check_whole("heatvit", **sizes)
        if self.dram_bits_per_cycle < 1:
            raise InputError(
                f"heatvit.dram_gbytes_per_s must move a bit a cycle, got {self.dram_gbytes_per_s!r}"
            )

    @property
    def multipliers(self) -> int:
        """Of the engine."""
        return self.th * self.ti * self.to

    @property
    def dram_bits_per_cycle(self) -> int:
        """Bits of weights that arrive in a cycle."""
        return int(self.dram_gbytes_per_s * 8e9 // self.clock_hz)

    def cycles(self, product: Product) -> int:
        """Cycles of a product on the engine; heads side by side, or a reduction shared."""
        if product.heads > 1:
            inner = -(-product.k // self.ti) * -(-product.heads // self.th)
        else:
            inner = -(-product.k // (self.ti * self.th))
        return product.m * -(-product.n // self.to) * inner

    # ------------------------------------------------------------------ lowering

    def lower(self, tensors: LayerTensors) -> Program:
        """Quantize one layer to 8 bits, multiply and time it.

        Raises
        ------
        InputError
            If the layer is a convolution in groups.
        """
        layer = tensors.layer
        weight = tensors.weight.to_dense() if isinstance(tensors.weight, CSC) else tensors.weight
        activation = np.asarray(tensors.activation)
        if isinstance(layer, Conv2d):
            if layer.groups != 1:
                raise InputError(f"layer {layer.name!r}: heatvit runs convolutions of one group")
            geometry = (layer.kernel, layer.stride, layer.padding, layer.dilation, 1)
            left, x_scale = quantized(dense.unfold(activation, *geometry)[0])
            right, w_scale = quantized(dense.unfold_weights(weight, 1)[0])
        else:
            left, x_scale = quantized(activation)
            right, w_scale = quantized(weight.T)
        work = _Work(check=True)
        sums = work.multiply(layer.name, left[None], right[None], weights=True)[0]
        scale = x_scale * w_scale
        if tensors.bias is not None:
            sums = sums + np.rint(tensors.bias.astype(np.float64) / scale).astype(np.int64)
        outputs = np.maximum(sums, 0) if tensors.relu else sums
        if isinstance(layer, Conv2d):
            outputs = dense.fold_outputs(outputs[None], layer.batch, layer.output)
        return self._program(
            name=layer.name,
            inputs=tensors.source,
            steps=work.steps,
            work=work,
            outputs=outputs,
            scale=scale,
            notes=["weights and activations in 8 bits, one scale a tensor; 32-bit sums"],
        )

    def infer(
        self,
        net: VisionTransformer,
        images: Iterable[NDArray[Any]],
        selectors: dict[int, TokenSelector] | None = None,
        *,
        check: bool = False,
    ) -> Iterator[tuple[Program, Forward]]:
        """Run images through the network, lowering every product met on the way.

        Parameters
        ----------
        net, selectors
            As for :func:`sparqsim.workloads.vision_transformer.forward`.
        images
            Patches [196, 768] each, one image after another.
        check
            Whether every product is also done on the MAC core and compared, and firings can
            execute; else the reference's integers are used, which are the same.
        """
        weights: dict[str, tuple[NDArray[Any], float]] = {}

        def as_weights(which: str, values: NDArray[Any]) -> tuple[NDArray[Any], float]:
            if which not in weights:
                weights[which] = quantized(values)
            return weights[which]

        for number, patches in enumerate(images):
            work = _Work(check=check)

            def multiply(which: str, left: Any, right: Any, work: _Work = work) -> Any:
                attention = which.endswith((".scores", ".context"))
                a, a_scale = quantized(left)
                b, b_scale = quantized(right) if attention else as_weights(which, right)
                sums = work.multiply(which, a, b, weights=not attention)
                return sums.astype(np.float32) * np.float32(a_scale * b_scale)

            def scored(block: int, seen: int, left: int, work: _Work = work) -> None:
                work.steps += selector_steps(block, net.heads, seen, left)

            done = forward(net, patches, selectors, multiply=multiply, scored=scored)
            program = self._program(
                name=f"image {number}",
                inputs=f"an image through {len(net.blocks)} blocks, {net.width} features",
                steps=work.steps,
                work=work if check else None,
                outputs=done.logits,
                scale=1.0,
                notes=[f"tokens of each block: {' '.join(map(str, done.tokens))}"],
            )
            yield program, done

    def plan(
        self, width: int, tokens: Sequence[int], *, select: bool = False, name: str = "tokens"
    ) -> Program:
        """Time a network from the number of tokens in every block.

        Parameters
        ----------
        width : int
            192, 384 or 768 for DeiT-T, -S and -B.
        tokens : sequence of int
            Of each block.
        select : bool
            Whether a selector stands wherever the number falls. Without, tokens vanish for free.
        """
        return self._program(
            name=name,
            inputs="numbers of tokens alone",
            steps=network_steps(width, tokens, select),
            work=None,
            outputs=None,
            scale=1.0,
            notes=["timing only", f"tokens of each block: {' '.join(map(str, tokens))}"],
        )

    def _program(
        self,
        *,
        name: str,
        inputs: str,
        steps: Sequence[Step],
        work: _Work | None,
        outputs: NDArray[Any] | None,
        scale: float,
        notes: list[str],
    ) -> Program:
        products = [step for step in steps if isinstance(step, Product)]
        tiles = self._tiles(products)
        slots = sum(tile.cycles for tile in tiles) * self.multipliers
        macs = sum(product.macs for product in products)
        weight_bits = sum(tile.weight_bits for tile in tiles)
        chosen = [step for step in steps if isinstance(step, Selection)]
        on_selectors = sum(self.cycles(p) for p in products if p.name.startswith("selector"))
        held = max(p.heads * (p.m * p.k + p.m * p.n) for p in products) * BITS
        first, last = products[0], products[-1]

        def counters(timeline: Timeline) -> dict[str, int]:
            return {
                "products": len(products),
                "tiles": len(tiles),
                "macs": macs,
                "engine_cycles": sum(tile.cycles for tile in tiles),
                "selector_engine_cycles": on_selectors,
                "selections": len(chosen),
                "tokens_dropped": sum(s.seen - s.left for s in chosen),
                "weight_bits": weight_bits,
            }

        def memory(timeline: Timeline) -> dict[str, Memory]:
            return {
                "weight_buffer": memory_use(
                    capacity_bits=self.weight_buffer_kib * KIB,
                    used_bits=min(2, len(tiles)) * max(tile.weight_bits for tile in tiles),
                    read_bits=sum(t.cycles for t in tiles) * self.multipliers * BITS,
                    written_bits=weight_bits,
                    seconds=timeline.seconds,
                    source="assumed; a weight a multiplier and cycle is read",
                ),
                "activations": memory_use(
                    capacity_bits=BLOCK_RAM_KIB * KIB,
                    used_bits=held,
                    read_bits=sum(p.heads * p.m * p.k for p in products) * BITS,
                    written_bits=sum(p.heads * p.m * p.n for p in products) * BITS,
                    seconds=timeline.seconds,
                    source="published: block RAM of the ZCU102; operands and results of a product",
                ),
                "dram": memory_use(
                    capacity_bits=0,
                    used_bits=0,
                    read_bits=weight_bits + first.m * first.k * BITS,
                    written_bits=last.m * last.n * BITS,
                    seconds=timeline.seconds,
                    source="no size needed; weights once a product, image and result",
                ),
            }

        def energy(timeline: Timeline) -> list[EnergyPart]:
            return [
                EnergyPart(
                    part="board",
                    energy_pj=BOARD_W * timeline.seconds * 1e12,
                    basis=Basis.ASSUMED,
                    source=f"{BOARD_W} W published for DeiT-S on the ZCU102 (secondary), over time",
                )
            ]

        return Program(
            netlist=self._netlist(name, steps, tiles, work),
            layer=name,
            inputs=inputs,
            macs=Macs(
                dense=macs, effectual=macs if work is None else work.effectual, padding=slots - macs
            ),
            worker="engine",
            multipliers=self.multipliers,
            outputs=outputs,
            output_scale=scale,
            verify=None if work is None else work.verify,
            counters=counters,
            memory=memory,
            energy=energy,
            executed=None if work is None else work.executed,
            notes=notes,
        )

    def _tiles(self, products: Sequence[Product]) -> list[_Tile]:
        """Cut products: linear layers by columns that fit half the buffer, attention by heads."""
        tiles = []
        room = self.weight_buffer_kib * KIB // 2
        for number, p in enumerate(products):
            if p.heads > 1:
                for low in range(0, p.heads, self.th):
                    heads = min(self.th, p.heads - low)
                    part = p._replace(heads=max(heads, 2))  # a part of Th idles for a lone head
                    passes = SOFTMAX_PASSES if p.name.endswith(".scores") else 1
                    bits = heads * p.k * p.n * BITS if p.weights else 0
                    post = passes * p.m * -(-p.n // self.to)
                    tiles.append(
                        _Tile(number, slice(0, p.n), slice(low, low + heads), self.cycles(part),
                              post, bits)
                    )  # fmt: skip
                continue
            wide = room // (p.k * BITS) // self.to * self.to if p.weights else p.n
            if not wide:
                raise InputError(
                    f"{p.name}: {self.to} columns of {p.k} weights must fit half of the weight "
                    f"buffer; enlarge heatvit.weight_buffer_kib from {self.weight_buffer_kib}"
                )
            for low in range(0, p.n, wide):
                columns = slice(low, min(low + wide, p.n))
                part = p._replace(n=columns.stop - low)
                post = p.m * -(-part.n // self.to)
                bits = part.n * p.k * BITS if p.weights else 0
                tiles.append(_Tile(number, columns, slice(0, 1), self.cycles(part), post, bits))
        return tiles

    # ------------------------------------------------------------------ the block diagram

    def _netlist(
        self, name: str, steps: Sequence[Step], tiles: list[_Tile], work: _Work | None
    ) -> Netlist:
        count = len(tiles)
        product = np.array([tile.product for tile in tiles])
        opens = np.append(True, product[1:] != product[:-1])
        closes = np.append(opens[1:], True)
        # behind which products a selector decides
        decided, selections, seen = set(), [], -1
        for step in steps:
            if isinstance(step, Product):
                seen += 1
            else:
                decided.add(seen)
                selections.append(step)
        judged = closes & np.isin(product, list(decided))
        after = opens & np.isin(product - 1, list(decided))
        plain = closes & ~judged
        plain[-1] = False
        follows = opens & ~after
        follows[0] = False
        first, last = (
            next(s for s in order if isinstance(s, Product)) for order in (steps, steps[::-1])
        )
        bits = np.array([tile.weight_bits for tile in tiles])
        streamed = bits > 0
        width = self.dram_bits_per_cycle
        run = {} if work is None else work.actions(tiles)

        def dma(label: str, moved: Any, part: str) -> Actor:
            return Actor(name=label, busy=-(-moved // width), resource="dram", part=part)

        whole = np.zeros(count, np.int64)
        whole[-1] = 1
        actors = [
            dma("image_dma", np.array([first.m * first.k * BITS]), "Input DMA"),
            dma("weight_dma", bits[streamed], "Weight DMA"),
            Actor(
                name="engine",
                busy=[tile.cycles for tile in tiles],
                execute=run.get("engine"),
                part="Matrix engine",
            ),
            Actor(
                name="post",
                busy=[tile.post for tile in tiles],
                latency=[tile.post + POST_STAGES for tile in tiles],
                execute=run.get("post"),
                part="Requantize, GELU, softmax",
            ),
            dma("output_dma", np.array([last.m * last.n * BITS]), "Output DMA"),
        ]
        begin = opens.astype(np.int64)
        begin[1:] = 0
        channels = [
            Channel(name="image", source="image_dma", target="engine", capacity=1, consume=begin),
            Channel(
                name="weights", source="weight_dma", target="engine", capacity=1,
                consume=streamed.astype(np.int64),
            ),
            Channel(name="sums", source="engine", target="post", capacity=2),
            Channel(
                name="result", source="post", target="engine", capacity=1,
                produce=plain.astype(np.int64), consume=follows.astype(np.int64),
            ),
            Channel(
                name="logits", source="post", target="output_dma", capacity=1, produce=whole
            ),
        ]  # fmt: skip
        if selections:
            # A token a cycle is judged; a dropped one is added to the package, To features a cycle
            features = HEAD_WIDTH * max(
                s.heads for s in steps if isinstance(s, Product) and s.name.startswith("selector")
            )
            each = -(-features // self.to)
            judging = [s.seen + (s.seen - s.left) * each for s in selections]
            actors.append(Actor(name="selector", busy=judging, part="Token selector"))
            channels += [
                Channel(
                    name="scores", source="post", target="selector", capacity=1,
                    produce=judged.astype(np.int64),
                ),
                Channel(
                    name="kept", source="selector", target="engine", capacity=1,
                    consume=after.astype(np.int64),
                ),
            ]  # fmt: skip
        return Netlist(actors, channels, [Resource(name="dram")], self.clock_hz, f"HeatViT {name}")

    def datasheet(self) -> list[Figure]:
        """The numbers of this configuration and where they come from."""
        assumed, derived = Basis.ASSUMED, Basis.DERIVED
        reimplemented = "an open reimplementation's choice, not the paper's"
        peak = self.multipliers * self.clock_hz / 1e9
        return [
            Figure("engine", f"{self.th} x {self.ti} x {self.to} MACs", assumed, reimplemented),
            Figure("clock", f"{self.clock_hz / 1e6:g} MHz", assumed, "recalled; disputed"),
            Figure("peak", f"{peak:g} GMAC/s", derived, "MACs x clock"),
            Figure("operands", f"{BITS} bits", Basis.PUBLISHED, "HPCA 2023"),
            Figure("selectors", "before blocks 4, 7, 10", Basis.PUBLISHED, "HPCA 2023"),
            Figure("DRAM", f"{self.dram_gbytes_per_s:g} GB/s", assumed, "ZCU102, DDR4-2400"),
            Figure("weight buffer", f"{self.weight_buffer_kib} KiB", assumed, "not published"),
            Figure("board power", f"{BOARD_W} W", Basis.PUBLISHED, "DeiT-S, secondary source"),
        ]


def selector_steps(block: int, heads: int, seen: int, left: int) -> list[Step]:
    """A selector's products on the engine, then its decision."""
    shapes = TokenSelector.random(heads, HEAD_WIDTH, np.random.default_rng(0)).gemms(seen)
    steps: list[Step] = [
        Product(f"selector{block}.{number}", m, n, k, many)
        for number, (m, n, k, many) in enumerate(shapes)
    ]
    return [*steps, Selection(seen, left)]


def network_steps(width: int, tokens: Sequence[int], select: bool) -> list[Step]:
    """The products of a DeiT whose blocks see these numbers of tokens.

    Raises
    ------
    InputError
        If there is no block, a number is below 1 or rises, or the width is no multiple of 64.
    """
    heads, odd = divmod(width, HEAD_WIDTH)
    if odd or not heads:
        raise InputError(f"width must be a multiple of {HEAD_WIDTH}, got {width}")
    if not tokens or min(tokens) < 1 or (np.diff(tokens) > 0).any():
        raise InputError(f"tokens must be numbers of at least 1 that never rise, got {[*tokens]}")
    steps: list[Step] = [Product("patch_embedding", PATCHES, width, 3 * PATCH**2)]
    before = tokens[0]
    for block, t in enumerate(tokens, 1):
        if select and t < before:
            steps += selector_steps(block, heads, before, t)
        before = t
        name = f"block{block}."
        steps += [
            Product(name + "qkv", t, 3 * width, width),
            Product(name + "scores", t, t, HEAD_WIDTH, heads, weights=False),
            Product(name + "context", t, HEAD_WIDTH, t, heads, weights=False),
            Product(name + "projection", t, width, width),
            Product(name + "fc1", t, 4 * width, width),
            Product(name + "fc2", t, width, 4 * width),
        ]
    return [*steps, Product("head", 1, CLASSES, width)]


def quantized(values: NDArray[Any]) -> tuple[NDArray[np.int32], float]:
    """Symmetric 8-bit integers and the value of one."""
    largest = float(np.abs(values).max(initial=0))
    scale = largest / LARGEST if largest > 0 else 1.0
    return np.rint(values / scale).astype(np.int32), scale


class _Work:
    """Products done on the way, checked against each other, and what firings need to redo them."""

    def __init__(self, check: bool) -> None:
        self.check, self.steps = check, list[Step]()
        self.operands: dict[str, tuple[NDArray[np.int32], NDArray[np.int32], Ints]] = {}
        self.carried: list[Ints] = []
        self.outputs = self.mismatches = self.effectual = 0

    def multiply(
        self, name: str, left: NDArray[np.int32], right: NDArray[np.int32], *, weights: bool
    ) -> Ints:
        """Product of integers [heads, m, k] by [heads, k, n]."""
        heads, m, k = left.shape
        n = right.shape[2]
        self.steps.append(Product(name, m, n, k, heads, weights))
        exact = np.zeros((heads, m, n), np.int64)
        for low in range(0, k, EXACT_DEPTH):
            span = slice(low, low + EXACT_DEPTH)
            parts = left[:, :, span].astype(np.float32), right[:, span].astype(np.float32)
            exact += (parts[0] @ parts[1]).astype(np.int64)
        if not self.check:
            return exact
        sums = np.zeros((heads, m, n), np.int32)
        for head in range(heads):
            dense.gemm(left[head], np.ascontiguousarray(right[head]), sums[head])
            self.effectual += dense.effectual(left[head], right[head])
        self.outputs += sums.size
        self.mismatches += int(np.count_nonzero(sums != exact))
        self.operands[name] = (left, right, sums.astype(np.int64))
        return sums.astype(np.int64)

    def verify(self) -> Verification:
        """Every product on the MAC core beside the same product in floating point."""
        return Verification(
            status="mismatch" if self.mismatches else "exact",
            outputs=self.outputs,
            mismatches=self.mismatches,
            against="every matrix product in floating point (BLAS), exact for these sums",
        )

    def actions(self, tiles: list[_Tile]) -> dict[str, Execute]:
        """Engine and post as they work on tokens; selectors' own products carry nothing."""
        products = [step for step in self.steps if isinstance(step, Product)]

        def engine(lane: int, k: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            if k == 0:
                self.carried = [
                    np.zeros((p.heads, p.m, p.n), np.int64)
                    if p.name in self.operands
                    else np.zeros(0, np.int64)
                    for p in products
                ]
            tile = tiles[k]
            name = products[tile.product].name
            if name not in self.operands:
                return {}
            left, right, _ = self.operands[name]
            part = left[tile.heads].astype(np.int64) @ right[tile.heads, :, tile.columns]
            return {"sums": [(tile, part)]}

        def post(lane: int, k: int, got: dict[str, list[Any]]) -> dict[str, list[Any]]:
            for token in got["sums"]:
                if token is not None:
                    tile, part = token
                    self.carried[tile.product][tile.heads, :, tile.columns] += part
            return {}

        return {"engine": engine, "post": post}

    def executed(self) -> bool:
        """Whether the tokens of the last ``verify="execute"`` run gave the core's sums."""
        products = [step for step in self.steps if isinstance(step, Product)]
        return len(self.carried) == len(products) and all(
            (found == self.operands[p.name][2]).all()
            for found, p in zip(self.carried, products, strict=True)
            if p.name in self.operands
        )


EVERY_BLOCK = (PATCHES + 1,) * BLOCKS
