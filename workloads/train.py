"""Training that knows the hardware: quantization-aware, and with pruned weights held at zero.

*Quantization-aware training* runs the network with rounded weights and inputs and lets the loss
repair what rounding broke. Rounding has no useful slope, so the straight-through estimator takes
its slope as 1 inside the format's range and 0 outside [1]. LSQ also trains the step between grid
points [2]; the same formulas hold for uneven grids (PoT, APoT, flint, float), where "step" is the
widest gap of the grid. *Pruning* multiplies a weight by a mask: a pruned weight is exactly
zero, in every forward pass and at the end. Masks are set once and fine-tuned (so the 2:4 recipe:
train dense, prune 2:4, train again [4]), or tightened on Zhu and Gupta's cubic schedule [3].

Both are torch *parametrizations* of a layer's ``weight``: any ``torch.nn.Module`` of ``Linear``
and ``Conv2d`` layers can be trained so, and ``layer.weight`` is what the hardware would see.
Left out: batch-norm folding, quantized gradients and biases (float32 here).

[1] Bengio et al., arXiv:1308.3432. [2] Esser et al., Learned Step Size Quantization, ICLR 2020.
[3] Zhu, Gupta, To Prune, or Not to Prune, arXiv:1710.01878. [4] Mishra et al., arXiv:2104.08378.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.workloads import prune
from sparqsim.workloads import quantize as ptq
from sparqsim.workloads.calibrate import LeastSquares
from sparqsim.workloads.formats import Codebook, Format, OutlierVictim
from sparqsim.workloads.layers import Conv2d, Linear, unknown
from sparqsim.workloads.straight_through import Rounds, StraightThrough

try:
    import torch
    from torch import nn
    from torch.nn.utils import parametrize, skip_init
except ImportError:
    raise InputError(
        "training needs torch, which is not installed; pip install 'sparqsim[train]'"
    ) from None


# --------------------------------------------------------------------------------- networks


def chain(layers: Iterable[Conv2d | Linear], generator: np.random.Generator) -> nn.Sequential:
    """Return a trainable network: the layers in a row, ReLU between each two.

    Weights start as He's normal distribution, sqrt(2 / fan in) wide; biases at zero.
    """
    layers = tuple(layers)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for position, layer in enumerate(layers):
        made: nn.Module
        if isinstance(layer, Linear):
            if position == 0 or isinstance(layers[position - 1], Conv2d):
                modules[f"flatten_{layer.name}"] = nn.Flatten()
            made = skip_init(nn.Linear, layer.in_features, layer.out_features, bias=layer.bias)
        else:
            top, left, bottom, right = layer.padding
            if (top, left) != (bottom, right):
                raise InputError(
                    f"layer {layer.name!r}: to be trained, its padding must be the same on "
                    f"opposite sides, got {layer.padding}"
                )
            made = skip_init(
                nn.Conv2d,
                layer.in_channels,
                layer.out_channels,
                layer.kernel,
                layer.stride,
                (top, left),
                layer.dilation,
                layer.groups,
                bias=layer.bias,
            )
        fan_in = layer.gemm().k
        start = generator.normal(0.0, np.sqrt(2.0 / fan_in), layer.weight_shape)
        with torch.no_grad():
            made.weight.copy_(torch.from_numpy(start))
            if made.bias is not None:
                made.bias.zero_()
        modules[layer.name] = made
        if position < len(layers) - 1:
            modules[f"relu_{layer.name}"] = nn.ReLU()
    return nn.Sequential(modules)


def weighted(net: nn.Module) -> dict[str, nn.Module]:
    """Return the ``Linear`` and ``Conv2d`` layers of a network by name, in order.

    Raises
    ------
    InputError
        If there are none.
    """
    found = {n: m for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    if not found:
        raise InputError("a network to train must have Linear or Conv2d layers, got none")
    return found


def weights_of(net: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return each layer's weights as the hardware sees them: masked and quantized."""
    return {n: m.weight.detach().numpy().copy() for n, m in weighted(net).items()}


