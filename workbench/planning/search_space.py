"""Search space of a hyper-parameter search: the `[search]` table of a plan and its checks.

Does not import Optuna, which only the searcher loads.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from datasets_mm import strict_toml
from datasets_mm.strict_toml import suggest_nearest
from results.text import renamed_words

REMEDY: Final = "install the `search` extra: pip install 'workbench-mm[search]'"

Settings = dict[str, Any]


class SearchRange(BaseModel):
    """The values that one setting may take: from low to high, or one of a list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float | None = None
    """Lowest value."""
    high: int | float | None = None
    """Highest value."""
    log: bool = False
    """Search on a logarithmic scale: 1e-5 to 1e-4 is as wide as 1e-4 to 1e-3."""
    step: int | float | None = Field(None, gt=0)
    """Only low, low + step, low + 2 step, …"""
    choices: tuple[Any, ...] = ()
    """One of these; a plain list in TOML means the same."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("give a list of values, or low and high, not both")
            texts = [canonical_json(choice) for choice in self.choices]
            if len(set(texts)) < len(texts):
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
        if self.step is not None and self.step > high - low:
            raise ValueError("step must be at most high - low")

    def boundary_values(self) -> dict[str, Any]:
        """The values to validate: both ends or all choices, by their place (`.low`, `[0]`)."""
        if self.choices:
            return {f"[{index}]": choice for index, choice in enumerate(self.choices)}
        return {".low": self.low, ".high": self.high}

    def values(self, *, whole: bool) -> list[Any] | None:
        """All values; None for a continuous range or more than 10,000. `whole`: integers only."""
        if self.choices:
            return list(self.choices)
        if self.low is None or self.high is None or (self.step is None and not whole):
            return None
        step = self.step or 1
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        if count > 10_000:
            return None
        values = [self.low + step * index for index in range(count)]
        return [int(value) for value in values] if whole else values

    def describe(self) -> str:
        """`1e-05 … 0.001 (log)`, `8, 16, 32`."""
        if self.choices:
            return ", ".join(map(canonical_json, self.choices))
        kind = " (log)" if self.log else f", step {self.step:g}" if self.step else ""
        return f"{self.low:g} … {self.high:g}{kind}"


class SearchPlan(BaseModel):
    """A hyper-parameter search: trials that differ in the settings of `ranges` only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(min_length=1)
    """The objective: a metric of the evaluation (`recall@1`), or `loss` of the training."""
    split: str = ""
    """The subset that the metric is measured on; empty: the first that has it."""
    direction: Literal["maximize", "minimize"] | None = None
    """None: the metric's own direction."""
    trials: int = Field(20, ge=1, le=9999)
    """Runs of the search."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Who chooses a trial's values: Optuna's TPE, or chance."""
    seed: int = Field(42, ge=0, le=2**31)
    """Seed of the sampler."""
    pruner: Literal["median", "none"] = "median"
    """`median`: end a trial that is worse than the median of the earlier ones at that point."""
    startup: int = Field(5, ge=1)
    """Random trials before the sampler models the objective and the pruner prunes."""
    prune_after: float = Field(0.2, ge=0, le=1)
    """Share of its training before which no trial is pruned, since warm-up is no evidence."""
    live: str = "loss"
    """The pruner's metric while a trial trains: `loss`, or a training metric such as `r@1`."""
    ranges: Annotated[dict[str, SearchRange], BeforeValidator(renamed_words.rename_typed_keys)] = (
        Field(min_length=1)
    )
    """The searched settings: a list of values, or low and high."""


def parse_span(text: str) -> dict[str, Any]:
    """Table of `1..4`, `1e-5..1e-3:log`, `0..1:0.1` (a step): see `SearchRange`.

    Raises:
        ValueError: the text has none of these forms.
    """
    span, _, kind = text.partition(":")
    low, high = (
        int(end) if end.lstrip("+-").isdigit() else float(end) for end in span.strip().split("..")
    )
    kind = kind.strip()
    shape = {"log": bool(kind)} if kind in ("", "log") else {"step": float(kind)}
    return {"low": low, "high": high, **shape}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys: equal values have equal texts. A date, which TOML has, is its text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def settings_key(settings: Mapping[str, Any]) -> str:
    """JSON of a choice of settings, independent of their order."""
    return canonical_json({name: settings[name] for name in sorted(settings)})


