"""``sparqsim models``: which networks there are, and the layers of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from sparqsim.base import InputError
from sparqsim.scripts.output import console, json_option, table, write_json
from sparqsim.workloads.layers import Conv2d, Layer, Linear, Model
from sparqsim.workloads.models import get_model, model_names, model_options

HEADINGS = {
    "activation_bits": "a bits",
    "weight_bits": "w bits",
    "activation_density": "a\ndens.",
    "weight_density": "w\ndens.",
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
@json_option
def command(name: str | None, options: tuple[str, ...], json_path: str | None) -> None:
    """List the models there are, or the layers of the model NAME or of an ONNX file."""
    if name is None:
        if options:
            raise InputError("--option needs a model: sparqsim models NAME --option KEY=VALUE")
        models = [get_model(each) for each in model_names()]
        if json_path:
            write_json([_summary(model) for model in models], json_path)
        else:
            _print_models(models)
        return
    chosen = dict(_option(text) for text in options)
    left_out: dict[str, int] = {}
    if name in model_names():
        model = get_model(name, **chosen)
    elif name.endswith(".onnx") or Path(name).is_file():
        from sparqsim.workloads.importers.onnx import import_onnx

        imported = import_onnx(name, chosen)
        model, left_out = imported.model, dict(imported.left_out)
    else:
        model = get_model(name)  # raises the letter that lists near names
    if json_path:
        layers = [msgspec.to_builtins(layer) | _counts(layer) for layer in model.layers]
        write_json(_summary(model) | {"layers": layers, "left_out": left_out}, json_path)
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


def _short(count: int) -> str:
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
            escape(model.source),
            str(row["layers"]),
            _short(model.macs),
            _short(model.parameters),
        )
        options = [f"{key}={str(value).lower()}" for key, value in row["options"].items()]
        by_options.setdefault(", ".join(options), []).append(model.name)
    screen = console()
    screen.print(listed)
    screen.print("\n[bold]MACs are dense, for these options[/bold] (-o KEY=VALUE)")
    for options_text, names in by_options.items():
        screen.print(f"{options_text}: {', '.join(names)}", markup=False)
    screen.print(
        "\nShapes alone; trained weights, and what to install for them: sparqsim compress --list"
    )
    screen.print("Layers and exact counts: sparqsim models NAME|FILE.onnx")


def _print_layers(model: Model, left_out: dict[str, int]) -> None:
    extra = [f for f in HEADINGS if any(getattr(layer, f) is not None for layer in model.layers)]
    times = ["times"] if any(layer.repeat > 1 for layer in model.layers) else []
    listed = table(
        "",
        ("layer", "shape"),
        (*times, "MACs", "weights", "product", *(HEADINGS[field] for field in extra)),
    )
    for layer in model.layers:
        gemm = layer.gemm()
        product = f"{gemm.m}x{gemm.k}x{gemm.n}"
        listed.add_row(
            escape(layer.name),
            _shape(layer),
            *([str(layer.repeat)] if times else []),
            f"{layer.macs:,}",
            f"{layer.weights:,}",
            product if gemm.batch == 1 else f"{gemm.batch} * {product}",
            *("" if (v := getattr(layer, field)) is None else f"{v:.3g}" for field in extra),
        )
    screen = console()
    screen.print(f"{model.name}: {model.source}", markup=False)
    screen.print(listed)
    screen.print("product: (groups or heads *) m x k x n, activations by weights", markup=False)
    screen.print(f"total {model.macs:,} MACs, {model.parameters:,} parameters", markup=False)
    if model.other_parameters:
        screen.print(
            f"of these {model.other_parameters:,} are {model.other_parameters_are}", markup=False
        )
    for source in sorted({s for layer in model.layers if (s := layer.density_source)}):
        screen.print(f"densities: {source}", markup=False)
    if left_out:
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        screen.print(f"left out, as it needs no MAC array: {counted}", markup=False)


def _shape(layer: Layer) -> str:
    if isinstance(layer, Conv2d):
        kind = f"{layer.groups} groups " if layer.groups > 1 else ""
        kernel = "x".join(map(str, layer.kernel))
        size, output = ("x".join(map(str, pair)) for pair in (layer.input, layer.output))
        step = "" if layer.stride == (1, 1) else f" /{layer.stride[0]}"
        channels = f"{layer.in_channels}->{layer.out_channels}"
        sizes = f"on {size}" if size == output else f"{size}->{output}"
        return f"conv {kernel}{step} {kind}{channels} {sizes}"
    if isinstance(layer, Linear):
        return f"linear {layer.in_features}->{layer.out_features}"
    return "product of activations"
