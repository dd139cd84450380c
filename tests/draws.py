"""How many draws a property of netlists gets: some on every run, the same ones, and four times as
many, others, when ``make explore`` draws afresh."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

AFRESH = 4


def draws(count: int) -> settings:
    """``count`` draws on every run; none is too slow."""
    times = 1 if settings().derandomize else AFRESH
    return settings(
        max_examples=times * count, deadline=None, suppress_health_check=list(HealthCheck)
    )
