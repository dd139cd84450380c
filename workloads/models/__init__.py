"""Networks as tables of layers: exact shapes, and who published them.

To add a network, write a file with a function that returns a
:class:`~sparqsim.workloads.layers.Model` and add a row to ``TABLE``. The function's keyword
arguments (``batch``, ``sequence_length``, ...) are
the options of :func:`get_model`. Tables hold shapes only; weights are synthetic
(:mod:`sparqsim.workloads.synthetic`), imported (:mod:`sparqsim.workloads.importers`) or loaded
where a real trained model is at hand.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from sparqsim.base import InputError
from sparqsim.workloads.layers import Layer, Model, unknown

# name -> module of this package : function. A module is imported when its model is asked for.
TABLE = {
    "alexnet": "alexnet:alexnet",
    "vgg16": "vgg:vgg16",
    "neuraltalk": "neuraltalk:neuraltalk",
    "eie": "eie:eie",
    "squeezenet": "squeezenet:squeezenet",
    "resnet18": "resnet:resnet18",
    "resnet50": "resnet:resnet50",
    "mobilenet_v2": "mobilenet:mobilenet_v2",
    "deit_tiny": "vit:deit_tiny",
    "deit_small": "vit:deit_small",
    "deit_base": "vit:deit_base",
    "vit_base": "vit:vit_base",
    "bert_base": "bert:bert_base",
    "bert_large": "bert:bert_large",
    "gpt2_xl": "decoders:gpt2_xl",
    "opt_6_7b": "decoders:opt_6_7b",
    "llama_7b": "decoders:llama_7b",
    "bitfusion/alexnet": "bitfusion:alexnet",
    "bitfusion/svhn": "bitfusion:svhn",
    "bitfusion/cifar10": "bitfusion:cifar10",
    "bitfusion/lenet5": "bitfusion:lenet5",
    "bitfusion/vgg7": "bitfusion:vgg7",
    "bitfusion/resnet18": "bitfusion:resnet18",
    "bitfusion/rnn": "bitfusion:rnn",
    "bitfusion/lstm": "bitfusion:lstm",
    "ant/vgg16": "ant:vgg16",
    "ant/resnet18": "ant:resnet18",
    "ant/resnet18_on_bitfusion": "ant:resnet18_on_bitfusion",
    "ant/bert_mnli": "ant:bert_mnli",
    "digits-mlp": "trained:digits_mlp",
    "digits-cnn": "trained:digits_cnn",
    "minilm": "trained:minilm",
    "efficientnet-lite0": "trained:efficientnet_lite0",
    "vgg16-trunk": "trained:vgg16_trunk",
}


def model_names() -> tuple[str, ...]:
    """Return the names :func:`get_model` knows, in the order of the table."""
    return tuple(TABLE)


def _maker(name: str) -> Callable[..., Model]:
    if name not in TABLE:
        raise unknown("there is no model", name, TABLE)
    module, function = TABLE[name].split(":")
    made: Callable[..., Model] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return made


def model_options(name: str) -> dict[str, Any]:
    """Return the options of a model and their defaults.

    Raises
    ------
    InputError
        If there is no such model.
    """
    parameters = inspect.signature(_maker(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def get_model(name: str, **options: Any) -> Model:
    """Return the model called ``name``.

    Parameters
    ----------
    name : str
        One of :func:`model_names`.
    **options
        Those of :func:`model_options`; the rest keep their defaults.

    Raises
    ------
    InputError
        If there is no such model (the message lists the nearest names), no such option, or an
        option's value is of the wrong kind or out of range.

    Examples
    --------
    >>> get_model("vgg16").parameters
    138357544
    """
    known = model_options(name)
    for option, value in options.items():
        if option not in known:
            raise unknown(f"model {name!r} has no option", option, known)
        kind = type(known[option])
        if type(value) is not kind or (kind is int and value < 1):
            wanted = "a whole number of at least 1" if kind is int else "true or false"
            raise InputError(f"model {name!r}: {option} must be {wanted}, got {value!r}")
    return _maker(name)(**options)


def get_layer(path: str, **options: Any) -> Layer:
    """Return one layer by ``"model/layer"``, for example ``"alexnet/fc6"`` or ``"eie/alex-6"``.

    Raises
    ------
    InputError
        If the model or the layer is not known.
    """
    model, slash, layer = path.rpartition("/")
    if not slash or path in TABLE:
        raise InputError(
            f"a layer is named model/layer, as alexnet/fc6, got {path!r}; "
            f"the models are {', '.join(TABLE)}"
        )
    return get_model(model, **options).layer(layer)
