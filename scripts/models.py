"""``sparqsim models``: which networks there are, and the layers of any work."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from sparqsim.base import InputError
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.scripts.work_options import WORK_HELP, work_options
from sparqsim.workloads.layers import Conv2d, Layer, Linear, Model
from sparqsim.workloads.models import get_model, model_names, model_options
from sparqsim.workloads.work import Network, load

HEADINGS = {
    "activation_bits": "a bits",
    "weight_bits": "w bits",
    "activation_density": "a\ndens.",
    "weight_density": "w\ndens.",
}


@click.command(help=f"List the networks there are, or the layers of WORK.\n\n{WORK_HELP}")
@click.argument("work", required=False)
@work_options
@click.option(
    "--memory",
    is_flag=True,
    help="Bytes of the parameters at 16, 8 and 4 bits, the platforms they fit, and the bandwidth "
    "that decoding takes.",
)
@json_option
def command(work: str | None, memory: bool, json_path: str | None, **options: Any) -> None:
    """List the networks there are, or the layers of WORK."""
    if memory:
        from sparqsim.scripts.platforms import footprints, show_footprints

        rows = footprints(work, options)
        if json_path:
            write_json(rows, json_path)
        if json_path != "-":
            show_footprints(rows)
        return
    if work is None:
        given = [name for name, value in options.items() if value]
        if given:
            raise InputError(f"{given[0]} needs WORK: sparqsim models WORK --{given[0]} ...")
        models = [get_model(each) for each in model_names()]
        if json_path:
            write_json([_summary(model) for model in models], json_path)
        else:
            _print_models(models)
        return
    network = load(work, numbers=False, **options)
    if json_path:
        write_json(_detail(network), json_path)
    else:
        _print_layers(network)


def _detail(network: Network) -> dict[str, Any]:
    layers = [msgspec.to_builtins(layer) | _counts(layer) for layer in network.layers]
    other = [msgspec.to_builtins(each) for each in network.other]
    report = {} if network.report is None else {"import": msgspec.to_builtins(network.report)}
    return _summary(network.model) | {"layers": layers, "other": other} | report


def _summary(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "layers": sum(layer.repeat for layer in model.layers),
        "macs": model.macs,
        "parameters": model.parameters,
        "other_parameters": model.other_parameters,
        "other_parameters_are": model.other_parameters_are,
        "source": model.source,
        "options": model_options(model.name) if model.name in model_names() else {},
    }


def _counts(layer: Layer) -> dict[str, Any]:
    return {
        "macs": layer.macs,
        "weights": layer.weights,
        "parameters": layer.parameters,
        "input_elements": layer.input_elements,
        "output_elements": layer.output_elements,
        "gemm": layer.gemm()._asdict(),
    }


def short(count: float) -> str:
    """A count to four digits: 724.4 M."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count)


def _print_models(models: list[Model]) -> None:
    listed = table("", ("model", "source"), ("layers", "MACs", "parameters"))
    by_options: dict[str, list[str]] = {}
    for model in models:
        row = _summary(model)
        listed.add_row(
            model.name,
            model.source,
            str(row["layers"]),
            short(model.macs),
            short(model.parameters),
        )
        by_options.setdefault(_defaults(row["options"]), []).append(model.name)
    screen = console()
    screen.print(listed)
    screen.print("\n[bold]MACs are dense, for these options[/bold]")
    for options_text, names in by_options.items():
        screen.print(f"{options_text}: {', '.join(names)}", markup=False)
    screen.print(
        "\nShapes alone; trained weights, and what to install for them: sparqsim compress --list"
    )
    screen.print("Layers and exact counts: sparqsim models WORK; what WORK may be: --help")


def _defaults(options: dict[str, Any]) -> str:
    """The options of a model as the command line has them, with their defaults."""
    flags = {"sequence_length": "sequence", "tokens": "sequence"}
    shown = [
        f"--{flags.get(key, key)} {value}" for key, value in options.items() if key != "decode"
    ]
    return ", ".join(shown) + (" (or --context)" if "decode" in options else "")


def _print_layers(network: Network) -> None:
    model, layers = network.model, network.layers
    extra = [f for f in HEADINGS if any(getattr(layer, f) is not None for layer in layers)]
    repeat = ["repeat"] if any(layer.repeat > 1 for layer in layers) else []
    listed = table(
        "",
        ("layer", "shape"),
        (*repeat, "MACs", "weights", "product", *(HEADINGS[field] for field in extra)),
    )
    for layer in layers:
        gemm = layer.gemm()
        product = f"{gemm.m}x{gemm.k}x{gemm.n}"
        listed.add_row(
            layer.name,
            _shape(layer),
            *([str(layer.repeat)] if repeat else []),
            f"{layer.macs:,}",
            f"{layer.weights:,}",
            product if gemm.batch == 1 else f"{gemm.batch} * {product}",
            *("" if (v := getattr(layer, field)) is None else f"{v:.3g}" for field in extra),
        )
    screen = console()
    screen.print(f"{model.name}: {model.source}", markup=False)
    screen.print(listed)
    screen.print("product: (groups or heads *) m x k x n, activations by weights", markup=False)
    if repeat:
        screen.print("MACs and weights: of one layer of those that repeat", markup=False)
    macs = sum(layer.macs * layer.repeat for layer in layers)
    weights = model.weights if network.layer is None else layers[0].weights
    total = f"total {macs:,} MACs, {weights:,} weights"
    if network.layer is None:
        total += f", {model.parameters:,} parameters"
    screen.print(total, markup=False)
    if model.other_parameters and network.layer is None:
        screen.print(
            f"of these {model.other_parameters:,} are {model.other_parameters_are}", markup=False
        )
    for source in sorted({s for layer in layers if (s := layer.density_source)}):
        screen.print(f"densities: {source}", markup=False)
    if network.other:
        screen.print(f"beside the layers: {_others(network)}", markup=False)
    if network.report is not None and network.layer is None:
        for line in network.report.lines():
            screen.print(f"imported: {line}", markup=False)
    if network.missing:
        screen.print(f"shapes alone: {network.missing}", markup=False)


def _others(network: Network) -> str:
    """Work without MACs in a line: 12 softmax (2.359 M elements), ..."""
    counts: dict[str, list[int]] = {}
    for each in network.other:
        count = counts.setdefault(each.kind, [0, 0])
        count[0] += each.repeat
        count[1] += each.elements * each.repeat
    return ", ".join(
        f"{times} {kind} ({short(elements)} elements)" for kind, (times, elements) in counts.items()
    )


def _stride(stride: tuple[int, int]) -> str:
    """One number, or two where they differ: 2x1 goes down by 2 and right by 1."""
    return str(stride[0]) if stride[0] == stride[1] else f"{stride[0]}x{stride[1]}"


def _shape(layer: Layer) -> str:
    if isinstance(layer, Conv2d):
        kind = f"{layer.groups} groups " if layer.groups > 1 else ""
        kernel = "x".join(map(str, layer.kernel))
        size, output = ("x".join(map(str, pair)) for pair in (layer.input, layer.output))
        step = "" if layer.stride == (1, 1) else f" /{_stride(layer.stride)}"
        channels = f"{layer.in_channels}->{layer.out_channels}"
        sizes = f"on {size}" if size == output else f"{size}->{output}"
        return f"conv {kernel}{step} {kind}{channels} {sizes}"
    if isinstance(layer, Linear):
        return f"linear {layer.in_features}->{layer.out_features}"
    return "product of activations"
