"""The searcher's Optuna study: which settings come next, and whether a trial is worth its end.

The only module that knows Optuna. The truth about trials is in the runs' own journals; the study's
file mirrors them, one Optuna trial a run, so that Optuna's own tools can read it too. Damaged or
deleted it is made again from the runs.

Suggestions do not depend on how often the searcher was killed: trial n is drawn with a sampler of
its own, seeded by the search's seed and n, from the trials before it. The journal is written under
a `flock` instead of Optuna's lock files, which outlive a killed process.
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

from workbench.planning.search_space import Range, Search, Settings, canonical, key

Direction = Literal["maximize", "minimize"]

NAME: Final = "search"
DRAWS: Final = 64
"""Draws that may repeat an earlier trial or be refused, before every choice is walked through."""

POINTS: Final = 20
"""A trial is compared with others at every 1/20 of its training, whatever its number of steps."""

LEAST_FOR_IMPORTANCE: Final = 10
"""Completed trials below which an importance would be noise."""

DIGITS: Final = 4
"""Significant digits of a suggested real number: more of them mean nothing and cannot be read."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class NothingLeftError(ValueError):
    """No settings within the ranges are left that were not tried and are allowed."""


class FileLock(JournalFileOpenLock):
    """Frees itself when its holder dies, however; Optuna's own waits half a minute then."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self) -> bool:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def distribution(values: Range, *, whole: bool) -> BaseDistribution:
    """A range as Optuna wants it; `whole`: the setting takes whole numbers only."""
    if values.choices:
        return CategoricalDistribution([_encoded(choice) for choice in values.choices])
    low, high, step = values.low or 0, values.high or 0, values.step
    if whole:
        return IntDistribution(int(low), int(high), log=values.log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=values.log, step=step)


def _encoded(choice: Any) -> Any:
    """Optuna's choices are plain values; a list stands for itself as text."""
    return choice if isinstance(choice, str | int | float | bool) else canonical(choice)


