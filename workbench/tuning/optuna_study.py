"""Optuna study of a search: suggests settings and decides on pruning.

The only module that imports Optuna. Trials are kept in memory, one for each run; every searcher
process builds them anew from the runs' journals.

Suggestions do not depend on restarts of the searcher: trial n is drawn with its own sampler, seeded
by the search's seed and n, from the trials before it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from workbench.planning.search_space import (
    SearchPlan,
    SearchRange,
    Settings,
    canonical_json,
    settings_key,
)

Direction = Literal["maximize", "minimize"]

MAX_DRAWS: Final = 64
"""Draws that may be repeated or refused, before all combinations are enumerated."""

PRUNING_POINTS: Final = 20
"""Number of pruning points: trials are compared at every 1/20 of their training."""

MIN_TRIALS_FOR_IMPORTANCE: Final = 10
"""Minimum number of completed trials for importances; with fewer they are noise."""

DIGITS: Final = 4
"""Significant digits of a suggested float."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SpaceExhaustedError(ValueError):
    """The search space has no untried settings left that the engine accepts."""


def to_distribution(values: SearchRange, *, whole: bool) -> BaseDistribution:
    """Optuna's distribution of a range; `whole`: the setting is an integer."""
    if values.choices:
        return CategoricalDistribution([_encode_choice(choice) for choice in values.choices])
    low, high, step = values.low or 0, values.high or 0, values.step
    if whole:
        return IntDistribution(int(low), int(high), log=values.log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=values.log, step=step)


def _encode_choice(choice: Any) -> Any:
    """A choice as a plain value, as Optuna requires; a list becomes JSON text."""
    return choice if isinstance(choice, str | int | float | bool) else canonical_json(choice)


class TuningStudy:
    """Trials of one search; `direction` None: no trial has been measured yet."""

    def __init__(self, search: SearchPlan, whole: Iterable[str]) -> None:
        """`whole`: names of the searched settings that are integers."""
        self.search = search
        self.direction: Direction | None = search.direction
        whole = set(whole)
        self._space = {
            name: to_distribution(values, whole=name in whole)
            for name, values in search.ranges.items()
        }
        self._trials: dict[str, FrozenTrial] = {}
        """By run id, in the order of the runs."""
        self._pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if search.pruner == "median":
            self._pruner = optuna.pruners.MedianPruner(
                n_startup_trials=search.startup,
                n_warmup_steps=math.ceil(search.prune_after * PRUNING_POINTS),
            )

    def add_trial(self, run_id: str, settings: Settings) -> None:
        """Add a started or queued run as a running trial, once."""
        if run_id not in self._trials:
            params = {name: _encode_choice(value) for name, value in settings.items()}
            self._trials[run_id] = optuna.create_trial(
                state=TrialState.RUNNING, params=params, distributions=self._space
            )

    def tell_result(self, run_id: str, outcome: str, value: float | None) -> None:
        """Set the result of a run: `value` of a completed one, None of any other.

        The result of a completed run stays; that of a failed one is replaced, as after a resume.
        """
        trial = self._trials[run_id]
        if trial.state is TrialState.COMPLETE:
            return
        state = TrialState.PRUNED if outcome == "pruned" else TrialState.FAIL
        self._trials[run_id] = optuna.create_trial(
            state=state if value is None else TrialState.COMPLETE,
            value=value,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=trial.intermediate_values,
        )

    def report(self, run_id: str, point: int, value: float) -> bool:
        """Report an intermediate value in the study's direction; True: prune this trial.

        NaN (a diverged training) prunes every trial.
        """
        if math.isnan(value):
            return self.search.pruner != "none"
        trial = self._trials[run_id]
        trial.intermediate_values[point] = value
        return self._pruner.prune(self._build_study(), trial)

    def _build_study(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """An in-memory study of the finished trials."""
        study = optuna.create_study(direction=self.direction, sampler=sampler)
        study.add_trials(self._finished_trials())
        return study

    def _finished_trials(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials.values() if trial.state.is_finished()]

    def suggest(
        self, number: int, earlier: Iterable[Settings], allowed: Callable[[Settings], bool],
        every: Iterable[Settings] | None,
    ) -> Settings:  # fmt: skip
        """Settings of trial `number` that are untried and accepted by the engine.

        Args:
            number: of the trial, part of its seed.
            earlier: settings of all earlier trials.
            allowed: whether the engine accepts settings.
            every: all combinations, if they are finite.

        Raises:
            SpaceExhaustedError: there are none.
        """
        earlier_keys = {settings_key(settings) for settings in earlier}

        def is_new(settings: Settings) -> bool:
            return settings_key(settings) not in earlier_keys and allowed(settings)

        for draw in range(MAX_DRAWS):
            seed = (self.search.seed * 1_000_003 + number * MAX_DRAWS + draw) % 2**32
            if is_new(candidate := self._draw(seed)):
                return candidate
        if every is not None and (unused := next(filter(is_new, every), None)) is not None:
            return unused
        raise SpaceExhaustedError(
            f"no settings for trial {number} are left: {len(earlier_keys)} were tried, and "
            f"{MAX_DRAWS} more were tried already or are refused by the engine; widen the ranges"
        )

    def _draw(self, seed: int) -> Settings:
        """One suggestion from the finished trials."""
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        if self.search.sampler == "tpe" and self._finished_trials():
            startup = self.search.startup
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        return self._decode(self._build_study(sampler).ask(self._space).params)

    def _decode(self, params: Mapping[str, Any]) -> Settings:
        return {name: self._decode_value(name, params[name]) for name in self.search.ranges}

    def _decode_value(self, name: str, value: Any) -> Any:
        values = self.search.ranges[name]
        if values.choices:
            return next(choice for choice in values.choices if _encode_choice(choice) == value)
        if isinstance(value, int):
            return value
        digits = DIGITS if values.step is None else 12
        low, high = float(values.low or 0), float(values.high or 0)
        return min(max(float(f"{value:.{digits}g}"), low), high)

    def importances(self) -> dict[str, float]:
        """PED-ANOVA importance of each setting, largest first.

        Watanabe, Bansal and Hutter, IJCAI 2023. Empty with fewer than ten completed trials or
        a single setting.
        """
        trials = self._finished_trials()
        completed = sum(trial.state is TrialState.COMPLETE for trial in trials)
        if len(self.search.ranges) < 2 or completed < MIN_TRIALS_FOR_IMPORTANCE:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importances = optuna.importance.get_param_importances(
                self._build_study(), evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        return {name: float(share) for name, share in importances.items()}
