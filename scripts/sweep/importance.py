"""Which parameter matters: the share of a measure's variance that each explains.

On a whole grid the Sobol indices are exact sums over its points, without a model: the first-order
index of a parameter is the variance of the means at its values, the total index the mean of the
variances along it, both over the variance of all (Saltelli et al., "Global Sensitivity Analysis",
2008, section 1.2.4). Elsewhere a random forest is fitted, and the importance of a parameter is what
is lost of its fit where the parameter is permuted (Breiman, "Random Forests", 2001; needs
scikit-learn).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparqsim.base import InputError
from sparqsim.scripts.sweep.frame import Points

TREES = 100
REPEATS = 5
SEED = 0


@dataclass(frozen=True)
class Importance:
    """Of a parameter: ``first`` alone, ``total`` with all it acts together with."""

    name: str
    first: float | None
    total: float
    method: str


def importances(points: Points, measure: str) -> list[Importance]:
    """The importance of every parameter that varies, the largest first.

    Raises
    ------
    InputError
        If the measure is no number or is the same everywhere, or scikit-learn is needed and not
        installed.
    """
    given = [None if isinstance(value, str) else value for value in points.column(measure)]
    kept = [place for place, value in enumerate(given) if value is not None]
    y = np.array([given[place] for place in kept], np.float64)
    if len(y) < 2 or not y.var():
        raise InputError(f"{measure!r} does not vary, or is no number")
    names = parameters(points)
    codes = {name: _codes(points, name, kept) for name in names}
    whole = math.prod(int(code.max()) + 1 for code in codes.values())
    together = np.unique(np.stack(list(codes.values())), axis=1).shape[1]
    if together == whole == len(y):
        found = [_exact(name, codes, y) for name in names]
    else:
        found = _permuted(points, names, codes, kept, y)
    return sorted(found, key=lambda each: -each.total)


def parameters(points: Points) -> list[str]:
    """Names that vary, without those that only follow another one."""
    kept: list[str] = []
    for name in points.varying:
        mine = [repr(value) for value in points.column(name)]
        for other in kept:
            pairs = set(zip(map(repr, points.column(other)), mine, strict=True))
            if len(pairs) == len({one for one, _ in pairs}) == len(set(mine)):
                break
        else:
            kept.append(name)
    return kept


def _codes(points: Points, name: str, kept: list[int]) -> NDArray[np.int64]:
    column = points.column(name)
    _, codes = np.unique([repr(column[place]) for place in kept], return_inverse=True)
    return codes.astype(np.int64)


def _exact(name: str, codes: dict[str, NDArray[np.int64]], y: NDArray[np.float64]) -> Importance:
    """Of a whole grid."""
    others = [code for other, code in codes.items() if other != name]
    _, rest = np.unique(np.stack(others), axis=1, return_inverse=True) if others else (0, y * 0)
    within = _group_means((y - _group_means(y, rest.astype(int))) ** 2, rest.astype(int)).mean()
    first = _group_means(y, codes[name]).var() / y.var()
    return Importance(name, float(first), float(within / y.var()), "Sobol, exact on the grid")


def _group_means(y: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each value's mean of its group."""
    groups = groups.ravel()
    sums = np.bincount(groups, y) / np.bincount(groups)
    return sums[groups]


def _permuted(
    points: Points,
    names: list[str],
    codes: dict[str, NDArray[np.int64]],
    kept: list[int],
    y: NDArray[np.float64],
) -> list[Importance]:
    try:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.inspection import permutation_importance
    except ImportError:
        raise InputError("points that are no whole grid need scikit-learn for this") from None
    table = []
    for name in names:
        column = [points.column(name)[place] for place in kept]
        numeric = all(isinstance(value, int | float) for value in column)
        table.append(np.array(column, np.float64) if numeric else codes[name].astype(float))
    x = np.stack(table, axis=1)
    forest = RandomForestRegressor(TREES, random_state=SEED, oob_score=True).fit(x, y)
    lost = permutation_importance(forest, x, y, n_repeats=REPEATS, random_state=SEED)
    method = f"permuted in a random forest (R2 {forest.oob_score_:.2f} out of bag)"
    return [
        Importance(name, None, float(mean), method)
        for name, mean in zip(names, lost.importances_mean, strict=True)
    ]
