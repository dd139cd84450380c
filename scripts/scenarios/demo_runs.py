"""What the demonstration runs and prints; see :mod:`sparqsim.scripts.scenarios.demo`."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparqsim.architectures.compare import compare, joined
from sparqsim.architectures.eie import EIE
from sparqsim.architectures.machine import Result, run
from sparqsim.architectures.registry import get_machine
from sparqsim.base import output_folder
from sparqsim.scripts.compare import show_comparison
from sparqsim.scripts.output import PatientBar, console, table
from sparqsim.scripts.show import show
from sparqsim.simulator.comparison import ComparisonReport
from sparqsim.simulator.pages import comparison_page, layer_page, write
from sparqsim.simulator.plots import save_figures
from sparqsim.simulator.trace import write_trace
from sparqsim.workloads.layers import Linear
from sparqsim.workloads.models import get_layer
from sparqsim.workloads.models.digits import Digits, load_digits
from sparqsim.workloads.tensors import LayerTensors, synthetic, with_rows
from sparqsim.workloads.work import load

MACHINES = ("bitfusion", "ant", "olive", "sparse-tensor-core")


@dataclass(frozen=True)
class LayerRun:
    """One layer's run, the fractions of its weights and inputs that are not zero, its batch."""

    result: Result
    weight_density: float
    activation_density: float
    images: int


@dataclass(frozen=True)
class NetworkRun:
    """The fully connected layers of a digits network on EIE, and the accuracies."""

    network: str
    layers: list[LayerRun]
    dense_accuracy: float
    pruned_accuracy: float
    eie_accuracy: float


def run_network(machine: EIE, network: str, images: int | None = None) -> NetworkRun:
    """Run the fully connected layers of a pruned digits network, one feeding the next.

    Convolutions, which EIE does not do, are computed in float.
    """
    digits: Digits = load_digits(network)
    pictures = digits.images.test_images[:images]
    labels = digits.images.test_labels[: len(pictures)]
    inputs = digits.activations(pictures)
    layers = [layer for layer in digits.layers if isinstance(layer, Linear)]
    values: NDArray[np.float64] = inputs[layers[0].name].astype(np.float64)
    done = []
    for layer in layers:
        tensors = LayerTensors(
            layer=with_rows(layer, len(pictures)),
            weight=digits.weights[layer.name],
            activation=values,
            bias=digits.biases[layer.name],
            source=f"{digits.name}: trained weights, {len(pictures)} test images",
            relu=layer is not layers[-1],
            pruned=True,
        )
        result = run(machine, tensors)
        done.append(
            LayerRun(
                result=result,
                weight_density=tensors.sparse_weight.density,
                activation_density=float(np.mean(values != 0)),
                images=len(pictures),
            )
        )
        outputs = result.program.values()
        assert outputs is not None
        values = outputs

    def right(logits: NDArray[np.floating]) -> float:
        return float(np.mean(logits.argmax(axis=1) == labels))

    return NetworkRun(
        network=digits.name,
        layers=done,
        dense_accuracy=right(load_digits(network, pruned=False).forward(pictures)),
        pruned_accuracy=right(digits.forward(pictures)),
        eie_accuracy=right(values),
    )


def print_networks(runs: list[NetworkRun]) -> None:
    """The layers of the digits networks on EIE, and the accuracies."""
    layers = table(
        "Trained and pruned digits networks on EIE, all test images",
        ("layer",),
        ("weights kept", "inputs not 0", "cycles", "us/image", "balance", "MACs used", "verified"),
        "balance: entries over PEs over cycles; MACs used: effectual MACs over PEs and cycles",
    )
    for each in runs:
        for layer in each.layers:
            report = layer.result.report
            verified = "yes" if report.verification.status == "exact" else "NO"
            layers.add_row(
                f"{each.network}/{report.layer}",
                f"{100 * layer.weight_density:.1f} %",
                f"{100 * layer.activation_density:.1f} %",
                f"{report.cycles:,}",
                f"{1e6 * report.seconds / layer.images:.3f}",
                f"{100 * report.load_balance.efficiency:.0f} %",
                f"{100 * report.utilization['multipliers']:.0f} %",
                f"{verified} ({report.verification.outputs:,})",
            )
    screen = console()
    screen.print(layers)
    accuracy = table("Accuracy on the test images", ("network",), ("dense", "pruned", "on EIE"))
    for each in runs:
        accuracy.add_row(
            each.network,
            f"{100 * each.dense_accuracy:.2f} %",
            f"{100 * each.pruned_accuracy:.2f} %",
            f"{100 * each.eie_accuracy:.2f} %",
        )
    screen.print(accuracy)


def compared() -> ComparisonReport:
    """The digits CNN and ResNet-18 on four machines."""
    machines = {name: get_machine(name)() for name in MACHINES}
    digits = compare([load("digits-cnn")], machines, paths=True)
    resnet = compare([load("resnet18", numbers=False)], machines, paths=True, verify=False)
    return joined([digits, resnet])


def demonstrate(out: str) -> None:
    """Run real pruned layers and AlexNet fc6 on EIE, into a folder, and compare four machines.

    The comparison runs beside in a process of its own: on a bare machine most of the time of both
    goes into compiling kernels, of which they have few in common.
    """
    folder = output_folder(out)
    beside = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    try:
        comparison = beside.submit(compared)
        with PatientBar() as bar:
            runs, result, written = _on_eie(folder, bar)
            bar("digits-cnn and resnet18 on four machines", 5, 6)
            report = comparison.result()
    except BaseException:  # nobody waits for a comparison that nobody will see
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        beside.shutdown(cancel_futures=True)
    written.append(write(comparison_page(report), folder / "comparison.html"))
    print_networks(runs)
    show(result.report, EIE.title)
    show_comparison(report)
    console().print("\nwritten:")
    for path in written:
        console().print(f"  {path}")
    console().print(f"\nThe comparison on one page: {written[-1]}")


def _on_eie(folder: Path, bar: PatientBar) -> tuple[list[NetworkRun], Result, list[Path]]:
    """The digits networks, and fc6 with its figures, trace and page; what was written."""
    machine = EIE()
    runs = []
    for number, network in enumerate(("mlp", "cnn")):
        bar(f"digits-{network} on EIE", number, 6)
        runs.append(run_network(machine, network))
    bar("AlexNet fc6 on EIE", 2, 6)
    fc6 = synthetic(get_layer("alexnet/fc6"), np.random.default_rng(0))
    result = run(machine, fc6, seed=0)
    bar("drawing", 3, 6)
    written = save_figures(result.report, result.timeline, folder, traffic=result.traffic)
    bar("writing the trace", 4, 6)
    written.append(write_trace(result.timeline, folder / "alexnet_fc6_trace.json.gz"))
    page = layer_page(result.report, result.timeline, result.traffic)
    written.append(write(page, folder / "alexnet_fc6.html"))
    return runs, result, written
