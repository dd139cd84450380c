"""Recipes: what is done to which tensors, as a strict TOML file or by name.

A recipe has three classes of tensors: ``[weights]`` of layers, ``[activations]`` that layers read
and ``[embeddings]``, the tables that a language model looks words up in. A class that is absent is
left in float32. ``[[override]]`` gives layers, chosen by a glob on their names, recipes of their
own; the last that matches counts, and what it gives replaces the class whole::

    name = "w4a8"
    description = "4-bit weights a channel, 8-bit activations"

    [weights]
    format = "int4_narrow"     # a number format, or ant4, olive4, codebook4, float32
    granularity = "channel"    # tensor (default), channel, group:64
    calibration = "mse"        # minmax (default), mse, percentile:99.9, entropy, unit
    prune = "2:4"              # see below; nothing is pruned by default
    density = 0.5              # fraction kept, where the pattern does not say (2:4 does)
    across = true              # all weights meet the density together, the least of all pruned

    [activations]
    format = "int8"            # or "float32"
    dynamic = true             # the range is found anew for every input; false: calibrated
    granularity = "token"      # or tensor; token: each line of features has a scale (dynamic)
    prune = "threshold:0.1"    # see below; what a product reads, before it is rounded

    [[override]]
    layers = "layer*.down"
    weights = { format = "int8", granularity = "channel" }

A pattern of pruning is ``unstructured``, ``N:M`` along a layer's inputs, ``row``, ``column``,
``filter``, ``channel``, ``vector:N`` or ``block:HxW``; ``a+b`` prunes by a, what is left by b.
``2:4x2`` keeps two of four pairs of inputs, ``N:MxU`` N of M units of U neighbours.

Activations are pruned input by input: ``threshold:V`` keeps magnitudes above V, ``relative:S``
those above the share S of the largest of their line (the last axis), ``top:K`` the K largest of
each line. Their calibration ``moving:C`` is a moving average of the range over the inputs for
calibration, which follows each by the share C.

With the calibration ``unit`` the scale is 1 and the range is the format's own, as floats of 16 bits
are used; a tensor that exceeds it is refused.

A format without its sign (``flint4``, ``pot4``) is unsigned where the tensor holds nothing below
zero and signed elsewhere. Every key is checked: what is unknown is refused, by name and place.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sparqsim.base import InputError, read_text
from sparqsim.workloads.layers import unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparqsim.workloads.prune import ActivationRule, AnyPattern, Pattern

NAMED = Path(__file__).resolve().parent / "named_recipes"
KEEP = "float32"  # the format that leaves a tensor as it is
METHODS = ("minmax", "mse", "entropy")  # of calibration, but for percentiles
TensorClass = Literal["weights", "activations", "embeddings"]


class TensorRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to one class of tensors.

    Attributes
    ----------
    format : str
        A name of :func:`sparqsim.workloads.formats.get`, with or without its sign; ``antN``,
        ``oliveN`` (adaptive types, outlier-victim pairs), ``codebookN`` (k-means) or ``float32``.
    granularity : str
        Values that share a scale: ``tensor``, ``channel`` (each output; each word of a table) or
        ``group:N`` values of one channel; of dynamic activations also ``token``, each line along
        the last axis.
    calibration : str
        ``minmax``, ``mse``, ``percentile:P``, ``entropy``, or ``unit``: a scale of 1; of
        activations also ``moving:C``, a moving average of the range. ANT, OliVe and codebooks have
        a search of their own and take none.
    asymmetric : bool
        Whether an integer format gets a zero point.
    dynamic : bool
        Activations only: the range is that of each input, not calibrated.
    prune : str or None
        Pattern of the zeros to make in weights, or rule by which activations become zero.
    density : float or None
        Fraction of weights kept, in (0, 1]; needed unless the pattern is N:M.
    across : bool
        Whether all weights with this recipe meet the density together (:func:`settled`).
    score : str
        What is worth keeping: ``magnitude``, or ``saliency``, magnitude times the loss's slope,
        which only training knows.
    pad : bool
        Whether the last group of a line may be short, of N:M as hardware that pads with zeros has
        it, and of ``group:N``; else a layer whose inputs are no multiple of the group is refused.
    """

    format: str = KEEP
    granularity: str = "tensor"
    calibration: str = "minmax"
    asymmetric: bool = False
    dynamic: bool = False
    prune: str | None = None
    density: float | None = None
    across: bool = False
    score: Literal["magnitude", "saliency"] = "magnitude"
    pad: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"tensor|channel|token|group:[1-9]\d*", self.granularity):
            raise InputError(
                "granularity must be tensor, channel, token or group:N with N >= 1, "
                f"got {self.granularity!r}"
            )
        percent = re.fullmatch(r"percentile:(\d+\.?\d*)", self.calibration)
        known = (*METHODS, "unit")
        if self.calibration not in known and not percent and self.moving is None:
            raise InputError(
                "calibration must be minmax, mse, percentile:P, entropy, unit or moving:C with C "
                f"in (0, 1], got {self.calibration!r}"
            )
        if percent and not 0.0 < float(percent[1]) <= 100.0:
            raise InputError(f"a percentile must lie in (0, 100], got {percent[1]}")
        searches = self.scheme in ("ant", "olive", "codebook") or self.format == "sign"
        if searches and (self.calibration != "minmax" or self.asymmetric):
            raise InputError(
                f"{self.format} finds its own scale and has no zero point; leave out calibration "
                "and asymmetric"
            )
        if self.calibration == "unit" and (
            self.granularity != "tensor" or self.asymmetric or self.dynamic
        ):
            raise InputError(
                "the calibration unit is a scale of 1 for every value; leave out granularity, "
                "asymmetric and dynamic"
            )
        if self.prune is None and self.density is not None:
            raise InputError(f"density {self.density} needs a pattern in prune")
        if self.density is not None and not 0.0 < self.density <= 1.0:
            raise InputError(f"density must be above 0 and at most 1, got {self.density}")
        if self.scheme == "keep" and (
            self.granularity != "tensor"
            or self.calibration != "minmax"
            or self.asymmetric
            or self.dynamic
        ):
            raise InputError(
                "granularity, calibration, asymmetric and dynamic need a format other than float32"
            )
        if self.pad and not re.search(r"\d:\d", self.prune or "") and self.group is None:
            raise InputError(
                f"pad is for N:M patterns and group:N, got prune = {self.prune!r} and granularity "
                f"= {self.granularity!r}"
            )
        scheme, bits = self.scheme, self.scheme_bits
        allowed = {"ant": range(3, 9), "olive": (4, 8), "codebook": range(1, 9)}
        if scheme in allowed and bits not in allowed[scheme]:
            raise InputError(
                f"{scheme} must have one of {list(allowed[scheme])} bits, got {self.format}"
            )
        if scheme == "format":
            from sparqsim.workloads import formats

            grid = formats.get(signed_or_not(self.format)[0])
            if self.asymmetric and not isinstance(grid, formats.Int):
                raise InputError(f"{self.format} has no zero point; asymmetric is for integers")
        if self.prune is None and self.score != "magnitude":
            raise InputError(f"the score {self.score} needs a pattern in prune")
        if self.across and self.density is None:
            raise InputError("across is for a density, which all layers then meet together")
        if self.granularity == "token" and not self.dynamic:
            raise InputError(
                "granularity token finds a scale for each token when it comes; set dynamic = true"
            )
        if self.rule is not None:
            if self.density is not None or self.score != "magnitude":
                raise InputError(f"the rule {self.prune!r} takes no density and no score")
        elif self.prune is not None:
            pattern = self.pattern
            if (pattern.fixed_density() is None) != (self.density is not None):
                raise InputError(
                    f"the pattern {self.prune!r} "
                    + ("needs a density" if self.density is None else "fixes its own density")
                )

    @property
    def pattern(self) -> Pattern:
        """The pattern that ``prune`` names.

        Raises
        ------
        InputError
            If it names none.
        """
        from sparqsim.workloads.prune import Composed

        stages = [_stage(part.strip(), self.pad) for part in (self.prune or "").split("+")]
        return stages[0] if len(stages) == 1 else Composed(stages=tuple(stages))

    @property
    def rule(self) -> ActivationRule | None:
        """The rule by which activations are pruned, if ``prune`` names one.

        Raises
        ------
        InputError
            If its number is none, or out of its range.
        """
        from sparqsim.workloads import prune

        kind, colon, text = (self.prune or "").partition(":")
        rules: dict[str, Callable[[str], ActivationRule]] = {
            "threshold": lambda given: prune.Threshold(value=float(given)),
            "relative": lambda given: prune.RelativeThreshold(share=float(given)),
            "top": lambda given: prune.TopK(k=int(given)),
        }
        if not colon or kind not in rules:
            return None
        try:
            return rules[kind](text)
        except InputError as error:
            raise InputError(f"prune = {self.prune!r}: {error}") from None
        except ValueError:
            raise InputError(
                f"prune must read threshold:V, relative:S or top:K with a number, got "
                f"{self.prune!r}"
            ) from None

    @property
    def moving(self) -> float | None:
        """The share by which a moving average follows each input, for ``moving:C``."""
        found = re.fullmatch(r"moving:(\d*\.?\d+)", self.calibration, re.ASCII)
        return float(found[1]) if found and 0 < float(found[1]) <= 1 else None

    @property
    def scheme(self) -> Literal["keep", "ant", "olive", "codebook", "format"]:
        """Which way the tensor is quantized."""
        if self.format == KEEP:
            return "keep"
        match = re.fullmatch(r"(ant|olive|codebook)\d+", self.format)
        return match[1] if match else "format"  # type: ignore[return-value]

    @property
    def scheme_bits(self) -> int | None:
        """The number at the end of ``ant4``, ``olive4``, ``codebook4``."""
        if self.scheme in ("ant", "olive", "codebook"):
            return int(re.sub(r"\D", "", self.format))
        return None

    @property
    def group(self) -> int | None:
        """How many values of a channel share a scale, for ``group:N``."""
        return int(self.granularity[6:]) if self.granularity.startswith("group:") else None


