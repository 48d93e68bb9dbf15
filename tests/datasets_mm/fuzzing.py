"""How long the fuzz tests try: a few seconds in CI, `FUZZ_SECONDS` in all for `make fuzz`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "0"))
"""Of all fuzz tests together; 0: one bounded round of each."""
TESTS: Final = 8
"""Fuzz tests among which the seconds are shared."""

ROUND: Final = settings(
    max_examples=500 if SECONDS else 60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
"""Each example has its own time limit by pytest-timeout: a hang fails the test."""


def fuzz(test: Callable[..., None]) -> Callable[..., None]:
    """A test of `@given`: one round, or as many as its share of the seconds holds."""
    bounded = ROUND(test)

    @pytest.mark.timeout(max(180, int(SECONDS)))
    @wraps(bounded)
    def repeat(*args: Any, **kwargs: Any) -> None:
        end = time.monotonic() + SECONDS / TESTS
        bounded(*args, **kwargs)
        while time.monotonic() < end:
            bounded(*args, **kwargs)

    return repeat
