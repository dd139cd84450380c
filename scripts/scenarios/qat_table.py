"""What training wins back: the digits CNN quantized after training, and with training.

    python -m sparqsim.scripts.scenarios.qat_table [--seeds N] [--from-data]

For each seed a CNN is trained from scratch in float32. Each format then quantizes all of its
weights and layer inputs: once as it is (PTQ, least-squares scales, one per tensor), once followed
by a few epochs of quantization-aware training that also learn the scales (QAT, LSQ). A float32 net
that gets the same epochs shows what the epochs alone do. A second table does so for pruning.

Writes docs/data/qat.json, then from it the tables in docs/background/training.md and the figure
docs/figures/qat_accuracy.png; ``--from-data`` only draws. Needs torch; some minutes on one core.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np

from sparqsim.base import InputError, output_folder, written_whole
from sparqsim.scripts import train_digits
from sparqsim.scripts.scenarios.frame import open_frame
from sparqsim.workloads import formats, prune
from sparqsim.workloads.models.digits import NETWORKS, load_images, scale_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

DOCS = Path(__file__).resolve().parents[2] / "docs"
BITS = (2, 3, 4, 8)
# Family -> bits -> formats of weights and inputs. flint starts at 3 bits. Signed floats of 2 bits
# have no room for an exponent beside a significand; 4 bits are E2M1, 8 bits E4M3. assumed: splits
GRIDS: dict[str, dict[int, tuple[str, str]]] = {
    "int": {b: (f"int{b}_signed", f"int{b}_unsigned") for b in BITS},
    "pot": {b: (f"pot{b}_signed", f"pot{b}_unsigned") for b in BITS},
    "apot": {b: (f"apot_{b}_signed", f"apot_{b}_unsigned") for b in BITS},
    "flint": {b: (f"flint{b}_signed", f"flint{b}_unsigned") for b in BITS[1:]},
    "float": {
        b: (f"float_e{e}_{b}_signed", f"float_e{e}_{b}_unsigned")
        for b, e in ((3, 2), (4, 2), (8, 4))
    },
}
TRAINING_EPOCHS = 3
# Of .003, .01 and .03 the best on a fifth of the training images set aside, over int2, int3,
# flint3 and pot4.
TRAINING_RATE = 0.03
PRUNED_TO = 0.1  # assumed: about EIE's fully connected layers


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Test accuracy of one compression, one number per seed: before and after training."""

    family: str
    bits: int | None = None
    weights: str
    activations: str
    before: tuple[float, ...]
    after: tuple[float, ...]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that was measured; ``float32`` is trained on like the others."""

    network: str
    test_images: int
    seeds: tuple[int, ...]
    epochs: int
    learning_rate: float
    float32: Row
    quantized: tuple[Row, ...]
    pruned: tuple[Row, ...]
    versions: dict[str, str]


def measure(seeds: Iterable[int]) -> Table:
    """Train and compress one CNN per seed; return the accuracies on the test images."""
    import torch

    from sparqsim.workloads import train

    torch.set_num_threads(1)
    seeds = tuple(seeds)
    images = load_images()
    plain = scale_pixels(images.train_images)
    data = train_digits.shifted(plain, images.train_labels)
    test = scale_pixels(images.test_images), images.test_labels
    nets: list[nn.Module] = []
    for seed in seeds:
        generator = np.random.default_rng(seed)
        net = train.chain(NETWORKS["cnn"], generator)
        rate = train_digits.LEARNING_RATE
        epochs = train_digits.EPOCHS
        train.fit(net, *data, epochs=epochs, learning_rate=rate, generator=generator)
        nets.append(net)

    def compressed(family: str, weights: str, activations: str, bits: int | None = None) -> Row:
        before, after = [], []
        for seed, trained in zip(seeds, nets, strict=True):
            net = copy.deepcopy(trained)
            if bits is not None:
                train.quantize(
                    net,
                    plain,
                    weights=formats.get(weights),
                    activations=formats.get(activations),
                )
            elif family == "2:4":
                train.set_masks(net, train.two_four(net))
            elif family == "unstructured":
                scores = train.magnitudes(net)
                train.set_masks(net, prune.masks(scores, prune.Unstructured(), PRUNED_TO, "global"))
            before.append(train.accuracy(net, *test))
            train.fit(
                net,
                *data,
                epochs=TRAINING_EPOCHS,
                learning_rate=TRAINING_RATE,
                generator=np.random.default_rng([seed, 1]),
            )
            after.append(train.accuracy(net, *test))
        return Row(
            family=family,
            bits=bits,
            weights=weights,
            activations=activations,
            before=tuple(before),
            after=tuple(after),
        )

    return Table(
        network="cnn",
        test_images=len(images.test_labels),
        seeds=seeds,
        epochs=TRAINING_EPOCHS,
        learning_rate=TRAINING_RATE,
        float32=compressed("float32", "float32", "float32"),
        quantized=tuple(
            compressed(family, *names, bits=bits)
            for family, grids in GRIDS.items()
            for bits, names in grids.items()
        ),
        pruned=(
            compressed("2:4", "2 of 4 input channels; conv1 (one channel) dense", "float32"),
            compressed("unstructured", f"{PRUNED_TO:.0%} of all weights, by magnitude", "float32"),
        ),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Those of the libraries that add the floats."""
    import torch

    return {"torch": str(torch.__version__), "numpy": np.__version__}


