"""Synthetic tensors for layers whose weights are not at hand: seeded, no larger than the result.

What a sparse or low-precision machine feels of a tensor is where its zeros are and how its values
spread. Both are parameters here: a :class:`Distribution` (normal, Laplace or Student's t, with an
outlier rate), a density, and ``row_cv``, by how much some rows are denser than others.

Sparse matrices are drawn directly as CSC: the gap between two non-zeros of an iid Bernoulli
pattern is geometric, and a geometric variable is the floor of an exponential one, so the work is
proportional to the non-zeros. Rows of unequal density come from a beta distribution (the natural
one on (0, 1) with a given mean and spread); positions are then drawn at the densest row's rate and
thinned. :func:`channel_densities` gives channels whose weights and activations are dense together,
as trained networks have them; :func:`thinned` makes tensors of them. Left out: correlation between
neighbours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from sparqsim.base import InputError, kernel

if TYPE_CHECKING:
    from sparqsim.workloads.encodings.csc import CSC

BLOCK = 1 << 16  # values drawn at a time; it is part of what a seed means
KINDS = ("normal", "laplace", "student-t")


def _within(what: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    fits = isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
    if not fits or (open_low and value == low):
        bound = f"above {low}" if open_low else f"at least {low}"
        most = "" if math.isinf(high) else f" and at most {high}"
        raise InputError(f"{what} must be {bound}{most}, got {value!r}")


def _sizes(what: str, shape: tuple[int, ...]) -> None:
    for size in shape or (0,):
        if not isinstance(size, int | np.integer) or size < 1:
            raise InputError(f"{what}: sizes must be whole and at least 1, got {shape!r}")


class Distribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How values spread around zero.

    Attributes
    ----------
    kind : {"normal", "laplace", "student-t"}
    sigma : float
        Standard deviation, before outliers.
    degrees : float
        Degrees of freedom of Student's t, above 2; the smaller, the heavier the tails.
    outlier_rate : float
        Fraction of the values that are multiplied by ``outlier_factor``.
    outlier_factor : float
        At least 1.
    """

    kind: Literal["normal", "laplace", "student-t"] = "normal"
    sigma: float = 1.0
    degrees: float = 5.0
    outlier_rate: float = 0.0
    outlier_factor: float = 16.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"distribution.kind must be one of {', '.join(KINDS)}, got {self.kind!r}"
            )
        _within("distribution.sigma", self.sigma, 0.0, math.inf, open_low=True)
        _within("distribution.degrees", self.degrees, 2.0, math.inf, open_low=True)
        _within("distribution.outlier_rate", self.outlier_rate, 0.0, 1.0)
        _within("distribution.outlier_factor", self.outlier_factor, 1.0, math.inf)

    def fill(self, out: NDArray[Any], rng: np.random.Generator) -> None:
        """Overwrite the floating-point array ``out`` (contiguous, any shape) with draws."""
        flat = out.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            block[:] = self._draw(block.size, rng)
            if self.outlier_rate:
                block[rng.random(block.size) < self.outlier_rate] *= self.outlier_factor

    def _draw(self, count: int, rng: np.random.Generator) -> NDArray[Any]:
        if self.kind == "normal":
            return self.sigma * rng.standard_normal(count, np.float32)
        if self.kind == "laplace":
            return rng.laplace(0.0, self.sigma / math.sqrt(2.0), count)
        shrink = math.sqrt((self.degrees - 2.0) / self.degrees)  # variance of t is d / (d - 2)
        return self.sigma * shrink * rng.standard_t(self.degrees, count)


NORMAL = Distribution()