def _stage(text: str, pad: bool) -> AnyPattern:
    """Return the pattern of one part of ``prune``, for weights [out, in, ...]."""
    from sparqsim.workloads import prune

    named: dict[str, AnyPattern] = {
        "unstructured": prune.Unstructured(),
        "row": prune.ROW,
        "column": prune.COLUMN,
        "filter": prune.FILTER,
        "channel": prune.CHANNEL,
    }
    if text in named:
        return named[text]
    if match := re.fullmatch(r"(\d+):(\d+)(?:x(\d+))?", text):
        ragged: Literal["short", "refuse"] = "short" if pad else "refuse"
        n, m, unit = int(match[1]), int(match[2]), int(match[3] or 1)
        return prune.NM(n=n, m=m, axis=1, ragged=ragged, unit=unit)
    if match := re.fullmatch(r"vector:(\d+)", text):
        return prune.Vectors(length=int(match[1]), axis=1)
    if match := re.fullmatch(r"block:(\d+)x(\d+)", text):
        return prune.Blocks(height=int(match[1]), width=int(match[2]))
    raise unknown("there is no pattern", text, [*named, "2:4 (any N:M)", "vector:N", "block:HxW"])


@cache
def signed_or_not(name: str) -> tuple[str, str]:
    """Return the names of a format for tensors with and without negative values.

    Raises
    ------
    InputError
        If there is no such format.
    """
    from sparqsim.workloads import formats

    signed, unsigned = f"{name}_signed", f"{name}_unsigned"
    if not (formats.is_spelled(signed) and formats.is_spelled(unsigned)):
        signed = unsigned = name
    return formats.get(signed).name, formats.get(unsigned).name


