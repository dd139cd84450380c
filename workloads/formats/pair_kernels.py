"""Compiled passes over outlier-victim pairs: what :mod:`~sparqsim.workloads.formats.pairs` does."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparqsim.base import kernel


@kernel()
def settle_pairs(x: Any, flagged: Any, identifier: int, larger: bool, out: Any) -> None:
    """Put the identifier in the victims' places.

    Parameters
    ----------
    x
        Flat, of even length: the numbers, to tell the larger of two outliers.
    flagged
        Their codes, 256 added where the code is an outlier's.
    """
    for i in range(0, x.size, 2):
        left, right = flagged[i], flagged[i + 1]
        out[i], out[i + 1] = left & 255, right & 255
        if (left | right) >= 256:
            if left >= 256 and right >= 256:
                left_stays = not larger or np.abs(x[i]) >= np.abs(x[i + 1])
            else:
                left_stays = left >= 256
            out[i + 1 if left_stays else i] = identifier


@kernel()
def decode_pairs(codes: Any, identifier: int, normal: Any, outlier: Any, out: Any) -> int:
    """Values of flat codes; the index of the first of a pair that cannot be, or -1."""
    for i in range(0, codes.size, 2):
        left, right = int(codes[i]), int(codes[i + 1])
        if left < 0 or right < 0 or left >= normal.size or right >= normal.size:
            return i
        elif right == identifier:
            if left & (identifier - 1) == 0:
                return i
            out[i], out[i + 1] = outlier[left], 0.0
        elif left == identifier:
            if right & (identifier - 1) == 0:
                return i
            out[i], out[i + 1] = 0.0, outlier[right]
        else:
            out[i], out[i + 1] = normal[left], normal[right]
    return -1