def biases_of(net: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return each layer's bias; layers without one are left out."""
    layers = weighted(net).items()
    return {n: m.bias.detach().numpy().copy() for n, m in layers if m.bias is not None}


def _data(images: NDArray[Any], labels: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = np.asarray(images, dtype=np.float32), np.asarray(labels)
    if len(images) == 0 or labels.shape != (len(images),):
        raise InputError(
            f"training needs one label for each of at least one image, got images of shape "
            f"{images.shape} and labels of shape {labels.shape}"
        )
    if labels.dtype.kind not in "ui":
        raise InputError(f"labels must be whole numbers, got {labels.dtype}")
    if not np.isfinite(images).all():
        raise InputError("images to train on must be finite, got NaN or infinity")
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def fit(
    net: nn.Module,
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    epochs: int,
    learning_rate: float,
    generator: np.random.Generator,
    batch: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    before_step: Callable[[int], None] | None = None,
) -> list[float]:
    """Train by stochastic gradient descent on cross-entropy; the rate falls to zero as a cosine.

    The order of images comes from ``generator``: the same seeds and number of torch threads give
    the same network to the bit.

    Parameters
    ----------
    net : torch.nn.Module
        Trained in place.
    images : array [n, ...]
        As the network takes them; float32.
    labels : int array [n]
        Class of each image.
    before_step : callable, optional
        Called with the number of the step (from 0) before it.

    Returns
    -------
    list of float
        Mean loss of each epoch.

    Raises
    ------
    InputError
        If data do not fit together or are not finite, or if training diverges.
    """
    x, y = _data(images, labels)
    if epochs < 1 or batch < 1 or not learning_rate > 0:
        raise InputError(
            f"epochs and batch must be at least 1 and learning_rate above 0, got {epochs}, "
            f"{batch} and {learning_rate}"
        )
    with torch.no_grad():
        classes = net(x[:1]).shape[-1]
    if y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"labels must lie in 0 .. {classes - 1}, the network's outputs, got "
            f"{y.min().item()} .. {y.max().item()}"
        )
    steps = epochs * -(-len(x) // batch)
    # Decay would pull trained steps to zero; it is for weights alone.
    steps_of = {id(m.step) for m in net.modules() if isinstance(m, Quantizer)}
    decayed = [p for p in net.parameters() if p.ndim > 1 and id(p) not in steps_of]
    others = [p for p in net.parameters() if p.ndim <= 1 or id(p) in steps_of]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others}],
        lr=learning_rate,
        momentum=momentum,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    net.train()
    losses, step = [], 0
    for epoch in range(epochs):
        total = 0.0
        order = torch.from_numpy(generator.permutation(len(x)))
        for chosen in order.split(batch):
            if before_step is not None:
                before_step(step)
            loss = nn.functional.cross_entropy(net(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
            step += 1
        losses.append(total / len(x))
        if not np.isfinite(losses[-1]):
            raise InputError(
                f"training diverged in epoch {epoch}: the loss is {losses[-1]}; "
                f"lower learning_rate, now {learning_rate}"
            )
    net.eval()
    return losses


def accuracy(net: nn.Module, images: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the fraction of images classified rightly."""
    x, y = _data(images, labels)
    net.eval()
    with torch.no_grad():
        return float((net(x).argmax(dim=1) == y).double().mean())


# ----------------------------------------------------------------------------- quantization


class _RoundToGrid(torch.autograd.Function):
    """Round ``x / step`` to the grid, times ``step``; slopes as in LSQ [2], equations 1 to 3."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        step: torch.Tensor,
        grid: torch.Tensor,
        midpoints: torch.Tensor,
        slope_scale: float,
    ) -> torch.Tensor:
        u = x / step  # a step, or one an index of the first axis
        rounded = grid[torch.bucketize(u, midpoints, right=True)]  # a tie goes to the larger
        inside = (u > grid[0]) & (u < grid[-1])
        ctx.save_for_backward(inside, torch.where(inside, rounded - u, rounded))
        ctx.slope_scale, ctx.steps = slope_scale, step.shape
        return rounded * step

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:
        (slope,) = slopes
        inside, by_step = ctx.saved_tensors
        of_steps = (slope * by_step).sum_to_size(ctx.steps) * ctx.slope_scale
        return slope * inside, of_steps, None, None, None


def unit_grid(grid: Format) -> NDArray[np.float64]:
    """Return a format's values in units of the widest gap between two of them.

    So a value inside is at most half a step from its grid point, which LSQ's formulas and its
    gradient scale assume; an int format keeps its values.

    Raises
    ------
    InputError
        If the format rounds pairs of values together, or has no zero (a pruned weight needs it).
    """
    if isinstance(grid, OutlierVictim):
        raise InputError(f"training rounds value by value, but {grid.name} rounds pairs")
    values = np.asarray(grid.values, dtype=np.float64)
    if 0.0 not in values:
        raise InputError(f"to train in {grid.name} it must have the value 0")
    return values / np.diff(values).max()


# Beyond the largest value too, as ANT tries them: a top grid point may well lie above it.
TRIED_RANGES = LeastSquares(stop=1.49)


class Quantizer(nn.Module):
    """Rounds a tensor to ``step`` times a format's grid, straight through and with LSQ's slopes.

    Parameters
    ----------
    grid : Format
        The number format; it must have ``values``.
    sample : array
        What is to be quantized, or a sample of it. The step starts where the squared error over
        it is least, which is post-training quantization; LSQ's own start assumes even grids.
    elements : int
        LSQ's N: the number of weights, or of features of one image.
    learn : bool
        Train the step (LSQ), or keep it (plain straight-through).
    by_channel : bool
        A step for each index of the first axis; ``elements`` are those of one.

    Attributes
    ----------
    step : torch.Tensor
        A single number, or [channels, 1, ...]: the width of the grid's widest gap.
    slope_scale : float
        LSQ's ``1 / sqrt(elements * Q)`` for the step's slope; Q is the largest of `unit_grid`.
    """

    def __init__(
        self,
        grid: Format,
        sample: NDArray[Any],
        *,
        elements: int,
        learn: bool = True,
        by_channel: bool = False,
    ):
        super().__init__()
        values = unit_grid(grid)
        self.format_name = grid.name
        self._unit = float(values[-1] / grid.values[-1])
        self.register_buffer("grid", torch.tensor(values, dtype=torch.float32))
        middles = (values[1:] + values[:-1]) / 2
        self.register_buffer("midpoints", torch.tensor(middles, dtype=torch.float32))
        self.slope_scale = float(1.0 / np.sqrt(elements * values[-1]))
        # From the largest down: a table that begins with 0 would keep it for zero alone.
        table = Codebook(entries=tuple(values[::-1]), bits=grid.bits)
        threads = torch.get_num_threads()
        start = ptq.fit(sample, table, method=TRIED_RANGES, axis=0 if by_channel else None).scale
        # numba's first parallel kernel sets the number of OpenMP threads, which torch shares.
        torch.set_num_threads(threads)
        shape = (-1, *(1,) * (sample.ndim - 1)) if by_channel else ()
        self.step = nn.Parameter(torch.from_numpy(start.copy()).reshape(shape), requires_grad=learn)

    @property
    def scales(self) -> NDArray[np.float32]:
        """What the format's values are multiplied by: of each channel, or one."""
        return (self.step.detach().numpy().reshape(-1) * self._unit).astype(np.float32)

    @property
    def scale(self) -> float:
        """The only scale: ``layer.weight == scale * values[i]``."""
        return self.step.item() * self._unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.step > 0).all():
            raise InputError(
                f"the trained step of a {self.format_name} quantizer fell to "
                f"{self.step.min().item()}; lower learning_rate"
            )
        return _RoundToGrid.apply(x, self.step, self.grid, self.midpoints, self.slope_scale)


def _quantize_input(layer: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    return (layer.input_quantizer(arguments[0]), *arguments[1:])


Grids = Format | Mapping[str, Format | Rounds] | None


def _by_layer(grids: Grids, layers: Iterable[str]) -> Mapping[str, Format | Rounds]:
    if isinstance(grids, Mapping):
        return grids
    return {} if grids is None else dict.fromkeys(layers, grids)


def quantize(
    net: nn.Module,
    images: NDArray[Any],
    *,
    weights: Grids,
    activations: Grids,
    learn: bool = True,
    by_channel: Collection[str] = (),
) -> nn.Module:
    """Quantize every layer's weights and inputs, in place; call `fit` afterwards for QAT.

    As returned, the network is the post-training quantized one: each step has the least squared
    error, of inputs over ``images``. Biases and outputs stay float32.

    Parameters
    ----------
    net : torch.nn.Module
        Changed in place: parametrizations on weights, hooks on inputs.
    images : array [n, ...]
        To calibrate on; training images, as the network takes them.
    weights, activations : Format, mapping of str to Format, or None
        Formats of `sparqsim.workloads.formats`, one or by layer; None leaves float32, and so does a
        mapping the layers that it lacks. A function that rounds arrays in the place of a format is
        trained through as it is.
    learn : bool
        Train the steps (LSQ), or keep them (plain straight-through).
    by_channel : collection of str
        Layers whose weights have a step for each output channel; the others have one.

    Raises
    ------
    InputError
        If the network is quantized already, or a tensor or format cannot be.
    """
    layers = weighted(net)
    of_weights, of_inputs = _by_layer(weights, layers), _by_layer(activations, layers)
    if any(isinstance(module, Quantizer | StraightThrough) for module in net.modules()):
        raise InputError("the network is quantized already; quantize a copy made before")
    inputs: dict[str, torch.Tensor] = {}
    if of_inputs:
        x, _ = _data(images, np.zeros(len(images), dtype=int))
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, arguments, name=name: inputs.__setitem__(name, arguments[0])
            )
            for name, layer in layers.items()
        ]
        try:
            with torch.no_grad():
                net(x)
        finally:
            for hook in hooks:
                hook.remove()
    for name, layer in layers.items():
        if name in of_weights:
            sample, apart = layer.weight.detach().numpy(), name in by_channel
            elements = sample[0].size if apart else sample.size
            made = _rounding(of_weights[name], sample, elements, learn, apart)
            parametrize.register_parametrization(layer, "weight", made)
        if name in of_inputs:
            sample = inputs[name].numpy()
            per_image = sample.size // len(sample)  # LSQ [2], 2.2: features of a layer
            layer.input_quantizer = _rounding(of_inputs[name], sample, per_image, learn)
            layer.register_forward_pre_hook(_quantize_input)
    return net


