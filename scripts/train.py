"""``sparqsim train``: compress a network by a recipe and train what that broke."""

from __future__ import annotations

from pathlib import Path

import click

from sparqsim.scripts.compress import show_report
from sparqsim.scripts.output import json_option, refuse_folder, write_json


@click.command("train")
@click.argument("work")
@click.option("--recipe", required=True, metavar="FILE|NAME", help="A TOML file or a known name.")
@click.option(
    "--epochs", type=click.IntRange(1, 10_000), default=3, show_default=True,
    help="Times that each training image is seen.",
)  # fmt: skip
@click.option(
    "--learning-rate", type=click.FloatRange(1e-8, 10), metavar="RATE",
    help="Of weights and scales at the start; it falls to 0 as a cosine.  [default: 0.03]",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Of the order of training images.")  # fmt: skip
@click.option(
    "-o", "--out", metavar="DIR", callback=refuse_folder, help="Save the trained network here."
)
@json_option
@click.option("--activations", is_flag=True, help="List every activation, not just the worst.")
def command(
    work: str,
    recipe: str,
    epochs: int,
    learning_rate: float | None,
    seed: int,
    out: str | None,
    json_path: str | None,
    activations: bool,
) -> None:
    """Prune and quantize a network by a recipe, and train it so (quantization-aware training).

    WORK is digits-mlp or digits-cnn: networks with labelled training images. Scales are trained
    with the weights; what is pruned stays zero. Needs torch: pip install 'sparqsim[train]'.
    """
    from sparqsim.workloads import compress, recipes
    from sparqsim.workloads.train_recipe import RATE, train_by_recipe

    made, report, stored = train_by_recipe(
        work,
        recipes.get(recipe),
        epochs=epochs,
        learning_rate=RATE if learning_rate is None else learning_rate,
        seed=seed,
    )
    if out is not None:
        compress.save(Path(out), made, stored)
    if json_path is not None:
        write_json(report, json_path)
    if json_path != "-":
        show_report(report, activations, out)
