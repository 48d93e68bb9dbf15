"""The `[search]` table of a plan: what is searched, over which settings, and whether that can be.

Apart from the plan, which knows products of names; here a suite grows while it runs. No Optuna:
what is asked is checked everywhere, what it takes is loaded by the searcher alone.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from datasets_mm import strict_toml
from datasets_mm.strict_toml import nearest

REMEDY: Final = "install the `search` extra: pip install 'workbench-mm[search]'"

Settings = dict[str, Any]


class Range(BaseModel):
    """The values that one setting may take: from low to high, or one of a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Search on a logarithmic scale: 1e-5 to 1e-4 is as wide as 1e-4 to 1e-3."""
    step: int | float | None = Field(None, gt=0)
    """Only low, low + step, low + 2 step, …"""
    choices: tuple[Any, ...] = ()
    """One of these; a plain list in TOML means the same."""

    @model_validator(mode="before")
    @classmethod
    def _of_list(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("give a list of values, or low and high, not both")
            written = [canonical(choice) for choice in self.choices]
            if len(set(written)) < len(written):
                raise ValueError("a value stands twice in the list; leave one out")
            return self
        if self.low is None or self.high is None:
            raise ValueError(
                "give { low = 1e-5, high = 1e-3 } or a list of values such as [8, 16, 32]"
            )
        self._check_numbers(float(self.low), float(self.high))
        return self

    def _check_numbers(self, low: float, high: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError("low must be a number below high")
        if self.log and low <= 0:
            raise ValueError("a logarithmic range needs low above 0")
        if self.log and self.step is not None:
            raise ValueError("give log or step, not both")

    def ends(self) -> dict[str, Any]:
        """The values that decide whether the setting allows the range, by their names in it."""
        if self.choices:
            return {f"[{place}]": choice for place, choice in enumerate(self.choices)}
        return {".low": self.low, ".high": self.high}

    def values(self, *, whole: bool) -> list[Any] | None:
        """All values where they can be counted; None for a range of real numbers."""
        if self.choices:
            return list(self.choices)
        if self.low is None or self.high is None or (self.step is None and not whole):
            return None
        step = self.step or 1
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [self.low + step * place for place in range(count)] if count <= 10_000 else None

    def words(self) -> str:
        """`1e-05 … 0.001 (log)`, `8, 16, 32`."""
        if self.choices:
            return ", ".join(map(canonical, self.choices))
        kind = " (log)" if self.log else f", step {self.step:g}" if self.step else ""
        return f"{self.low:g} … {self.high:g}{kind}"


class Search(BaseModel):
    """A search: runs of one kind, their settings chosen one after the other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(min_length=1)
    """What is to be best: a metric of the evaluation (`recall@1`), or `loss` of the training."""
    split: str = ""
    """The subset that the metric is measured on; empty: the first that has it."""
    direction: Literal["maximize", "minimize"] | None = None
    """None: as the metric itself says."""
    trials: int = Field(20, ge=1, le=9999)
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = Field(42, ge=0, le=2**31)
    pruner: Literal["median", "none"] = "median"
    """`median`: a trial that is worse than half of the earlier ones at the same point is ended."""
    startup: int = Field(5, ge=1)
    """Trials with random settings, before the sampler learns and the pruner prunes."""
    prune_after: float = Field(0.2, ge=0, le=1)
    """Share of its training before which no trial is pruned: a warm-up tells nothing yet."""
    live: str = "loss"
    """What the pruner looks at while a trial trains: `loss`, or a training metric such as `r@1`."""
    ranges: dict[str, Range] = Field(min_length=1)


def canonical(value: Any) -> str:
    """One text for one value, whatever its type."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def key(settings: Mapping[str, Any]) -> str:
    """One text for one choice of settings."""
    return canonical({name: settings[name] for name in sorted(settings)})


def whole_settings(search: Search, params: type[BaseModel]) -> set[str]:
    """The searched settings that take whole numbers only."""
    return {name for name in search.ranges if _is_whole(params.model_fields[name].annotation)}


def _is_whole(annotation: Any) -> bool:
    """Whether its numbers are whole: `int`, alone or beside words such as `auto`."""
    if annotation is int:
        return True
    parts = [part for part in get_args(annotation) if isinstance(part, type) or get_args(part)]
    return float not in parts and any(map(_is_whole, parts))


def every(search: Search, params: type[BaseModel]) -> Iterator[Settings] | None:
    """All choices of settings there are; None where there are too many to count."""
    whole = whole_settings(search, params)
    values = [found.values(whole=name in whole) for name, found in search.ranges.items()]
    if any(one is None for one in values):
        return None
    chosen = itertools.product(*(one for one in values if one is not None))
    return (dict(zip(search.ranges, picked, strict=True)) for picked in chosen)


def problems(
    search: Search,
    factors: Mapping[str, int],
    params: type[BaseModel],
    settings: Settings,
    fixed: Mapping[str, Any],
) -> list[str]:
    """Why a search cannot run as it is asked, one sentence each; none: it can.

    `factors`: how many engines, subsets, … the plan names. `settings`: all that a run would have
    without the search; `fixed`: those that the plan names.
    """
    found = [
        f"search: {count} {name}; a search compares trials of one kind, so give one"
        for name, count in factors.items()
        if count > 1
    ]
    if importlib.util.find_spec("optuna") is None:
        found.append(f"search: Optuna is not installed; {REMEDY}")
    twice = [name for name in search.ranges if name in fixed]
    wrong = [
        f"search.ranges.{name}: '{name}' is among the settings of the plan, too; leave one out"
        for name in twice
    ]
    wrong += [
        sentence
        for name, values in search.ranges.items()
        for sentence in _range_problems(name, values, params, settings)
    ]
    if not wrong and (combinations := every(search, params)) is not None:
        count = sum(1 for _ in itertools.islice(combinations, search.trials))
        if count < search.trials:
            wrong.append(
                f"search.trials: {search.trials} are asked for, but the ranges allow only {count}; "
                f"ask for {count} at most"
            )
    return [*found, *wrong]


def _range_problems(
    name: str, values: Range, params: type[BaseModel], settings: Settings
) -> list[str]:
    place = f"search.ranges.{name}"
    if name not in params.model_fields:
        return [f"search.ranges: unknown setting '{name}'{nearest(name, params.model_fields)}"]
    found: list[str] = []
    for end, value in values.ends().items():
        try:
            taken = getattr(params.model_validate({**settings, name: value}), name)
        except ValidationError as error:
            # A clash with another setting is for the trial: that one may be searched, too.
            sentences = strict_toml.sentences(error, params, place + end)
            found += [sentence for sentence in sentences if f"'{name}" in sentence]
        else:
            if not values.choices and (isinstance(taken, bool) or not _is_number(taken)):
                return [f"{place}: '{name}' is no number; give a list of values"]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