def _rounding(
    given: Format | Rounds,
    sample: NDArray[Any],
    elements: int,
    learn: bool,
    by_channel: bool = False,
) -> nn.Module:
    if isinstance(given, Format):
        return Quantizer(given, sample, elements=elements, learn=learn, by_channel=by_channel)
    return StraightThrough(given)


# ---------------------------------------------------------------------------------- pruning


SINGLE_WEIGHTS = prune.Unstructured()


class Mask(nn.Module):
    """Holds pruned weights at zero, and so their slopes."""

    def __init__(self, kept: NDArray[np.bool_]):
        super().__init__()
        self.register_buffer("kept", torch.from_numpy(np.array(kept, dtype=bool)))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.kept


def magnitudes(net: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return the scores of magnitude pruning by layer name: what `prune.masks` takes."""
    return {name: prune.magnitude(weight) for name, weight in weights_of(net).items()}


def saliencies(
    net: nn.Module, images: NDArray[Any], labels: NDArray[Any]
) -> dict[str, NDArray[np.float32]]:
    """Return `prune.saliency` by layer name: each weight times its slope of the mean loss."""
    x, y = _data(images, labels)
    net.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    found = {
        name: prune.saliency(layer.weight.detach().numpy(), layer.weight.grad.numpy())
        for name, layer in weighted(net).items()
    }
    net.zero_grad()
    return found


def two_four(net: nn.Module) -> dict[str, NDArray[np.bool_]]:
    """Return masks that keep the larger 2 of each 4 neighbours along the input channels.

    Layers with a number of input channels that is no multiple of 4 are left out: dense, as the
    sparse tensor core runs them.
    """
    fitting = {n: s for n, s in magnitudes(net).items() if s.shape[1] % 4 == 0}
    return prune.masks(fitting, prune.NM(n=2, m=4, axis=1)) if fitting else {}


def set_masks(net: nn.Module, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Hold weights at zero where a layer's mask is False; what was pruned stays pruned.

    Raises
    ------
    InputError
        If there is no such layer, or a mask is no boolean array of the weights' shape.
    """
    layers = weighted(net)
    for name, kept in masks.items():
        if name not in layers:
            raise unknown("there is no layer to prune called", name, layers)
        layer, shape = layers[name], tuple(layers[name].weight.shape)
        if kept.dtype != bool or kept.shape != shape:
            raise InputError(
                f"the mask of layer {name!r} must be a boolean array of shape {shape}, got "
                f"{kept.dtype} of shape {kept.shape}"
            )
        present = getattr(getattr(layer, "parametrizations", None), "weight", ())
        earlier = [part for part in present if isinstance(part, Mask)]
        if earlier:
            earlier[0].kept &= torch.from_numpy(kept)
        else:
            parametrize.register_parametrization(layer, "weight", Mask(kept))


def prune_and_fine_tune(
    net: nn.Module,
    images: NDArray[Any],
    labels: NDArray[Any],
    masks: Mapping[str, NDArray[np.bool_]],
    **fitting: Any,
) -> list[float]:
    """Prune a trained network once and train what is left; ``fitting`` is for `fit`.

    The 2:4 recipe is ``prune_and_fine_tune(net, images, labels, two_four(net), ...)``.
    """
    set_masks(net, masks)
    return fit(net, images, labels, **fitting)


def cubic_sparsity(
    step: int, *, start: int, steps: int, initial: float = 0.0, final: float = 1.0
) -> float:
    """Return Zhu and Gupta's sparsity at a step [3], equation 1: fast at first, then ever slower.

    ``final + (initial - final) * (1 - (step - start) / steps)**3`` from ``start`` to
    ``start + steps``; ``initial`` before, ``final`` after.

    Raises
    ------
    InputError
        Unless ``steps >= 1`` and ``0 <= initial <= final <= 1``.
    """
    if steps < 1 or not 0.0 <= initial <= final <= 1.0:
        raise InputError(
            f"a pruning schedule must have steps >= 1 and 0 <= initial <= final <= 1, got steps "
            f"{steps}, initial {initial}, final {final}"
        )
    left = 1.0 - min(max((step - start) / steps, 0.0), 1.0)
    return final + (initial - final) * left**3


def prune_gradually(
    net: nn.Module,
    images: NDArray[Any],
    labels: NDArray[Any],
    densities: Mapping[str, float],
    *,
    pattern: prune.Pattern = SINGLE_WEIGHTS,
    epochs: int,
    pruning_epochs: int,
    every: int = 8,
    batch: int = 64,
    **fitting: Any,
) -> list[float]:
    """Train while layers are pruned ever further on the cubic schedule, then fine-tune.

    Parameters
    ----------
    densities : mapping of str to float
        Final share of weights kept, by layer name.
    pattern : Pattern
        Which zeros are allowed; it must take any density. Magnitude decides.
    epochs, pruning_epochs : int
        In all; of the schedule. The rest fine-tunes under the final masks.
    every : int
        Steps between two tightenings of the masks.
    **fitting
        For `fit`.
    """
    if not 1 <= pruning_epochs < epochs or every < 1:
        raise InputError(
            "gradual pruning needs 1 <= pruning_epochs < epochs and every >= 1, got "
            f"pruning_epochs {pruning_epochs}, epochs {epochs}, every {every}"
        )
    steps = pruning_epochs * -(-len(images) // batch)
    missing = densities.keys() - weighted(net).keys()
    if missing:
        raise unknown("there is no layer to prune called", min(missing), weighted(net))

    def tighten(step: int) -> None:
        if step == steps or (step < steps and step % every == 0):
            scores = magnitudes(net)
            for name, density in densities.items():
                now = 1.0 - cubic_sparsity(step, start=0, steps=steps, final=1.0 - density)
                set_masks(net, {name: prune.mask(scores[name], pattern, now)})

    return fit(net, images, labels, epochs=epochs, batch=batch, before_step=tighten, **fitting)