def _check_activations(where: str, tensors: TensorRecipe) -> None:
    if tensors.prune is not None and tensors.rule is None:
        raise InputError(
            f"{where}: activations are pruned by threshold:V, relative:S or top:K, got "
            f"{tensors.prune!r}"
        )
    if tensors.granularity not in ("tensor", "token"):
        raise InputError(
            f"{where}: activations share a scale, all or those of a token; granularity must be "
            f"tensor or token, got {tensors.granularity!r}"
        )
    if tensors.moving is not None and tensors.dynamic:
        raise InputError(f"{where}: a moving average is found beforehand; it is not dynamic")


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Recipes for the layers whose name matches a glob."""

    layers: str
    weights: TensorRecipe | None = None
    activations: TensorRecipe | None = None
    embeddings: TensorRecipe | None = None

    def __post_init__(self) -> None:
        if (self.weights, self.activations, self.embeddings) == (None, None, None):
            raise InputError(
                f"the override {self.layers!r} must give weights, activations or embeddings"
            )


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to a model; see the module's text for the file."""

    name: str
    description: str = ""
    weights: TensorRecipe = TensorRecipe()
    activations: TensorRecipe = TensorRecipe()
    embeddings: TensorRecipe = TensorRecipe()
    override: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        for kind, where, tensors in self.parts():
            if kind != "activations" and tensors.dynamic:
                raise InputError(f"{where}: dynamic is for activations, whose input varies")
            if kind == "activations":
                _check_activations(where, tensors)
            elif tensors.rule is not None:
                raise InputError(f"{where}: {tensors.prune} is a rule for activations")
            elif tensors.granularity == "token" or tensors.moving is not None:
                raise InputError(
                    f"{where}: granularity token and calibration moving:C are for activations"
                )
            if kind == "activations" and tensors.scheme == "codebook":
                raise InputError(f"{where}: a codebook is for weights, which are known beforehand")
            if tensors.dynamic and tensors.calibration == "entropy":
                raise InputError(f"{where}: entropy is for calibration beforehand, not dynamic")

    def parts(self) -> Iterable[tuple[TensorClass, str, TensorRecipe]]:
        """Each class of tensors, where it stands, and what is done to it."""
        kinds: tuple[TensorClass, ...] = ("weights", "activations", "embeddings")
        for kind in kinds:
            yield kind, f"recipe {self.name!r}, [{kind}]", getattr(self, kind)
        for row in self.override:
            for kind in kinds:
                if getattr(row, kind) is not None:
                    where = f"recipe {self.name!r}, override {row.layers!r}, {kind}"
                    yield kind, where, getattr(row, kind)

    def of(self, kind: TensorClass, layer: str) -> TensorRecipe:
        """Return what is done to a tensor of the layer called ``layer``."""
        for row in reversed(self.override):
            given: TensorRecipe | None = getattr(row, kind)
            if given is not None and fnmatch.fnmatchcase(layer, row.layers):
                return given
        found: TensorRecipe = getattr(self, kind)
        return found

    def check_names(self, layers: Iterable[str]) -> None:
        """Check that every override matches a layer.

        Raises
        ------
        InputError
            If one does not.
        """
        layers = list(dict.fromkeys(layers))
        for row in self.override:
            if not fnmatch.filter(layers, row.layers):
                raise unknown(
                    f"recipe {self.name!r}: no layer matches override", row.layers, layers
                )