def whole_settings(search: SearchPlan, params: type[BaseModel]) -> set[str]:
    """The searched settings that take integers only."""
    return {
        name for name in search.ranges if _takes_whole_numbers(params.model_fields[name].annotation)
    }


def _takes_whole_numbers(annotation: Any) -> bool:
    """Whether an annotation allows integers only: `int`, alone or with literals such as `auto`."""
    if annotation is int:
        return True
    parts = [part for part in get_args(annotation) if isinstance(part, type) or get_args(part)]
    return float not in parts and any(map(_takes_whole_numbers, parts))


def enumerate_choices(search: SearchPlan, params: type[BaseModel]) -> Iterator[Settings] | None:
    """All combinations of values; None if a range cannot be enumerated."""
    whole = whole_settings(search, params)
    values = [
        value_range.values(whole=name in whole) for name, value_range in search.ranges.items()
    ]
    if any(value_list is None for value_list in values):
        return None
    combinations = itertools.product(
        *(value_list for value_list in values if value_list is not None)
    )
    return (dict(zip(search.ranges, combination, strict=True)) for combination in combinations)


def find_problems(
    search: SearchPlan,
    factors: Mapping[str, int],
    params: type[BaseModel],
    settings: Settings,
    fixed: Mapping[str, Any],
) -> list[str]:
    """Why a search cannot run, one sentence each; empty list: it can.

    `factors`: the number of engines, subsets, … in the plan. `settings`: all settings of a run
    without the search; `fixed`: those that the plan names.
    """
    plan_problems = [
        f"search: {count} {name}; a search compares trials of one kind, so give one"
        for name, count in factors.items()
        if count > 1
    ]
    if importlib.util.find_spec("optuna") is None:
        plan_problems.append(f"search: Optuna is not installed; {REMEDY}")
    duplicates = [name for name in search.ranges if name in fixed]
    range_problems = [
        f"search.ranges.{name}: '{name}' is among the settings of the plan, too; leave one out"
        for name in duplicates
    ]
    range_problems += [
        sentence
        for name, values in search.ranges.items()
        for sentence in _range_problems(name, values, params, settings)
    ]
    if not range_problems and (combinations := enumerate_choices(search, params)) is not None:
        count = sum(1 for _ in itertools.islice(combinations, search.trials))
        if count < search.trials:
            range_problems.append(
                f"search.trials: {search.trials} are asked for, but the ranges allow only {count}; "
                f"ask for {count} at most"
            )
    return [*plan_problems, *range_problems]


def _range_problems(
    name: str, value_range: SearchRange, params: type[BaseModel], settings: Settings
) -> list[str]:
    """Why the setting `name` does not take the values of its range, one sentence each."""
    location = f"search.ranges.{name}"
    if name not in params.model_fields:
        suggestion = suggest_nearest(name, params.model_fields, renamed_words.SETTINGS)
        return [f"search.ranges: unknown setting '{name}'{suggestion}"]
    problems: list[str] = []
    whole = _takes_whole_numbers(params.model_fields[name].annotation)
    if whole and value_range.step is not None and value_range.step % 1:
        problems.append(f"{location}.step: '{name}' takes whole numbers, and so must its step")
    for end, value in value_range.boundary_values().items():
        try:
            parsed = getattr(params.model_validate({**settings, name: value}), name)
        except ValidationError as error:
            # A conflict with another setting is left to the trial: that one may be searched, too.
            sentences = strict_toml.error_sentences(error, params, location + end)
            problems += [sentence for sentence in sentences if f"'{name}" in sentence]
        else:
            if not value_range.choices and (
                isinstance(parsed, bool) or not isinstance(parsed, int | float)
            ):
                return [f"{location}: '{name}' is no number; give a list of values"]
    return problems
