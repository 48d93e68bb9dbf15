"""Optuna study of a search: suggests settings and decides on pruning.

The only module that imports Optuna. The runs' journals are the source of truth; the study's file
has one Optuna trial for each run, so that Optuna's own tools can read it. If it is damaged or
deleted it is rebuilt from the runs.

Suggestions do not depend on restarts of the searcher: trial n is drawn with its own sampler, seeded
by the search's seed and n, from the trials before it. The journal is written under a `flock`
instead of Optuna's lock files, which outlive a killed process.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from workbench.planning.search_space import (
    SearchPlan,
    SearchRange,
    Settings,
    canonical_json,
    settings_key,
)

Direction = Literal["maximize", "minimize"]

STUDY_NAME: Final = "search"
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


class FileLock(JournalFileOpenLock):
    """`flock`, freed when its holder dies; after that Optuna's own lock blocks for 30 s."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self) -> bool:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


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
    """Optuna study of one search, stored in study.jsonl."""

    def __init__(self, path: Path, search: SearchPlan, whole: Iterable[str]) -> None:
        """`path`: study.jsonl; `whole`: names of the searched settings that are integers."""
        self.search = search
        self.direction: Direction | None = None
        self._path = path
        whole = set(whole)
        self._space = {
            name: to_distribution(values, whole=name in whole)
            for name, values in search.ranges.items()
        }
        self._study: optuna.Study | None = None
        self._storage: JournalStorage | None = None
        self._numbers: dict[str, int] = {}
        """Run id -> Optuna's trial number."""

    def open(self, direction: Direction) -> None:
        """Open or create the file; a damaged one is renamed and replaced by a new one."""
        self.direction = direction
        try:
            self._study = self._open_study(direction)
        except Exception:
            # Any damage (a torn or foreign line, earlier names): it can be rebuilt from the runs.
            self._path.replace(self._path.with_suffix(".damaged"))
            self._study = self._open_study(direction)
        for trial in self._study.trials:
            self._numbers[str(trial.user_attrs.get("run"))] = trial.number

    def _open_study(self, direction: Direction) -> optuna.Study:
        cut_torn_line(self._path)
        lock = FileLock(self._path.with_suffix(".lock"))
        self._storage = JournalStorage(JournalFileBackend(str(self._path), lock_obj=lock))
        study = optuna.create_study(
            storage=self._storage, study_name=STUDY_NAME, direction=direction, load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=0), pruner=self._pruner(),
        )  # fmt: skip
        if any(trial.params.keys() != self._space.keys() for trial in study.trials):
            raise ValueError(f"{self._path}: its trials have other settings")
        return study

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.search.pruner == "none":
            return optuna.pruners.NopPruner()
        return optuna.pruners.MedianPruner(
            n_startup_trials=self.search.startup,
            n_warmup_steps=math.ceil(self.search.prune_after * PRUNING_POINTS),
        )

    @property
    def is_open(self) -> bool:
        """Whether the direction is known and the file is open."""
        return self._study is not None

    def add_trial(self, run_id: str, settings: Settings) -> None:
        """Add a started or queued run as a running trial, once."""
        if self._study is None or run_id in self._numbers:
            return
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params={name: _encode_choice(value) for name, value in settings.items()},
                distributions=self._space,
                user_attrs={"run": run_id},
            )
        )
        self._numbers[run_id] = self._study.trials[-1].number

    def tell_result(self, run_id: str, outcome: str, value: float | None) -> None:
        """Set the result of a run: `value` of a completed one, None of any other.

        A run that failed and completed after a resume becomes a new trial, since a finished Optuna
        trial cannot be changed.
        """
        if self._study is None:
            return
        number = self._numbers[run_id]
        trial = self._study.trials[number]
        if trial.state.is_finished():
            if value is None or trial.state is TrialState.COMPLETE:
                return
            self._numbers.pop(run_id)
            self.add_trial(run_id, self._decode(trial.params))
            number = self._numbers[run_id]
        if value is not None:
            self._study.tell(number, value)
        elif outcome == "pruned":
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, state=TrialState.FAIL)

    def report(self, run_id: str, point: int, value: float) -> bool:
        """Report an intermediate value in the study's direction; True: prune this trial.

        NaN (a diverged training) prunes every trial.
        """
        if self._study is None or self._storage is None:
            return False
        if math.isnan(value):
            return self.search.pruner != "none"
        number = self._numbers[run_id]
        study_id = self._storage.get_study_id_from_name(STUDY_NAME)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        trial = optuna.Trial(self._study, trial_id)
        if point not in self._study.trials[number].intermediate_values:
            trial.report(value, point)
        return trial.should_prune()

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

        finished = [t for t in self._study.trials if t.state.is_finished()] if self._study else []
        for draw in range(MAX_DRAWS):
            seed = (self.search.seed * 1_000_003 + number * MAX_DRAWS + draw) % 2**32
            if is_new(candidate := self._draw(finished, seed)):
                return candidate
        if every is not None and (unused := next(filter(is_new, every), None)) is not None:
            return unused
        raise SpaceExhaustedError(
            f"no settings for trial {number} are left: {len(earlier_keys)} were tried, and "
            f"{MAX_DRAWS} more were tried already or are refused by the engine; widen the ranges"
        )

    def _draw(self, finished: list[optuna.trial.FrozenTrial], seed: int) -> Settings:
        """One suggestion from the finished trials, drawn in a temporary in-memory study."""
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        if self.search.sampler == "tpe" and finished:
            startup = self.search.startup
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        scratch = optuna.create_study(direction=self.direction, sampler=sampler)
        scratch.add_trials(finished)
        return self._decode(scratch.ask(self._space).params)

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
        if self._study is None or len(self.search.ranges) < 2:
            return {}
        completed = [t for t in self._study.trials if t.state is TrialState.COMPLETE]
        if len(completed) < MIN_TRIALS_FOR_IMPORTANCE:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importances = optuna.importance.get_param_importances(
                self._study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        return {name: float(share) for name, share in importances.items()}


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line of a killed writer, which Optuna would refuse."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    last = whole.splitlines()[-1:] or [b"{}"]
    try:
        json.loads(last[0])
    except ValueError:
        whole = whole[: whole[:-1].rfind(b"\n") + 1]
    if len(whole) != len(data):
        os.truncate(path, len(whole))
