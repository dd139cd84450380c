"""Tokens dropped at run time: must the mapping be made anew?

A vision transformer that drops tokens (HeatViT's selectors, before blocks 4, 7 and 10) meets
another number of them in every image. A mapping is searched for a shape that is known. Three ways
to meet one that is not, for each product of a block of DeiT-S on Bit Fusion, event by event:
*padded*, the graph of all tokens, dropped ones as zeros; *kept*, the tiles found for all tokens, of
which those without a token are left out; *anew*, a mapping searched for the tokens there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sparqsim.architectures.arrays.bitfusion import BitFusion
from sparqsim.architectures.arrays.search import best_mapping
from sparqsim.architectures.arrays.shapes import ConvShape, Mapping
from sparqsim.architectures.machine import run
from sparqsim.scripts.output import PatientBar
from sparqsim.scripts.scenarios.frame import Scenario, lines, panels
from sparqsim.simulator.palette import BLUE, GREEN, ORANGE
from sparqsim.workloads.layers import Layer
from sparqsim.workloads.models.vit import deit_small
from sparqsim.workloads.tokens import tokens_per_block

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOKENS = (197, 160, 138, 120, 97, 80, 68, 48)
WAYS = ("padded", "kept", "anew")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A number of tokens: cycles and DRAM bits of a block each way."""

    tokens: int
    cycles: dict[str, int]
    dram_bits: dict[str, int]


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """A block at each number of tokens; cycles of all blocks with HeatViT's shares of them."""

    rows: list[Row]
    network: dict[str, int]


def block(tokens: int) -> list[Layer]:
    """The products of one block with so many tokens; all blocks are alike."""
    layers = deit_small(tokens=tokens).layers
    first = next(layer.name.partition(".")[0] for layer in layers if "." in layer.name)
    return [layer for layer in layers if layer.name.startswith(f"{first}.")]


def shape_and_mapping(machine: BitFusion, layer: Layer) -> tuple[ConvShape, Mapping]:
    """A layer as tiling sees it, and the best mapping of it."""
    shape = machine.shape_of(layer, 1)
    rules = machine.layer_rules(shape, machine.published_widths(layer))
    found = best_mapping(shape, rules, machine.rates, machine.objective, machine.clock_hz)
    return shape, found


def fitted(mapping: Mapping, shape: ConvShape) -> Mapping:
    """The mapping with tiles no larger than a shape."""
    names = mapping.tile.__struct_fields__
    sizes = {
        name: min(size, extent)
        for name, size, extent in zip(names, mapping.tile.sizes, shape.extents, strict=True)
    }
    return msgspec.structs.replace(mapping, tile=type(mapping.tile)(**sizes))


def time_block(machine: BitFusion, tokens: int, mappings: list[Mapping] | None) -> tuple[int, int]:
    """Cycles and DRAM bits of a block, under given mappings or the best."""
    cycles = bits = 0
    for number, layer in enumerate(block(tokens)):
        mapping = None
        if mappings is not None:
            mapping = fitted(mappings[number], machine.shape_of(layer, 1))
        report = run(machine, machine.plan(layer, mapping=mapping), record="summary").report
        cycles += report.cycles
        dram = report.memory["dram"]
        bits += dram.read_bits + dram.written_bits
    return cycles, bits


def measure(bar: PatientBar) -> Study:
    """Time a block each way at each number of tokens, then the network."""
    machine = BitFusion()
    kept = [shape_and_mapping(machine, layer)[1] for layer in block(TOKENS[0])]
    whole = time_block(machine, TOKENS[0], None)

    def ways(tokens: int) -> dict[str, tuple[int, int]]:
        return {
            "padded": whole,
            "kept": time_block(machine, tokens, kept),
            "anew": time_block(machine, tokens, None),
        }

    rows = []
    for number, tokens in enumerate(TOKENS):
        bar(f"{tokens} tokens", number, len(TOKENS))
        found = ways(tokens)
        rows.append(
            Row(
                tokens=tokens,
                cycles={way: cycles for way, (cycles, _) in found.items()},
                dram_bits={way: bits for way, (_, bits) in found.items()},
            )
        )
    network = dict.fromkeys(WAYS, 0)
    counts = tokens_per_block()
    for tokens in sorted(set(counts)):
        for way, (cycles, _) in ways(tokens).items():
            network[way] += cycles * counts.count(tokens)
    return Study(rows=rows, network=network)


def finding(found: Study) -> str:
    """The paragraph."""
    few = found.rows[-1]
    full = found.rows[0].cycles["padded"]
    total = found.network
    share = total["kept"] / total["anew"] - 1
    return (
        f"Of {found.rows[0].tokens} tokens {few.tokens} left, a block takes "
        f"{full / few.cycles['kept']:.2f} times less time when the tiles found for all tokens are "
        f"kept, {full / few.cycles['anew']:.2f} times less with a mapping of its own, and no less "
        f"as a padded graph. Over DeiT-S with HeatViT's shares of tokens, dropping them gains "
        f"{total['padded'] / total['kept']:.2f} under the kept mapping and "
        f"{total['padded'] / total['anew']:.2f} anew: keeping it costs {100 * share:.2f} % of the "
        f"time, and no search for an image can gain more than that."
    )


def draw(found: Study) -> Figure:
    """Cycles and DRAM traffic of a block over its tokens, each way."""
    figure, axes = panels(2, 9.6)
    tokens = [row.tokens for row in found.rows]
    for panel, field, title in (
        (axes[0], "cycles", "cycles of a block, over all tokens"),
        (axes[1], "dram_bits", "DRAM traffic of a block, over all tokens"),
    ):
        full = getattr(found.rows[0], field)["padded"]
        rows = {way: [getattr(row, field)[way] / full for row in found.rows] for way in WAYS}
        lines(panel, tokens, rows, (ORANGE, GREEN, BLUE))
        panel.plot(tokens, [count / tokens[0] for count in tokens], ":", color="0.5", linewidth=1)
        panel.set_title(f"{title}; dotted: share of tokens", loc="left", fontsize=9)
        panel.set(xlabel="tokens left", ylim=(0, 1.08))
    return figure


SCENARIO = Scenario(
    name="dynamic_graph", title="A dynamic graph against a static mapping", measure=measure,
    finding=finding, draw=draw,
)  # fmt: skip