def settled(
    recipe: Recipe, weights: Mapping[str, NDArray[Any]], tables: Iterable[str] = ()
) -> Recipe:
    """The recipe with densities layer by layer where it prunes across layers.

    Of all weights with the same recipe that says ``across`` those of least magnitude are pruned,
    wherever they are; each layer then gets an override with the density that this leaves it. A
    recipe without ``across`` comes back as it is.

    Parameters
    ----------
    weights
        Of the whole network, by name, outputs first.
    tables
        Which of them are embeddings.

    Raises
    ------
    InputError
        If a weight does not suit the pattern, or nothing of a layer would be left.
    """
    from sparqsim.workloads import prune

    together: dict[tuple[TensorClass, TensorRecipe], list[str]] = {}
    for name in weights:
        kind: TensorClass = "embeddings" if name in set(tables) else "weights"
        if recipe.of(kind, name).across:
            together.setdefault((kind, recipe.of(kind, name)), []).append(name)
    overrides = []
    for (kind, asked), names in together.items():
        if asked.score != "magnitude":
            raise InputError(f"the score {asked.score} needs slopes: use sparqsim train")
        scores = {name: prune.magnitude(weights[name]) for name in names}
        kept = prune.masks(scores, asked.pattern, asked.density, "global")
        for name, mask in kept.items():
            share = prune.density_of(mask)
            if not share:
                raise InputError(
                    f"pruning across layers to {asked.density:g} leaves nothing of {name!r}; raise "
                    "the density, or treat this layer in an [[override]]"
                )
            own = msgspec.structs.replace(asked, across=False, density=share)
            overrides.append(Override(layers=glob.escape(name), **{kind: own}))
    return msgspec.structs.replace(recipe, override=(*recipe.override, *overrides))


