"""``sparqsim models``: which networks there are, and the layers of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparqsim_base import InputError, written_whole
from workloads.layers import Conv2d, Layer, Linear, Model
from workloads.models import get_model, model_names, model_options

WIDE = 400  # columns where the output is no terminal: enough for any row, so none is broken
SHORT = {
    "activation_bits": "a bits",
    "weight_bits": "w bits",
    "activation_density": "a density",
    "weight_density": "w density",
}


@click.command()
@click.argument("name", required=False)
@click.option(
    "--option",
    "-o",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the model, such as batch=4; or a size an ONNX file leaves open.",
)
@click.option("--json", "json_path", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")
def command(name: str | None, options: tuple[str, ...], json_path: str | None) -> None:
    """List the models there are, or the layers of the model NAME or of an ONNX file."""
    if name is None:
        if options:
            raise InputError("--option needs a model: sparqsim models NAME --option KEY=VALUE")
        models = [get_model(each) for each in model_names()]
        if json_path:
            _write([_summary(model) for model in models], json_path)
        else:
            _print_models(models)
        return
    chosen = dict(_option(text) for text in options)
    left_out: dict[str, int] = {}
    if name in model_names():
        model = get_model(name, **chosen)
    elif name.endswith(".onnx") or Path(name).is_file():
        from workloads.importers.onnx import import_onnx

        imported = import_onnx(name, chosen)
        model, left_out = imported.model, dict(imported.left_out)
    else:
        model = get_model(name)  # raises the letter that lists near names
    if json_path:
        layers = [msgspec.to_builtins(layer) | _counts(layer) for layer in model.layers]
        _write(_summary(model) | {"layers": layers, "left_out": left_out}, json_path)
    else:
        _print_layers(model, left_out)


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise InputError(f"an option is KEY=VALUE, as batch=4, got {text!r}")
    if value in ("true", "false"):
        return key, value == "true"
    try:
        return key, int(value)
    except ValueError:
        raise InputError(
            f"option {key} must be a whole number, true or false, got {value!r}"
        ) from None


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


def _write(data: Any, path: str) -> None:
    text = msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n"
    if path == "-":
        click.echo(text, nl=False)
        return
    with written_whole(path) as temporary:
        temporary.write_bytes(text)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def _print_models(models: list[Model]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title in ("layers", "MACs", "parameters"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("options")
    table.add_column("source")
    for model in models:
        row = _summary(model)
        table.add_row(
            model.name,
            str(row["layers"]),
            f"{model.macs:,}",
            f"{model.parameters:,}",
            ", ".join(f"{key}={str(value).lower()}" for key, value in row["options"].items()),
            model.source,
        )
    console = _console()
    console.print(table)
    console.print("\nMACs are dense, for the options shown. Layers: sparqsim models NAME|FILE.onnx")


def _print_layers(model: Model, left_out: dict[str, int]) -> None:
    extra = [f for f in SHORT if any(getattr(layer, f) is not None for layer in model.layers)]
    times = ["times"] if any(layer.repeat > 1 for layer in model.layers) else []
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer")
    table.add_column("shape")
    for title in (*times, "MACs", "weights", "product", *(SHORT[field] for field in extra)):
        table.add_column(title, justify="right", no_wrap=True)
    for layer in model.layers:
        gemm = layer.gemm()
        product = f"{gemm.m} x {gemm.k} x {gemm.n}"
        table.add_row(
            escape(layer.name),
            _shape(layer),
            *([str(layer.repeat)] if times else []),
            f"{layer.macs:,}",
            f"{layer.weights:,}",
            product if gemm.batch == 1 else f"{gemm.batch} * {product}",
            *("" if (v := getattr(layer, field)) is None else f"{v:.3g}" for field in extra),
        )
    console = _console()
    console.print(f"{model.name}: {model.source}", markup=False)
    console.print(table)
    console.print("product: (groups or heads *) m x k x n, activations by weights", markup=False)
    console.print(f"total {model.macs:,} MACs, {model.parameters:,} parameters", markup=False)
    if model.other_parameters:
        console.print(
            f"of these {model.other_parameters:,} are {model.other_parameters_are}", markup=False
        )
    for source in sorted({s for layer in model.layers if (s := layer.density_source)}):
        console.print(f"densities: {source}", markup=False)
    if left_out:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        console.print(f"left out, as it needs no MAC array: {counted}", markup=False)


def _shape(layer: Layer) -> str:
    if isinstance(layer, Conv2d):
        kind = f"{layer.groups} groups " if layer.groups > 1 else ""
        kernel = "x".join(map(str, layer.kernel))
        size, output = ("x".join(map(str, pair)) for pair in (layer.input, layer.output))
        step = "" if layer.stride == (1, 1) else f" /{layer.stride[0]}"
        channels = f"{layer.in_channels}->{layer.out_channels}"
        return f"conv {kernel}{step} {kind}{channels} {size}->{output}"
    if isinstance(layer, Linear):
        return f"linear {layer.in_features}->{layer.out_features}"
    return "product of activations"
