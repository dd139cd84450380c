"""Import a network from a ``torch.nn.Module`` by watching it run once on an example.

The module runs in evaluation mode; every tensor operation it really performs passes by a recorder
below autograd, where ``nn.Linear``, ``F.linear``, ``einsum`` and attention have already become a
few kernels. So no rewriting of the module is needed and Python control flow is followed, as the
example steers it. Convolutions and products with a parameter become layers named after it; products
of two activations become :class:`~sparqsim.workloads.layers.MatMul`. Batch norm right behind a
layer is folded. A layer that runs again on the same shape (a recurrent step, a shared head) adds to
its rows or batch; at another shape it is listed, and its weights are counted, once more.

Refused by name: transposed and 3-D convolutions, quantized and custom kernels. Needs torch.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparqsim.base import InputError
from sparqsim.workloads.importers import Imported, ImportReport, Names, Tensors, with_layers
from sparqsim.workloads.layers import Conv2d, Layer, Linear, MatMul

BATCH_NORMS = frozenset(
    {"native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"}
)
# What leaves each matrix of a stack one.
COPYING = frozenset(
    {"expand", "view", "_unsafe_view", "reshape", "clone", "_to_copy", "alias", "mul", "div"}
)

# Kernels with products in them that are no layers here; most are made of others before they run.
MULTIPLYING = re.compile(
    r"mm(_|$)|matmul|linear$|(^|_)conv(olution|_|\d|$)|cdist|pdist|euclidean|attention|rnn_layer|quantized"
)


def import_torch(module: Any, *example: Any, name: str | None = None) -> Imported:
    """Return the layers and weights of a module.

    Parameters
    ----------
    module : torch.nn.Module
        It is left as it was: its weights are copied, its training flags restored.
    *example : tensors
        What ``module(*example)`` takes; their shapes decide the layers' shapes.
    name : str, optional
        Of the model; the module's class by default.

    Raises
    ------
    InputError
        If the module is not one, fails on the example, or does work that is no layer here; the
        message names the operation and the submodule.
    """
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    name = name or type(module).__name__
    recorder = _Recorder(module, f"module {name}")
    with _evaluating(module), recorder.following(module):
        try:
            with torch.no_grad(), recorder:
                output = module(*example)
        except InputError:
            raise
        except Exception as error:  # whatever the module's own code raises
            raise InputError(
                f"module {name} fails on the example in {recorder.place}: {error}"
            ) from error
    return recorder.imported(name, output)


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode and plain kernels; everything is put back afterwards."""
    training = [(part, part.training) for part in module.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TF32 acceleration")  # of asking for flags at all
            # oneDNN would hide a whole LSTM in one kernel
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for part, flag in training:
            part.training = flag


class _Made:
    """A layer being collected, and the affine operations seen behind it.

    ``outputs`` are the layer's output and what views and affine operations made of it, in a chain;
    they are kept alive so that their identities stay theirs. ``behind`` are the operations:
    name, scale, shift, labels of their constants.
    """

    def __init__(self, layer: Layer, tensors: Tensors | None, output: Any) -> None:
        self.layer, self.tensors = layer, tensors
        self.outputs = [output]
        self.runs = 1
        self.behind: list[tuple[str, Any, Any, list[str]]] = []


class _Recorder(TorchDispatchMode):
    def __init__(self, module: Any, source: str) -> None:
        super().__init__()
        self.source = source
        self.made: list[_Made] = []
        self.left_out: Counter[str] = Counter()
        self._names = Names()
        self._path: list[str] = []
        self._uses: Counter[int] = Counter()  # by identity of a layer's output, which is kept alive
        self._by_output: dict[int, _Made] = {}
        self._by_weight: dict[tuple[Any, ...], _Made] = {}
        self._first: dict[tuple[int, int, int], str] = {}  # layer by the place of its weights
        self._kept: list[Any] = []
        self._copies: dict[int, int] = {}  # matrices in a row of a stack that are one, by identity
        # Constants by storage: parameters, buffers and whatever is computed from these alone.
        self._constants: dict[int, str] = {}
        self._taken: set[str] = set()
        for label, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_meta:
                raise InputError(f"{source}: {label} has a shape but no values; load its weights")
            if tensor.numel():
                self._constants.setdefault(_storage(tensor), label)
        self._sizes = {label: tensor.numel() for label, tensor in module.named_parameters()}
        self._handlers: dict[str, Callable[..., None]] = {
            "convolution": self._convolution,
            "linear": self._linear,
            "mm": lambda out, a, b: self._product(out, a, b),
            "addmm": self._addmm,
            "bmm": self._bmm,
            "baddbmm": lambda out, c, a, b, **_: self._bmm(out, a, b),
            "mv": self._mv,
            "addmv": lambda out, c, a, b, **_: self._mv(out, a, b),
            "addbmm": lambda out, c, a, b, **_: self._bmm(out, a, b),
            "dot": lambda out, a, b: self._product(out, a.reshape(1, -1), b.reshape(-1, 1)),
        }

    # -- where we are ---------------------------------------------------------------------------

    @property
    def place(self) -> str:
        return repr(self._path[-1]) if self._path and self._path[-1] else "the module itself"

    @contextmanager
    def following(self, module: Any) -> Iterator[None]:
        """Know which submodule is running."""

        def leave(*_: Any) -> None:
            self._path.pop()

        hooks = []
        for label, part in module.named_modules():
            hooks.append(part.register_forward_pre_hook(lambda *_, at=label: self._path.append(at)))
            hooks.append(part.register_forward_hook(leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _fail(self, text: str) -> InputError:
        return InputError(f"{self.source}, in {self.place}: {text}")

    # -- recording ------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        namespace, _, operation = func._schema.name.partition("::")
        if namespace not in ("aten", "prim", "prims"):
            raise self._fail(f"the kernel {func._schema.name} is not supported")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        for tensor in tensors:
            self._uses[id(tensor)] += 1
        if tensors and isinstance(out, torch.Tensor):
            self._note_copies(operation, out, *args)
        if tensors and all(_storage(tensor) in self._constants for tensor in tensors):
            label = self._constants[_storage(tensors[0])]
            for made in tree_leaves(out):
                if isinstance(made, torch.Tensor) and made.numel():
                    self._constants.setdefault(_storage(made), label)
                    self._kept.append(made)  # else another tensor could get its storage
        elif operation in self._handlers:
            self._handlers[operation](out, *args, **kwargs)
        elif operation.startswith("_scaled_dot_product"):
            self._attention(out, *args)
        elif MULTIPLYING.search(operation):
            raise self._fail(f"the kernel {func._schema.name} is not supported")
        elif func.is_view or operation == "_unsafe_view":
            self._view(out, args[0])
        elif tensors and not self._follows(operation, out, args, kwargs):
            self.left_out[operation] += 1
        return out

    def _label(self, tensor: Any) -> str | None:
        return self._constants.get(_storage(tensor))

    def _values(self, tensor: Any) -> NDArray[Any]:
        """Copy a constant, and note that a layer took it in."""
        label = self._label(tensor)
        if label is not None:
            self._taken.add(label)
        if tensor.is_complex():
            raise self._fail(f"{label} holds complex numbers, which are not supported")
        values: NDArray[Any] = tensor.detach().to(torch.float32).cpu().numpy().copy()
        return values

    def _add(
        self,
        label: str,
        make: Callable[[str], Layer],
        out: Any,
        weight: Any = None,
        bias: Any = None,
    ) -> None:
        """Append a layer, or add its work to the same layer's earlier run."""
        first = make("it")
        if weight is not None:
            spread = {"rows": 1} if isinstance(first, Linear) else {"batch": 1}
            shape = msgspec.structs.replace(first, **spread)
            where = (_storage(weight), weight.storage_offset(), weight.stride(), shape)
            earlier = self._by_weight.get(where)
            if earlier is not None:
                (field,) = spread
                total = getattr(earlier.layer, field) + getattr(first, field)
                earlier.layer = msgspec.structs.replace(earlier.layer, **{field: total})
                earlier.runs += 1
                return
        layer = msgspec.structs.replace(first, name=self._names.take(label))
        tensors = None
        if weight is not None:
            place = (_storage(weight), weight.storage_offset(), weight.numel())
            owner = self._first.setdefault(place, layer.name)
            if owner != layer.name:
                layer = msgspec.structs.replace(layer, weights_of=owner)
            values = self._values(weight).reshape(layer.weight_shape)
            offset = None if bias is None else self._values(bias).reshape(-1)
            tensors = Tensors(values).then(None, offset)
        made = _Made(layer, tensors, out)
        self.made.append(made)
        self._chain(made, out)
        if weight is not None:
            self._by_weight[where] = made

    def _chain(self, made: _Made, out: Any) -> None:
        if made.outputs[-1] is not out:
            made.outputs.append(out)
        self._uses[id(out)] = 0  # a tensor long gone may have had this identity
        self._by_output[id(out)] = made

    def _behind(self, tensor: Any) -> _Made | None:
        """Return the layer with weights whose chain ``tensor`` ends, if there is one."""
        made = self._by_output.get(id(tensor))
        follows = made is not None and made.tensors is not None and made.outputs[-1] is tensor
        return made if follows else None

    def _view(self, out: Any, source: Any) -> None:
        """A view of a linear layer's output that leaves its features last is still its output."""
        made = self._behind(source)
        if made is None or not isinstance(made.layer, Linear) or not isinstance(out, torch.Tensor):
            return
        if out.numel() == source.numel() and out.shape[-1:] == source.shape[-1:]:
            self._chain(made, out)

    def _follows(
        self, operation: str, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Note an affine operation that stands right behind a layer, if this is one."""
        if operation in BATCH_NORMS:
            return self._batch_norm(operation, out, *args)
        return operation == "add" and self._offset(out, *args, **kwargs)

    def _offset(self, out: Any, x: Any, y: Any, alpha: float = 1) -> bool:
        """Note the addition of a constant vector to a linear layer's output: its bias."""
        made = self._behind(x)
        label = self._label(y) if isinstance(y, torch.Tensor) else None
        if made is None or label is None or alpha != 1 or not isinstance(made.layer, Linear):
            return False
        if tuple(y.shape) != (made.layer.out_features,) or out.shape[-1:] != y.shape:
            return False
        made.behind.append(("add", None, y.detach().double().cpu().numpy().copy(), [label]))
        self._chain(made, out)
        return True

    def _constant_bias(self, bias: Any, outputs: int) -> Any:
        """Return ``bias`` if it is a constant with one value per output, else None."""
        fits = bias is not None and self._label(bias) is not None and bias.numel() == outputs
        return bias if fits else None

    def _convolution(
        self,
        out: Any,
        x: Any,
        weight: Any,
        bias: Any,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],
        groups: int,
    ) -> None:
        label = self._label(weight)
        rank = weight.dim() - 2
        if transposed or rank not in (1, 2) or label is None:
            kind = (
                "transposed" if transposed else "without constant weights" if not label else "3-D"
            )
            raise self._fail(f"a convolution that is {kind} is not supported")

        def pair(values: Any, missing: int = 1) -> tuple[int, int]:
            """(height, width); a 1-D convolution has height ``missing``."""
            height, width = values if rank == 2 else (missing, *values)
            return height, width

        def make(name: str) -> Layer:
            return Conv2d(
                name=name,
                in_channels=x.shape[1],
                out_channels=weight.shape[0],
                input=pair(x.shape[2:]),
                kernel=pair(weight.shape[2:]),
                stride=pair(stride),
                padding=pair(padding, 0),
                dilation=pair(dilation),
                groups=groups,
                bias=bias is not None,
                batch=x.shape[0],
            )

        self._add(_stem(label), make, out, weight, bias)

    def _product(self, out: Any, a: Any, b: Any, bias: Any = None) -> None:
        """A matrix product ``[m, k] by [k, n]``, either of which may be constant."""
        (m, k), n = a.shape, b.shape[1]
        right, left = self._label(b), self._label(a)
        if right is None and left is None:
            self._add_matmul("matmul", out, 1, m, k, n)
            return
        weight, rows = (b.t(), m) if right is not None else (a, n)
        bias = self._constant_bias(bias, weight.shape[0]) if right is not None else None

        def make(name: str) -> Layer:
            return Linear(
                name=name,
                in_features=k,
                out_features=weight.shape[0],
                rows=rows,
                bias=bias is not None,
            )

        self._add(_stem(right or left or ""), make, out, weight, bias)

    def _linear(self, out: Any, x: Any, weight: Any, bias: Any = None) -> None:
        self._product(out, x.reshape(-1, x.shape[-1]), weight.t(), bias)

    def _addmm(
        self, out: Any, c: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1
    ) -> None:
        if (beta, alpha) != (1, 1):
            raise self._fail("addmm with factors is not supported: multiply them into the weights")
        self._product(out, a, b, c)

    def _mv(self, out: Any, a: Any, b: Any) -> None:
        self._product(out, a, b.reshape(-1, 1))

    def _bmm(self, out: Any, a: Any, b: Any) -> None:
        batch, m, k = a.shape
        if self._label(a) is None and self._label(b) is None:
            batch, m = self._once(b, batch, m)
            self._add_matmul("matmul", out, batch, m, k, b.shape[2])
        elif self._label(b) is not None and (batch == 1 or b.stride(0) == 0):
            self._product(out, a.reshape(batch * m, k), b[0])
        elif self._label(a) is not None and batch == 1:
            self._product(out, a[0], b[0])
        else:
            raise self._fail("a product with a batch of constant matrices is not supported")

    def _attention(self, out: Any, query: Any, key: Any, value: Any, *_: Any) -> None:
        *batch, length, depth = query.shape
        heads = int(np.prod(batch))
        output = out[0] if isinstance(out, tuple | list) else out
        steps = key.shape[-2]
        self._add_matmul("scores", output, *self._once(key, heads, length), depth, steps)
        self._add_matmul(
            "context", output, *self._once(value, heads, length), steps, value.shape[-1]
        )

    def _once(self, right: Any, batch: int, m: int) -> tuple[int, int]:
        """Products and rows of each: of what meets copies of one matrix one product is made."""
        copies = self._copies.get(id(right), 1)
        return (batch // copies, m * copies) if batch % copies == 0 else (batch, m)

    def _note_copies(self, operation: str, out: Any, source: Any, *more: Any) -> None:
        """Note a stack of matrices of which so many in a row are copies of one.

        So keys and values are repeated for their query heads: an axis of 1 before the matrices is
        expanded and merged with the heads, and each matrix may be turned or scaled.
        """
        if not isinstance(source, torch.Tensor) or min(out.dim(), source.dim()) < 3:
            return
        copies = self._copies.get(id(source), 1)
        matrix, made = tuple(source.shape[-2:]), tuple(out.shape[-2:])
        if operation == "expand" and out.shape != source.shape:
            alone = source.dim() == out.dim() and source.shape[-3] == 1
            alike = source.shape[:-3] + source.shape[-2:] == out.shape[:-3] + out.shape[-2:]
            copies = out.shape[-3] if alone and alike else 1
        elif operation == "transpose":
            turned = {axis % source.dim() for axis in more} == {source.dim() - 2, source.dim() - 1}
            copies = copies if turned else 1
        else:
            alone = not any(isinstance(each, torch.Tensor) and each.dim() for each in more)
            copies = copies if operation in COPYING and made == matrix and alone else 1
        if copies > 1:
            self._copies[id(out)] = copies
            self._kept.append(out)

    def _add_matmul(self, kind: str, out: Any, batch: int, m: int, k: int, n: int) -> None:
        path = self._path[-1] if self._path else ""

        def make(name: str) -> Layer:
            return MatMul(name=name, batch=batch, m=m, k=k, n=n)

        self._add(f"{path}.{kind}" if path else kind, make, out)

    def _batch_norm(
        self, operation: str, out: Any, x: Any, gamma: Any, beta: Any, *rest: Any
    ) -> bool:
        """Note a batch norm that stands right behind a layer; whether it folds is known later."""
        made = self._behind(x)
        training = operation != "_native_batch_norm_legit_no_training" and rest[2]
        channels_first = x.dim() == 2 or (made is not None and isinstance(made.layer, Conv2d))
        if made is None or training or rest[0] is None or not channels_first:
            return False
        constants = [t for t in (gamma, beta, rest[0], rest[1]) if t is not None]
        labels = [label for t in constants if (label := self._label(t)) is not None]

        def values(tensor: Any, otherwise: float) -> NDArray[Any]:
            if tensor is None:
                return np.full(x.shape[1], otherwise)
            array: NDArray[Any] = tensor.detach().double().cpu().numpy()
            return array

        scale = values(gamma, 1.0) / np.sqrt(values(rest[1], 1.0) + rest[-1])
        shift = values(beta, 0.0) - values(rest[0], 0.0) * scale
        made.behind.append(("batch_norm", scale, shift, labels))
        self._chain(made, out[0])
        return True

    # -- the end --------------------------------------------------------------------------------

    def imported(self, name: str, output: Any) -> Imported:
        """Fold what may be folded and hand everything over."""
        returned = {id(leaf) for leaf in tree_leaves(output)}
        layers: list[Layer] = []
        tensors: dict[str, Tensors] = {}
        for made in self.made:
            layer, held = made.layer, made.tensors
            # Folding changes the outputs before the last: nobody else may have read them.
            alone = made.runs == 1 and all(
                self._uses[id(tensor)] == 1 and id(tensor) not in returned
                for tensor in made.outputs[:-1]
            )
            for operation, scale, shift, labels in made.behind:
                if not alone or held is None:
                    self.left_out[operation] += 1
                    continue
                held = held.then(scale, shift)
                self._taken.update(labels)
                layer = msgspec.structs.replace(layer, bias=True)
            layers.append(layer)
            if held is not None:
                tensors[layer.name] = held
        other = sum(size for label, size in self._sizes.items() if label not in self._taken)
        model = with_layers(name, self.source, layers, other)
        taken = Counter(type(layer).__name__ for layer in layers)
        report = ImportReport(taken=taken, passed=dict(self.left_out))
        return Imported(model, tensors, dict(self.left_out), report=report)


def _storage(tensor: Any) -> int:
    pointer: int = tensor.untyped_storage().data_ptr()
    return pointer


def _stem(label: str) -> str:
    """Name of the layer whose parameter this is: ``block.conv.weight`` is of ``block.conv``."""
    stem = label.removesuffix("weight").rstrip("._")
    return stem or label
