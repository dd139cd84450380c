"""What ``sparqsim models --memory`` shows: bytes of networks, and where they fit.

Decoding one token reads every weight once and the keys and values of all tokens before it, so its
bandwidth is bytes per token times tokens a second; nothing is shared with other requests here.
"""

from __future__ import annotations

from typing import Any

from sparqsim.base import InputError
from sparqsim.scripts.models import short
from sparqsim.scripts.output import console, table
from sparqsim.workloads.layers import MatMul, Model
from sparqsim.workloads.models import get_model, model_names, model_options
from sparqsim.workloads.work import load

# assumed: round sizes of main memory, one for each class of device; not those of one product
PLATFORMS = {"cloud GPU": 24e9, "phone": 4e9, "microcontroller": 500e3}
WIDTHS = (16, 8, 4)  # bits of a parameter
TOKENS_PER_S = 100  # assumed: what the bandwidth is told for
CONTEXT = 2048  # assumed: tokens attended to, where WORK does not say


def decoded_elements(model: Model) -> int:
    """Weights, keys and values that one decoding step reads."""
    count = 0
    for layer in model.layers:
        gemm = layer.gemm()
        each = gemm.batch * gemm.n * gemm.k if isinstance(layer, MatMul) else layer.weights
        count += each * layer.repeat
    return count


def fits(bytes_: float) -> list[str]:
    """The platforms whose memory holds so many bytes."""
    return [name for name, most in PLATFORMS.items() if bytes_ <= most]


def footprint(model: Model, step: Model | None, context: int) -> dict[str, Any]:
    """Bytes of a model by bits of a parameter, where it fits, and what a decoding step reads.

    ``step`` is a step that attends to ``context`` tokens, or None where none decodes.
    """
    found: dict[str, Any] = {
        "name": model.name,
        "parameters": model.parameters,
        "bytes": {bits: model.parameters * bits / 8 for bits in WIDTHS},
    }
    found["fits"] = {bits: fits(each) for bits, each in found["bytes"].items()}
    if step is not None:
        read = {bits: decoded_elements(step) * bits / 8 for bits in WIDTHS}
        found["context"] = context
        found["bytes_per_token"] = read
        found["bytes_per_s"] = {bits: each * TOKENS_PER_S for bits, each in read.items()}
    return found


def _decoding(work: str, options: dict[str, Any]) -> Model | None:
    """A decoding step of WORK that attends to CONTEXT tokens, or None where it does not decode."""
    if work in model_names() and "decode" not in model_options(work):
        return None
    given = {key: value for key, value in options.items() if key not in ("sequence", "context")}
    try:
        return load(work, numbers=False, context=CONTEXT, **given).model
    except InputError:  # a file of another kind, to which a context means nothing
        return None


def footprints(work: str | None, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Footprints of WORK, or of all models.

    Raises
    ------
    InputError
        If WORK is a layer, or an option is given without WORK.
    """
    if work is not None:
        network = load(work, numbers=False, **options)
        if network.layer is not None:
            raise InputError(f"--memory is for whole networks, not for the layer {network.layer}")
        step = network.model if options["context"] else _decoding(work, options)
        return [footprint(network.model, step, options["context"] or CONTEXT)]
    given = [name for name, value in options.items() if value]
    if given:
        raise InputError(f"{given[0]} needs WORK: sparqsim models WORK --memory --{given[0]} ...")
    rows = [footprint(get_model(name), _decoding(name, {}), CONTEXT) for name in model_names()]
    return sorted(rows, key=lambda row: -row["parameters"])


def show_footprints(rows: list[dict[str, Any]]) -> None:
    """Print them, the largest first."""
    told = next((row["context"] for row in rows if "context" in row), None)
    shown = table(
        "Bytes of the parameters",
        ("model", "fits at 16 bits", "at 4 bits"),
        (*(f"{bits} bits" for bits in WIDTHS), "decoding"),
        "decoding: nothing here makes one token at a time"
        if told is None
        else f"decoding: bytes a second for {TOKENS_PER_S} tokens a second at 16 bits, keys and "
        f"values of the {told} tokens before each included",
    )
    for row in rows:
        where = [row["fits"][bits][-1] if row["fits"][bits] else "none" for bits in (16, 4)]
        rate = row.get("bytes_per_s")
        shown.add_row(
            row["name"], *where, *(f"{short(row['bytes'][bits])}B" for bits in WIDTHS),
            "" if rate is None else f"{rate[16] / 1e12:.3g} TB/s",
        )  # fmt: skip
    screen = console()
    screen.print(shown)
    sizes = ", ".join(f"{name} {short(most)}B" for name, most in PLATFORMS.items())
    screen.print(f"the smallest platform that holds them, of: {sizes}")