def _spread(accuracies: tuple[float, ...]) -> str:
    """Mean and, beyond one seed, sample standard deviation, in percent."""
    percent = 100 * np.array(accuracies)
    return f"{percent.mean():.1f}" + (f" ± {percent.std(ddof=1):.1f}" if len(percent) > 1 else "")


def render(table: Table) -> dict[str, str]:
    """Return the Markdown of each table by the name of its place in docs/background/training.md."""
    by_place = {(row.family, row.bits): row for row in table.quantized}
    heads = [f"{bits} bits, {when}" for bits in BITS for when in ("PTQ", "QAT")]
    lines = ["| format | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    for family in GRIDS:
        cells = []
        for bits in BITS:
            row = by_place.get((family, bits))
            cells += [_spread(row.before), _spread(row.after)] if row else ["", ""]
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    quantized = "\n".join(lines)
    lines = ["| | kept weights | before training | after |", "|---|---|--:|--:|"]
    for row in (table.float32, *table.pruned):
        lines.append(
            f"| {row.family} | {'all' if row is table.float32 else row.weights} "
            f"| {_spread(row.before)} | {_spread(row.after)} |"
        )
    facts = (
        f"Test accuracy in percent on {table.test_images} images, mean ± standard deviation over "
        f"{len(table.seeds)} seeds (of initial weights and order of images; one image is "
        f"{100 / table.test_images:.2f}). QAT: {table.epochs} epochs at rate "
        f"{table.learning_rate}. Float32: {_spread(table.float32.before)}, and "
        f"{_spread(table.float32.after)} after the same {table.epochs} epochs."
    )
    return {"facts": facts, "quantized": quantized, "pruned": "\n".join(lines)}


def fill(text: str, parts: dict[str, str]) -> str:
    """Put each part between ``<!-- NAME -->`` and ``<!-- end NAME -->``."""
    for name, part in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise InputError(f"training.md must have one {start.strip()} and one {end}")
        before, rest = text.split(start)
        text = f"{before}{start}{part}\n{end}{rest.split(end)[1]}"
    return text


def draw(table: Table) -> Figure:
    """One panel per width: PTQ (hollow) and QAT (filled) of each format, one dot per seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(BITS))
    families = list(GRIDS)
    float32 = 100 * float(np.mean(table.float32.after))
    for axes, bits in zip(panels, BITS, strict=True):
        axes.axhline(float32, color="0.6", lw=1, zorder=0)
        for row in (row for row in table.quantized if row.bits == bits):
            place = families.index(row.family)
            jitter = np.linspace(-0.09, 0.09, len(table.seeds)) if len(table.seeds) > 1 else 0.0
            for shift, accuracies, fill_colour in (
                (-0.18, row.before, "none"),
                (0.18, row.after, f"C{place}"),
            ):
                axes.scatter(
                    place + shift + jitter,
                    100 * np.array(accuracies),
                    s=22,
                    facecolors=fill_colour,
                    edgecolors=f"C{place}",
                )
        axes.set_xticks(range(len(families)), families)
        axes.set_xlim(-0.6, len(families) - 0.4)
        axes.set_title(f"{bits} bits", loc="left")
        axes.grid(axis="y", lw=0.4, alpha=0.5)
        open_frame(axes)
    panels[0].set_ylabel("test accuracy (%)")
    lows = [100 * min(row.before + row.after) for row in table.quantized if row.bits != BITS[0]]
    panels[0].set_ylim(0, 102)  # 2 bits need a scale of their own
    for axes in panels[1:]:
        axes.set_ylim(np.floor(min(lows)) - 1, 100)
    panels[0].text(len(families) - 0.45, float32 - 1, "float32", ha="right", va="top", color="0.4")
    figure.suptitle(
        "Digits CNN, all weights and inputs quantized: hollow PTQ, filled QAT; one dot per seed",
        x=0.01,
        ha="left",
    )
    return figure


def write(table: Table, docs: Path) -> None:
    """Write the tables into training.md and the figure beside it."""
    page = docs / "background" / "training.md"
    text = fill(page.read_text(), render(table))
    with written_whole(page) as path:
        path.write_text(text)
    with written_whole(output_folder(docs / "figures") / "qat_accuracy.png") as path:
        draw(table).savefig(path, dpi=110, metadata={"Software": None})


def read(path: Path) -> Table:
    """Return the measurements kept in a file.

    Raises
    ------
    InputError
        If it is missing or not what `measure` gives.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Table)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{path} must hold the measured table, but: {error}") from None


@click.command(help=__doc__)
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="How many.")
@click.option("--from-data", is_flag=True, help="Measure nothing; draw docs/data/qat.json.")
@click.option(
    "--docs", type=click.Path(path_type=Path), default=DOCS, help="The folder of the documentation."
)
def command(seeds: int, from_data: bool, docs: Path) -> None:
    data = docs / "data" / "qat.json"
    if not from_data:
        output_folder(data.parent)
        start = time.perf_counter()
        table = measure(range(seeds))
        click.echo(f"measured in {time.perf_counter() - start:.0f} s")
        with written_whole(data) as path:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n")
    table = read(data)
    write(table, docs)
    for part in render(table).values():
        click.echo(f"{part}\n")


if __name__ == "__main__":
    try:
        command()
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
