"""Conditions on validation metrics: `diversity > 0.5 and loss < 3`. Imports no torch."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_CONDITION: Final = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*")


class Condition(NamedTuple):
    """A bound on one validation metric."""

    metric: str
    comparison: str
    bound: float

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Whether a validation fulfils it; one without the metric, or with NaN, does not."""
        value = metrics.get(self.metric, float("nan"))
        return COMPARISONS[self.comparison](value, self.bound)


def parse_conditions(text: str, metrics: Collection[str] = ()) -> tuple[Condition, ...]:
    """The conditions of the setting `monitor_where`; empty: none.

    `metrics`: those that a validation has; empty: they are not checked.

    Raises:
        ValueError: it is no list of comparisons, or names another metric.
    """
    conditions = []
    for part in re.split(r"\band\b", text) if text.strip() else []:
        match = _CONDITION.fullmatch(part)
        if match is None:
            raise ValueError(
                f"monitor_where: '{part.strip()}' is no condition; write a metric, one of > >= < "
                "<= and a number, such as diversity > 0.5, and join several by `and`"
            )
        if metrics and match[1] not in metrics:
            names = ", ".join(metrics)
            raise ValueError(f"monitor_where: no validation metric '{match[1]}'; known: {names}")
        conditions.append(Condition(match[1], match[2], float(match[3])))
    return tuple(conditions)