def as_toml(recipe: Recipe) -> str:
    """The text of a recipe's file, which :func:`parse` reads back equal; defaults are left out."""
    plain = TensorRecipe()

    def keys(tensors: TensorRecipe) -> list[str]:
        return [
            f"{key} = {msgspec.json.encode(value).decode()}"  # a JSON scalar is TOML
            for key, value in msgspec.structs.asdict(tensors).items()
            if value != getattr(plain, key)
        ]

    lines = [
        f"{key} = {msgspec.json.encode(getattr(recipe, key)).decode()}"
        for key in ("name", "description")
        if getattr(recipe, key)
    ]
    kinds: tuple[TensorClass, ...] = ("weights", "activations", "embeddings")
    for kind in kinds:
        if keys(getattr(recipe, kind)):
            lines += ["", f"[{kind}]", *keys(getattr(recipe, kind))]
    for row in recipe.override:
        lines += ["", "[[override]]", f"layers = {msgspec.json.encode(row.layers).decode()}"]
        for kind in kinds:
            given = getattr(row, kind)
            if given is not None:
                inline = ", ".join(keys(given)) or f'format = "{KEEP}"'
                lines.append(f"{kind} = {{ {inline} }}")
    return "\n".join(lines) + "\n"


def parse(text: str, where: str) -> Recipe:
    """Return the recipe that a TOML text says.

    Raises
    ------
    InputError
        If it is not TOML, or a key is unknown, missing or wrong; ``where`` is named.
    """
    try:
        return msgspec.toml.decode(text, type=Recipe)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InputError(f"{where} must be a recipe: {error}") from None
    except RecursionError:
        raise InputError(f"{where} must be a recipe, but is nested too deeply") from None


def read(path: Path) -> Recipe:
    """Return the recipe of a TOML file.

    Raises
    ------
    InputError
        If the file cannot be read or is not a recipe.
    """
    return parse(read_text(path, "the recipe"), str(path))


def of_widths(weight_bits: int, activation_bits: int) -> Recipe:
    """Integers of given widths, weights by channel; one bit is a sign. A table's own widths."""

    def coded(bits: int, granularity: str) -> TensorRecipe:
        return TensorRecipe(format="sign" if bits == 1 else f"int{bits}", granularity=granularity)

    return Recipe(
        name=f"w{weight_bits}a{activation_bits}",
        description="the widths that the table of layers publishes",
        weights=coded(weight_bits, "channel"),
        activations=coded(activation_bits, "tensor"),
    )


_read_once = cache(read)  # of the recipes that ship


@cache
def named() -> dict[str, Recipe]:
    """Return the recipes that ship with Sparqsim, by name."""
    recipes = [_read_once(path) for path in sorted(NAMED.glob("*.toml"))]
    return {recipe.name: recipe for recipe in recipes}


@cache
def _shipped(name: str) -> Recipe | None:
    """The recipe of a name that ships with Sparqsim, without reading the others; or None."""
    path = NAMED / f"{name.replace(':', 'of').replace('+', '_').replace('-', '_')}.toml"
    found = _read_once(path) if path.parent == NAMED and os.path.isfile(path) else None
    return found if found is not None and found.name == name else None


def get(name_or_path: str) -> Recipe:
    """Return a recipe by name, or read it from a file.

    Raises
    ------
    InputError
        If there is neither; near names are listed.
    """
    if not name_or_path:
        raise InputError("a recipe must have a name, got an empty one")
    shipped = _shipped(name_or_path)
    if shipped is not None:
        return shipped
    path = Path(name_or_path)
    if path.suffix == ".toml" or os.path.exists(path):
        return read(path)
    raise unknown("there is no recipe", name_or_path, named())