def sparse_matrix(
    rows: int,
    cols: int,
    density: float,
    rng: np.random.Generator,
    row_cv: float = 0.0,
    values: Distribution = NORMAL,
) -> CSC:
    """Draw a random sparse matrix without ever holding it dense.

    Parameters
    ----------
    rows, cols : int
        Outputs by inputs, as a fully connected layer has its weights.
    density : float
        Chance of an element to be non-zero, in [0, 1].
    rng : numpy.random.Generator
    row_cv : float
        Coefficient of variation (standard deviation over mean) of the rows' chances.
    values : Distribution
        Of the non-zeros, which are float32 and never exactly zero.

    Returns
    -------
    CSC
        Of shape ``(rows, cols)``.

    Raises
    ------
    InputError
        If a size, the density or ``row_cv`` is out of range.
    """
    from sparqsim.workloads.encodings.csc import CSC

    _sizes("sparse_matrix", (rows, cols))
    chances = _row_densities(rows, density, row_cv, rng)
    densest = float(chances.max())
    indptr = np.zeros(cols + 1, np.int64)
    expected = cols * float(chances.sum())
    # Eight standard deviations of room: more is needed about once in 10^15 matrices.
    indices = np.empty(int(expected + 8 * math.sqrt(expected)) + BLOCK, np.int32)
    stored = 0
    if densest > 0.0:
        keep = chances / densest if row_cv else np.empty(0)
        stored, indices = _draw_pattern(rows, cols, densest, keep, rng, indptr, indices)
    np.cumsum(indptr, out=indptr)
    drawn = np.empty(stored, np.float32)
    values.fill(drawn, rng)
    drawn[drawn == 0.0] = values.sigma  # a zero would be a hole in the pattern
    return CSC((rows, cols), indptr, indices[:stored], drawn)


