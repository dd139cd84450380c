"""Train the digits networks that ship with Sparqsim: dense, then pruned by magnitude.

    python -m sparqsim.scripts.train_digits [--folder FOLDER] [--seed N]

Writes the split images and both networks as safetensors and prints the accuracy before and after
pruning. Needs torch and scikit-learn (``pip install 'sparqsim[train]'``); runs a minute on one
core. The same seed, library versions and kind of processor give the same weights.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError, output_folder
from sparqsim.workloads.models.digits import (
    CLASSES,
    DATA,
    NETWORKS,
    Digits,
    Images,
    Metadata,
    save_digits,
    save_images,
    scale_pixels,
)

SPLIT_SEED = 0
TEST_FRACTION = 0.2
# Fraction of weights kept, by layer; all assumed. Fully connected layers are as sparse as those of
# EIE's Table III (4 to 25 %), convolutions about as Han et al. (2015) prune AlexNet's (35 to 84 %).
DENSITIES = {
    "mlp": {"fc1": 0.20, "fc2": 0.10, "fc3": 0.25},
    "cnn": {
        "conv1": 0.80,
        "conv2": 0.40,
        "conv3": 0.35,
        "fc1": 0.06,
        "fc2": 0.12,
        "fc3": 0.30,
    },
}
# Chosen on a fifth of the training images set aside, never on the test images.
EPOCHS, PRUNING_EPOCHS, TUNING_EPOCHS = 12, 8, 8
LEARNING_RATE = 0.05


def split_digits(seed: int = SPLIT_SEED) -> Images:
    """Return scikit-learn's digits, a fifth of each class set aside for testing."""
    try:
        from sklearn.datasets import load_digits as scikit_digits
    except ImportError:
        raise InputError(
            "training the digits needs scikit-learn; pip install 'sparqsim[train]'"
        ) from None

    bunch = scikit_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)
    if not np.array_equal(images, bunch.images):
        raise InputError("scikit-learn's digits are expected to have whole pixels from 0 to 16")
    generator = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(CLASSES):
        members = generator.permutation(np.flatnonzero(labels == digit))
        is_test[members[: round(TEST_FRACTION * len(members))]] = True
    return Images(
        train_images=images[~is_test],
        train_labels=labels[~is_test],
        test_images=images[is_test],
        test_labels=labels[is_test],
    )


def shifted(
    images: NDArray[np.float32], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return images [n, 1, 8, 8] and their copies one pixel left, right, up and down: 5 n."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    corners = ((1, 1), (1, 2), (1, 0), (2, 1), (0, 1))
    copies = [padded[:, :, top : top + 8, left : left + 8] for top, left in corners]
    return np.concatenate(copies), np.tile(labels, len(copies))


def train_network(network: str, images: Images, seed: int) -> tuple[Digits, Digits]:
    """Train one network, prune and fine-tune it; return (dense, pruned)."""
    import torch

    from sparqsim.workloads import train

    torch.set_num_threads(1)  # sums in one order: the same weights on any number of cores
    generator = np.random.default_rng(seed)
    data = shifted(scale_pixels(images.train_images), images.train_labels)
    net = train.chain(NETWORKS[network], generator)
    train.fit(net, *data, epochs=EPOCHS, learning_rate=LEARNING_RATE, generator=generator)
    dense = train.weights_of(net), train.biases_of(net)
    train.prune_gradually(
        net,
        *data,
        DENSITIES[network],
        epochs=PRUNING_EPOCHS + TUNING_EPOCHS,
        pruning_epochs=PRUNING_EPOCHS,
        learning_rate=LEARNING_RATE,
        generator=generator,
    )
    pruned = train.weights_of(net), train.biases_of(net)

    metadata = Metadata(
        network=network,
        seed=seed,
        split_seed=SPLIT_SEED,
        accuracy_dense=0.0,
        accuracy_pruned=0.0,
        densities={n: float(np.count_nonzero(w)) / w.size for n, w in pruned[0].items()},
        recipe=(
            "training images as they are and shifted by a pixel each way; SGD, momentum .9, weight "
            f"decay 1e-4, batches of 64, rate {LEARNING_RATE} falling as a cosine; {EPOCHS} epochs "
            f"dense; {PRUNING_EPOCHS} pruning by magnitude on the cubic schedule, then "
            f"{TUNING_EPOCHS} fine-tuning, on a second cosine"
        ),
        versions={"torch": str(torch.__version__), "numpy": np.__version__},
    )
    both = [
        Digits(
            name=f"digits-{network}",
            pruned=kind is pruned,
            layers=NETWORKS[network],
            weights=kind[0],
            biases=kind[1],
            images=images,
            metadata=metadata,
        )
        for kind in (dense, pruned)
    ]
    # The accuracies are those of the numpy inference that everyone will run, not of torch.
    measured = msgspec.structs.replace(
        metadata, accuracy_dense=both[0].accuracy(), accuracy_pruned=both[1].accuracy()
    )
    return replace(both[0], metadata=measured), replace(both[1], metadata=measured)


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=DATA, help="Where to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and batches.")
def command(folder: Path, seed: int) -> None:
    folder = output_folder(folder)
    images = split_digits()
    save_images(images, folder)
    click.echo(
        f"{len(images.train_labels)} training and {len(images.test_labels)} test images, "
        f"split seed {SPLIT_SEED}"
    )
    for network in NETWORKS:
        dense, pruned = train_network(network, images, seed)
        save_digits(dense, pruned, folder)
        weights = sum(layer.weights for layer in pruned.layers)
        kept = sum(int(np.count_nonzero(w)) for w in pruned.weights.values())
        click.echo(
            f"{pruned.name}: accuracy {dense.metadata.accuracy_dense:.2%} before and "
            f"{pruned.metadata.accuracy_pruned:.2%} after pruning to {kept} of {weights} weights "
            f"({kept / weights:.1%})"
        )


if __name__ == "__main__":
    try:
        command()
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
