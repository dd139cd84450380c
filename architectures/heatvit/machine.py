"""HeatViT as a machine: one layer, an image through a network, or numbers of tokens alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.arrays.datapath import (
    Operand,
    Work,
    integer_operand,
    integer_products,
)
from sparqsim.architectures.arrays.scales import Scalings, tokens_refused
from sparqsim.architectures.heatvit.config import BOARD_W, SUM_BITS, Configuration
from sparqsim.architectures.heatvit.diagram import Diagram
from sparqsim.architectures.heatvit.numbers import Levels, Operands, Pass
from sparqsim.architectures.heatvit.products import (
    Kind,
    Product,
    Selection,
    Step,
    network_steps,
    selector_steps,
)
from sparqsim.architectures.machine import Program
from sparqsim.architectures.operands import Computes
from sparqsim.simulator.energy.tables import Basis
from sparqsim.simulator.report import EnergyPart, Macs
from sparqsim.simulator.timeline import Timeline
from sparqsim.workloads import recipes
from sparqsim.workloads.compress import compress_weight, fitted
from sparqsim.workloads.encoded import EncodedLayer
from sparqsim.workloads.layers import Layer, Linear, MatMul, Model
from sparqsim.workloads.models import vit
from sparqsim.workloads.quantize import QuantizedTensor
from sparqsim.workloads.tokens import TokenSelector
from sparqsim.workloads.vision_transformer import PATCHES, Forward, VisionTransformer, forward

FORMATS = ("int8_signed", "int8_unsigned")  # assumed: 8 bits of either sign, as DSP slices multiply


class HeatViT(Configuration, frozen=True, kw_only=True):
    __doc__ = Configuration.__doc__

    def computes(self, layer: EncodedLayer) -> Computes:
        """8-bit integers of either sign, with zero points."""
        return Computes(
            weights=FORMATS,
            activations=FORMATS,
            zero_points=True,
            no_tokens=tokens_refused(layer),
        )

    # ------------------------------------------------------------------ one layer

    def lower(self, layer: EncodedLayer) -> Program:
        """Multiply, requantize and time one layer; groups and heads go side by side.

        Raises
        ------
        InputError
            If the weights of a cycle do not fit half the weight buffer.
        """
        product = product_of(layer.layer)
        inputs = layer.layer.input_elements
        diagram = Diagram(self, [product], inputs, product.results, dynamic=layer.dynamic)
        scalings = Scalings.of(layer)
        notes = scalings.notes
        if layer.dynamic:
            notes.append(
                f"dynamic ranges: sums of {SUM_BITS} bits wait on the chip until the last of them "
                "is known, and are read again to be scaled"
            )
        if layer.is_outline:
            return self._program(
                diagram, layer.name, layer.source, notes=notes, counted=scalings.counters
            )
        x, w = integer_operand(layer, "activations"), integer_operand(layer, "weights")
        done: list[tuple[NDArray[Any], ...]] = []

        def multiply(
            rows: NDArray[Any], columns: NDArray[Any], x: Operand, w: Operand
        ) -> NDArray[np.integer]:
            done.append((rows, columns, integer_products(rows, columns, x, w)))
            return done[-1][2]

        work = Work(layer, x, w, multiply, SUM_BITS)
        operands = Operands()
        left, right, sums = (np.stack(each) for each in zip(*done, strict=True))
        operands.known[0] = (left, right, sums.astype(np.int64))
        return self._program(
            diagram,
            layer.name,
            layer.source,
            notes=notes,
            operands=operands,
            effectual=work.effectual,
            counted=scalings.counters,
            outputs=work.outputs,
            output_scale=work.output_scale,
            output_zero=work.output_zero,
            verify=work.verify,
        )

    def as_run(self, model: Model) -> Model:
        """A DeiT whose selectors keep the shares of the configuration, if it names any."""
        return vit.pruned(model, self.ratios) if self.keep else model

    def lower_network(self, layers: Sequence[EncodedLayer]) -> Program | None:
        """A network as one program: activations stay on the chip, weights of the next layer come
        while this one multiplies. None where ranges are found in the run.
        """
        if any(layer.dynamic for layer in layers):
            return None
        runs = [layer.layer for layer in layers for _ in range(layer.layer.repeat)]
        steps = _steps(runs)
        results = product_of(runs[-1]).results
        diagram = Diagram(self, steps, runs[0].input_elements, results)
        notes = ["activations stay on the chip; softmax between the products is not in this time"]
        return self._program(diagram, "network", "shapes and formats alone", notes=notes)

    # ------------------------------------------------------------------ a network that drops tokens

    def infer(
        self,
        net: VisionTransformer,
        images: Iterable[NDArray[Any]],
        selectors: dict[int, TokenSelector] | None = None,
        *,
        check: bool = False,
    ) -> Iterator[tuple[Program, Forward]]:
        """Run images through the network, lowering every product met on the way.

        Both operands of a product are codes of the machine's own recipe, weights made once; the
        range of an operand made on the way is its own.

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
        recipe = recipes.get(self.recipe)
        weights: dict[str, QuantizedTensor] = {}

        def weight(which: str, values: NDArray[Any]) -> QuantizedTensor:
            if which not in weights:
                coded = compress_weight(values[0].T, recipe.of("weights", which))
                assert isinstance(coded, QuantizedTensor)
                weights[which] = coded
            return weights[which]

        def made(which: str, values: NDArray[Any]) -> QuantizedTensor:
            return fitted(values, recipe.of("activations", which)).quantize(values)

        for number, patches in enumerate(images):
            done = Pass(check)

            def multiply(which: str, left: Any, right: Any, done: Pass = done) -> Any:
                kind = kind_of(which)
                x = made(which, left)
                if kind == "weights":
                    w = weight(which, right)
                    levels = levels_of(w).T[None]
                else:
                    w = made(which, right)
                    levels = levels_of(w)
                sums = done.multiply(which, kind, levels_of(x), levels)
                return sums.astype(np.float32) * (x.scale * w.scale)

            def scored(block: int, seen: int, left: int, done: Pass = done) -> None:
                done.steps += selector_steps(block, net.heads, seen, left)

            found = forward(net, patches, selectors, multiply=multiply, scored=scored)
            diagram = Diagram(self, done.steps, PATCHES * net.patch.shape[0], len(found.logits))
            program = self._program(
                diagram,
                f"image {number}",
                f"an image through {len(net.blocks)} blocks, {net.width} features",
                notes=[f"tokens of each block: {' '.join(map(str, found.tokens))}"],
                operands=done.operands if check else None,
                effectual=done.effectual if check else None,
                outputs=found.logits,
                verify=done.verify if check else None,
            )
            yield program, found

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
        steps: list[Step] = network_steps(width, tokens, select)
        first, last = (next(s for s in order if isinstance(s, Product)) for order in
                       (steps, steps[::-1]))  # fmt: skip
        diagram = Diagram(self, steps, first.m * first.k, last.results)
        notes = ["timing only", f"tokens of each block: {' '.join(map(str, tokens))}"]
        return self._program(diagram, name, "numbers of tokens alone", notes=notes)

    # ------------------------------------------------------------------ a program

    def _program(
        self,
        diagram: Diagram,
        name: str,
        inputs: str,
        *,
        notes: list[str],
        operands: Operands | None = None,
        effectual: int | None = None,
        counted: Mapping[str, int] | None = None,
        **numbers: Any,
    ) -> Program:
        """The program of a diagram; ``numbers`` are outputs and their check."""
        products, tiles = diagram.products, diagram.tiles
        macs = sum(product.macs for product in products)
        chosen: list[Selection] = diagram.selections
        cycles = sum(tile.cycles for tile in tiles)
        on_selectors = sum(self.cycles(p) for p in products if p.kind == "selector")

        def counters(timeline: Timeline) -> dict[str, int]:
            found = {
                "products": len(products),
                "tiles": len(tiles),
                "engine_cycles": cycles,
                "selector_engine_cycles": on_selectors,
                "selections": len(chosen),
                "tokens_dropped": sum(s.seen - s.left for s in chosen),
            }
            return found | dict(counted or {})

        return Program(
            netlist=diagram.netlist(name, {} if operands is None else operands.actions(tiles)),
            layer=name,
            inputs=inputs,
            macs=Macs(
                dense=macs,
                effectual=macs if effectual is None else effectual,
                padding=cycles * self.multipliers - macs,
            ),
            worker="engine",
            multipliers=self.multipliers,
            account=diagram.account(),
            counters=counters,
            energy=self._energy,
            executed=None if operands is None else operands.executed,
            notes=notes,
            **numbers,
        )

    def _energy(self, timeline: Timeline) -> list[EnergyPart]:
        """The board's power over time; of another engine than was measured nothing is known."""
        given = msgspec.structs.asdict(self)
        changed = [
            name for name, value in msgspec.structs.asdict(type(self)()).items()
            if given[name] != value and name != "keep"
        ]  # fmt: skip
        told = f"{BOARD_W} W published for DeiT-S on the ZCU102 (secondary)"
        if changed:
            why = f"{told}, with one engine; no rule leads to another: {', '.join(changed)}"
            return [EnergyPart(part="board", energy_pj=None, basis=Basis.UNKNOWN, source=why)]
        joules = BOARD_W * timeline.seconds
        return [
            EnergyPart(
                part="board",
                energy_pj=joules * 1e12,
                basis=Basis.ASSUMED,
                source=f"{told}, over time",
            )
        ]


def product_of(layer: Layer) -> Product:
    """A layer as a product: groups of a convolution and heads are heads."""
    gemm = layer.gemm()
    kind: Kind = "activations" if isinstance(layer, MatMul) else "weights"
    return Product(layer.name, gemm.m, gemm.n, gemm.k, gemm.batch, kind)


def _steps(runs: Sequence[Layer]) -> list[Step]:
    """The products of layers, and a selector's decision where its last product is done."""
    steps: list[Step] = []
    for layer, after in itertools.zip_longest(runs, runs[1:]):
        product = product_of(layer)
        if not layer.name.startswith(vit.SELECTOR):
            steps.append(product)
            continue
        steps.append(product._replace(kind="selector"))
        if isinstance(after, Linear) and not after.name.startswith(vit.SELECTOR):
            steps.append(Selection(product.m, after.rows, after.in_features))
    return steps


def kind_of(which: str) -> Kind:
    """What the right operand of a network's product is, by the product's name."""
    if which.endswith(".scores"):
        return "scores"
    return "activations" if which.endswith(".context") else "weights"


def levels_of(tensor: QuantizedTensor) -> Levels:
    """The integers of a tensor without zero points."""
    assert tensor.zero_point is None
    return tensor.integers().astype(np.int32)