def tensor(
    shape: tuple[int, ...],
    rng: np.random.Generator,
    values: Distribution = NORMAL,
    density: float = 1.0,
    row_cv: float = 0.0,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Draw a dense array, with zeros at random places if ``density`` is below 1.

    Parameters
    ----------
    shape : tuple of int
    rng : numpy.random.Generator
    values : Distribution
        Of the non-zeros.
    density : float
        Chance of an element to be non-zero, in [0, 1].
    row_cv : float
        Coefficient of variation of that chance over the first axis (channels, rows).
    dtype : numpy floating dtype

    Returns
    -------
    ndarray
        Of ``shape``; nothing else of its size is held on the way.

    Raises
    ------
    InputError
        If a parameter is out of range or ``dtype`` is not a floating one.
    """
    _sizes("tensor", shape)
    if np.dtype(dtype).kind != "f":
        raise InputError(
            f"tensor: dtype must be floating, got {np.dtype(dtype)}; quantize it after"
        )
    chances = _row_densities(shape[0], density, row_cv, rng)
    out = np.empty(shape, dtype)
    values.fill(out, rng)
    if density < 1.0:
        for row, chance in zip(out.reshape(shape[0], -1), chances, strict=True):
            for start in range(0, row.size, BLOCK):
                block = row[start : start + BLOCK]
                block[rng.random(block.size, np.float32) >= chance] = 0.0
    return out


# derived: by how much densities of input channels spread in five layers of a pruned MobileNet 0.5
# (the masks of Sparseloop's artifact, MICRO 2022, figure 12), as a share of the most there can be,
# sqrt(d (1 - d)): .12 to .31 of weights, .72 to .81 of activations; their means
WEIGHT_SPREAD, ACTIVATION_SPREAD = 0.19, 0.77


def channel_densities(
    channels: int,
    weight_density: float,
    activation_density: float,
    correlation: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Densities of each input channel: of the weights that read it, and of its activations.

    Both are beta distributed about their means, as widely as measured layers are, and joined by a
    Gaussian copula: ``correlation`` is that of the channels' normal scores. A machine that skips
    zeros of both then does ``1 + r cv_w cv_a`` times the products of independent places.

    Raises
    ------
    InputError
        If a density or the correlation is out of range.
    """
    from scipy.special import betaincinv, ndtr

    _within("weight density", weight_density, 0.0, 1.0)
    _within("activation density", activation_density, 0.0, 1.0)
    _within("correlation", correlation, -1.0, 1.0)
    own = rng.standard_normal((2, channels))
    scores = own[0], correlation * own[0] + math.sqrt(1 - correlation**2) * own[1]
    found = []
    for score, density, spread in (
        (scores[0], weight_density, WEIGHT_SPREAD),
        (scores[1], activation_density, ACTIVATION_SPREAD),
    ):
        both = 1 / spread**2 - 1  # the two parameters of the beta: their sum sets its spread
        if 0.0 < density < 1.0:
            drawn = betaincinv(density * both, (1 - density) * both, ndtr(score))
        else:
            drawn = np.full(channels, density)
        found.append(np.asarray(drawn, np.float64))
    return found[0], found[1]


def thinned(
    dense: NDArray[Any], chances: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[Any]:
    """Zeros in a dense array where a lot is above its chance (broadcast); changed in place."""
    for row, chance in zip(dense, np.broadcast_to(chances, dense.shape), strict=True):
        row[rng.random(row.shape, np.float32) >= chance] = 0.0
    return dense


def activations(
    shape: int | tuple[int, ...],
    density: float,
    rng: np.random.Generator,
    values: Distribution = NORMAL,
) -> NDArray[np.float32]:
    """Draw activations as a rectifier leaves them: iid non-zero with chance ``density``, positive.

    Parameters
    ----------
    shape : int or tuple of int
    density : float
        In [0, 1].
    rng : numpy.random.Generator
    values : Distribution
        Its magnitudes are taken.

    Returns
    -------
    float32 array of ``shape``
    """
    shape = (shape,) if isinstance(shape, int) else shape
    _sizes("activations", shape)
    out = tensor((1, *shape), rng, values, density)[0]
    return np.abs(out, out=out)


def _row_densities(
    rows: int, density: float, row_cv: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Chances of the rows: beta distributed with mean ``density`` and spread ``row_cv``."""
    _within("density", density, 0.0, 1.0)
    _within("row_cv", row_cv, 0.0, math.inf)
    if row_cv == 0.0 or density in (0.0, 1.0):
        return np.full(rows, density)
    _within("row_cv, unless 0,", row_cv, 1e-6, math.inf)
    # derived: the beta's mean a / (a + b) is the density, its deviation row_cv times that
    a = (1.0 - density) / row_cv**2 - density
    if a <= 0.0:
        most = math.sqrt((1.0 - density) / density)
        raise InputError(
            f"row_cv must be below sqrt((1 - density) / density) = {most:.3g} at density "
            f"{density}, got {row_cv}"
        )
    return rng.beta(a, a * (1.0 - density) / density, rows)


def _draw_pattern(
    rows: int,
    cols: int,
    chance: float,
    keep: NDArray[np.float64],
    rng: np.random.Generator,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
) -> tuple[int, NDArray[np.int32]]:
    """Walk the matrix column by column in geometric gaps; count columns in ``indptr[1:]``."""
    rate = -math.log1p(-chance) if chance < 1.0 else math.inf
    stored, row, col = 0, -1, 0
    while col < cols:
        waits = rng.standard_exponential(BLOCK)
        lots = rng.random(BLOCK) if keep.size else keep
        if stored + BLOCK > indices.size:
            indices = np.concatenate([indices, np.empty(BLOCK, np.int32)])
        stored, row, col = _take(
            waits, rate, lots, keep, rows, cols, row, col, indptr, indices, stored
        )
    return stored, indices


@kernel(error_model="numpy", _nrt=False)
def _take(waits, rate, lots, keep, rows, cols, row, col, indptr, indices, stored):
    """Place one non-zero after each wait; return (stored, row, col) of the last place reached.

    ``waits`` are standard exponential; divided by ``rate`` and floored they are the zeros skipped.
    With ``keep`` [rows] a place is kept only if its lot is below its row's entry.
    """
    for i in range(waits.size):
        skipped = waits[i] / rate
        if skipped >= (cols - col) * rows:  # also keeps the conversion below from overflowing
            return stored, row, cols
        row += 1 + np.int64(skipped)
        if row >= rows:
            col += row // rows
            row %= rows
            if col >= cols:
                return stored, row, cols
        if keep.size and lots[i] >= keep[row]:
            continue
        indices[stored] = row
        indptr[col + 1] += 1
        stored += 1
    return stored, row, col
