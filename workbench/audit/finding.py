"""Verdicts of audit rules, and the findings that they give over the runs of a suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from workbench.audit.run_facts import RunFacts

Severity = Literal["error", "warning", "note"]
"""error: numbers are wrong or a run fails; warning: they mislead or time is lost; note: to know."""

NO_ROWS: Final = "no-rows"
NO_TRAINING: Final = "no-training"
NO_RECORD: Final = "no-record"
NO_DATA: Final = "no-data"
NO_CAPTIONS: Final = "no-captions"
"""Reasons why a rule does not judge a run: keys of `[reason]` in rules.toml."""


@dataclass(frozen=True)
class Fault:
    """A fault, with its evidence."""

    values: Mapping[str, str]
    """Numbers and names for the text of the evidence."""
    form: str = "evidence"
    """The rule's text that they belong to: `evidence`, or `planned` where it has two."""
    runs: tuple[str, ...] = ()
    """Names of the runs, by a rule that compares several; empty: the run that was judged."""


@dataclass(frozen=True)
class Sound:
    """No fault, by the same evidence: the rule's text fits both."""

    values: Mapping[str, str]
    form: str = "evidence"


@dataclass(frozen=True)
class Impossible:
    """The engine cannot have the fault; the rule's text `impossible` says why."""


@dataclass(frozen=True)
class Unjudged:
    """There is no evidence for a judgement."""

    reason: str
    """A key of `[reason]` in rules.toml."""


Verdict = Fault | Sound | Impossible | Unjudged | None
"""None: the settings leave no way to the fault."""


def decide(values: Mapping[str, str], *, faulty: bool, form: str = "evidence") -> Fault | Sound:
    """A fault, or none, with the evidence for either."""
    return Fault(values, form) if faulty else Sound(values, form)


@dataclass(frozen=True)
class RunRule:
    """A rule that judges one run."""

    code: str
    severity: Severity
    judge: Callable[[RunFacts], Verdict]


@dataclass(frozen=True)
class SuiteRule:
    """A rule that compares runs."""

    code: str
    severity: Severity
    judge: Callable[[Sequence[RunFacts]], Verdict]