class Study:
    """The trials so far, and what follows from them."""

    def __init__(self, path: Path, search: Search, whole: Iterable[str]) -> None:
        """`whole`: the searched settings that take whole numbers only."""
        self.search = search
        self.direction: Direction | None = None
        self._path = path
        whole = set(whole)
        self._space = {
            name: distribution(values, whole=name in whole)
            for name, values in search.ranges.items()
        }
        self._study: optuna.Study | None = None
        self._storage: JournalStorage | None = None
        self._numbers: dict[str, int] = {}
        """Optuna's number of a run's trial."""

    def open(self, direction: Direction) -> None:
        """Open or make the file, once it is known which way is better."""
        self.direction = direction
        try:
            self._study = self._opened(direction)
        except Exception:
            # Whatever is wrong with the file (a torn or foreign line): it is only a mirror.
            self._path.replace(self._path.with_suffix(".damaged"))
            self._study = self._opened(direction)
        for trial in self._study.trials:
            self._numbers[str(trial.user_attrs.get("run"))] = trial.number

    def _opened(self, direction: Direction) -> optuna.Study:
        seal(self._path)
        lock = FileLock(self._path.with_suffix(".lock"))
        self._storage = JournalStorage(JournalFileBackend(str(self._path), lock_obj=lock))
        return optuna.create_study(
            storage=self._storage, study_name=NAME, direction=direction, load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=0), pruner=self._pruner(),
        )  # fmt: skip

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.search.pruner == "none":
            return optuna.pruners.NopPruner()
        return optuna.pruners.MedianPruner(
            n_startup_trials=self.search.startup,
            n_warmup_steps=math.ceil(self.search.prune_after * POINTS),
        )

    @property
    def opened(self) -> bool:
        """Whether it is known which way is better."""
        return self._study is not None

    def mirror(self, run_id: str, settings: Settings) -> None:
        """Note a run that has begun, or that is queued."""
        if self._study is None or run_id in self._numbers:
            return
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params={name: _encoded(value) for name, value in settings.items()},
                distributions=self._space,
                user_attrs={"run": run_id},
            )
        )
        self._numbers[run_id] = self._study.trials[-1].number

    def settle(self, run_id: str, outcome: str, value: float | None) -> None:
        """Note how a run ended: `value` of a completed one, None of any other.

        A run that had failed and was completed when the suite was resumed is a trial anew: what
        Optuna was told of a trial cannot be changed.
        """
        if self._study is None:
            return
        number = self._numbers[run_id]
        known = self._study.trials[number]
        if known.state.is_finished():
            if value is None or known.state is TrialState.COMPLETE:
                return
            self._numbers.pop(run_id)
            self.mirror(run_id, self._decoded(known.params))
            number = self._numbers[run_id]
        if value is not None:
            self._study.tell(number, value)
        elif outcome == "pruned":
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, state=TrialState.FAIL)

    def report(self, run_id: str, point: int, value: float) -> bool:
        """Note a live value, higher or lower as the study wants it; True: end this trial now.

        A value that is no number (a training that has diverged) ends every trial.
        """
        if self._study is None or self._storage is None:
            return False
        if math.isnan(value):
            return self.search.pruner != "none"
        number = self._numbers[run_id]
        study_id = self._storage.get_study_id_from_name(NAME)
        known = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        trial = optuna.Trial(self._study, known)
        if point not in self._study.trials[number].intermediate_values:
            trial.report(value, point)
        return trial.should_prune()

    def suggest(
        self, number: int, taken: Iterable[Settings], allowed: Callable[[Settings], bool],
        every: Iterable[Settings] | None,
    ) -> Settings:  # fmt: skip
        """The settings of trial `number`: new ones, and such as the engine allows.

        `every`: all choices there are, where they can be counted.

        Raises:
            NothingLeftError: there are none.
        """
        tried = {key(settings) for settings in taken}

        def new(settings: Settings) -> bool:
            return key(settings) not in tried and allowed(settings)

        known = [t for t in self._study.trials if t.state.is_finished()] if self._study else []
        for draw in range(DRAWS):
            seed = (self.search.seed * 1_000_003 + number * DRAWS + draw) % 2**32
            if new(drawn := self._draw(known, seed)):
                return drawn
        if every is not None and (left := next(filter(new, every), None)) is not None:
            return left
        raise NothingLeftError(
            f"no settings for trial {number} are left: {len(tried)} were tried, and {DRAWS} more "
            "were tried already or are refused by the engine; widen the ranges"
        )

    def _draw(self, known: list[optuna.trial.FrozenTrial], seed: int) -> Settings:
        """One suggestion from the trials that have ended, drawn apart from the mirror."""
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        if self.search.sampler == "tpe" and known:
            startup = self.search.startup
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        scratch = optuna.create_study(direction=self.direction, sampler=sampler)
        scratch.add_trials(known)
        return self._decoded(scratch.ask(self._space).params)

    def _decoded(self, params: Mapping[str, Any]) -> Settings:
        return {name: self._value(name, params[name]) for name in self.search.ranges}

    def _value(self, name: str, value: Any) -> Any:
        values = self.search.ranges[name]
        if values.choices:
            return next(choice for choice in values.choices if _encoded(choice) == value)
        if isinstance(value, int):
            return value
        digits = DIGITS if values.step is None else 12
        low, high = float(values.low or 0), float(values.high or 0)
        return min(max(float(f"{value:.{digits}g}"), low), high)

    def importances(self) -> dict[str, float]:
        """How much each setting decided between good and bad trials, by PED-ANOVA; most first.

        Watanabe, Bansal and Hutter, IJCAI 2023. Empty with fewer than ten completed trials or
        a single setting.
        """
        if self._study is None or len(self.search.ranges) < 2:
            return {}
        completed = [t for t in self._study.trials if t.state is TrialState.COMPLETE]
        if len(completed) < LEAST_FOR_IMPORTANCE:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                self._study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
        return {name: float(share) for name, share in found.items()}


def seal(path: Path) -> None:
    """Cut off a last line that a killed writer left half done; Optuna would refuse the file."""
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
