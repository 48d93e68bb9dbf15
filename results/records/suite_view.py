"""A suite with its records, curves, notes and checks as one `SuiteView`, for reports.

`results` reads no journal and no run folder: the caller builds the view. It is passed as JSON to
the process that writes the report, and never stored.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from results.records.code_changes import CodeChange
from results.records.schema import Identity, RunRecord

REPORT_FORMS: Final = ("html", "tex", "notion", "csv", "parquet")
"""Forms of a report beside Markdown."""


class SuiteViewPart(BaseModel):
    """Base of the view's parts; the view is passed as JSON to the process that writes a report."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class RunCurves(SuiteViewPart):
    """Curves of one run: name -> [(x, y), …]; see state.RunState.curves."""

    curves: dict[str, list[tuple[float, float]]] = {}
    phases: tuple[tuple[str, float, float], ...] = ()
    """Name, start and end of each phase, in seconds since the start of the attempt."""


class CaptionExample(SuiteViewPart):
    """A caption among the best or worst of its split."""

    split: str
    standing: Literal["best", "worst"]
    id: str
    medium: str
    """Its path under the subset's image root, as the data names it."""
    caption: str
    references: tuple[str, ...] = ()
    metric: str
    score: float
    picture: str = ""
    """Where the picture lies on this machine, inside its image root; empty: none can be shown."""
    frames: int = 0
    """Of a video: how many of its frames the picture shows, four in a row; 0: it is the medium."""


class AnswerExample(SuiteViewPart):
    """A wrong answer with a high confidence."""

    id: str
    medium: str
    """The picture's path under the subset's image root, as the data names it."""
    question: str
    options: tuple[str, ...] = ()
    truth: str
    """Letter of the right option."""
    answer: str
    """Letter that was given."""
    confidence: float
    """Probability that the answer had."""
    kind: str = ""
    picture: str = ""
    """Where the picture lies on this machine, inside its image root; empty: none can be shown."""


class AnsweredSplit(SuiteViewPart):
    """Confusion, calibration and errors of the answers to one split."""

    split: str
    confusion: tuple[tuple[int, ...], ...] = ()
    """Counts by true letter (row) and answered letter (column)."""
    reliability: tuple[tuple[float, float, int, float | None, float | None], ...] = ()
    """Low, high, n, mean confidence, accuracy of each bin of confidence; None where n is 0."""
    kinds: dict[str, tuple[int, int]] = {}
    """By type of question: how many, and how many right."""
    worst: tuple[AnswerExample, ...] = ()


class SearchView(SuiteViewPart):
    """Settings and outcome of a search; its trials are records of the suite."""

    metric: str
    split: str = ""
    """Empty: the first split that has the metric."""
    direction: Literal["maximize", "minimize", ""] = ""
    """Empty: not known before a trial has measured the metric."""
    trials: int
    """Number of planned trials."""
    sampler: str = ""
    pruner: str = ""
    seed: int = 0
    ranges: dict[str, str] = {}
    """By setting: the values it may take, in words."""
    importances: dict[str, float] = {}
    """By setting: its share, most important first; empty: too few trials for that."""
    trouble: str = ""
    """Why the search broke off."""


class MetricChange(SuiteViewPart):
    """Difference of a metric to that of the run it is compared with."""

    delta: float
    low: float | None = None
    high: float | None = None


class SubsetCheck(SuiteViewPart):
    """Result of a full check of a subset's fields."""

    subset: str
    sentence: str
    """How many records were checked, and how many lack one of the fields."""
    problems: tuple[str, ...] = ()
    source: str = ""
    """Where it was published; empty: it was checked here."""


class DataSection(SuiteViewPart):
    """Figures of two subsets side by side."""

    title: str
    rows: tuple[tuple[str, str, str, str], ...] = ()
    """Label, first, second, difference."""
    remark: str = ""


class DataComparison(SuiteViewPart):
    """Two subsets side by side, scanned in full or published."""

    first: str
    second: str
    records: tuple[int, int] = (0, 0)
    sections: tuple[DataSection, ...] = ()
    problem: str = ""
    """Why they are not compared."""
    source: str = ""
    """Where it was published; empty: they were scanned here."""


class SuiteWords(SuiteViewPart):
    """Texts that people wrote about a suite, in its plan or in notes; a note overrides the plan."""

    title: str = ""
    goal: str = ""
    background: str = ""
    conclusion: str = ""
    next_steps: tuple[str, ...] = ()
    events: tuple[tuple[str, str], ...] = ()
    """(date, what happened), in the order in which they were noted."""
    links: tuple[tuple[str, str], ...] = ()
    """(where it leads, what it holds) of documents beside the report."""
    reasons: dict[str, str] = {}
    """Why it was chosen, by subset, model or variant; under `""` of the choice as a whole."""


class RunWords(SuiteViewPart):
    """Texts that people wrote about a run: in its plan, before it started, or in notes."""

    expected: str = ""
    """Expected result."""
    criteria: tuple[str, ...] = ()
    """Success criteria, such as `diversity > 0.5`; see `results.comparison.criteria`."""
    baseline: str = ""
    """Label or id of the run that it is to be compared with; empty: the previous version."""
    conclusion: str = ""
    next_steps: tuple[str, ...] = ()
    public_score: str = ""
    """Score of its submission on a leaderboard, as a person noted it."""


class RecipeWords(SuiteViewPart):
    """Title and notes of a subset's recipe."""

    title: str = ""
    notes: str = ""


class SubsetChart(SuiteViewPart):
    """Counts of a subset to be drawn as bars."""

    subset: str
    title: str
    bars: tuple[tuple[str, int], ...]


class AuditRow(SuiteViewPart):
    """A fault that the audit names, or a rule without one. Texts by language."""

    code: str
    standing: Literal["fault", "clean", "impossible", "unjudged"]
    severity: Literal["error", "warning", "note"]
    """Of the rule. error: numbers are wrong or a run fails; warning: they mislead, or time is lost;
    note: to know."""
    runs: tuple[str, ...] = ()
    """Names of the runs that have the fault."""
    title: dict[str, str]
    evidence: dict[str, str] = {}
    """Of a rule without a fault: why it cannot be, or was not judged."""
    remedy: dict[str, str] = {}


class SuiteView(SuiteViewPart):
    """A suite, or runs of several suites, prepared for a report."""

    name: str
    plan_toml: str = ""
    started_wall: float | None = None
    state: str = ""
    records: tuple[RunRecord, ...] = ()
    """The last attempt of every run, in plan order; runs without a record are in `pending`."""
    pending: tuple[str, ...] = ()
    curves: dict[str, RunCurves] = {}
    """By run id."""
    charts: tuple[SubsetChart, ...] = ()
    """What the subsets hold, subset by subset."""
    forecasts: tuple[RunRecord, ...] = ()
    """Cost probes, of any suite, with which runs of this one can be compared."""
    notes: dict[str, tuple[str, ...]] = {}
    """Findings that people noted, by run id; under `""` of the whole suite."""
    words: SuiteWords = SuiteWords()
    run_words: dict[str, RunWords] = {}
    """By run id."""
    recipes: dict[str, RecipeWords] = {}
    """By subset."""
    checks: tuple[SubsetCheck, ...] = ()
    audit: tuple[AuditRow, ...] = ()
    """Faults first; empty: no audit was made."""
    comparisons: tuple[DataComparison, ...] = ()
    states: dict[str, str] = {}
    """By run id: the state that a person noted, else waiting, running, done or stopped."""
    planned: tuple[Identity, ...] = ()
    """What the runs of `pending` are to be, and experiments without results of imported files."""
    planned_facts: dict[str, dict[str, str]] = {}
    """By run id of `planned`: facts that its source states."""
    reported: dict[str, dict[str, str]] = {}
    """By run id: names and sizes in the words of an imported run's source."""
    code_changes: tuple[CodeChange, ...] = ()
    """Of its plan, or of the imported file."""
    published_effects: dict[str, str] = {}
    """By setting: the effect of an optimization as an imported file states it."""
    search: SearchView | None = None
    """None: its runs were all known when it started."""
    captions: dict[str, tuple[CaptionExample, ...]] = {}
    """Best and worst captions, by run id."""
    changes: dict[str, dict[str, MetricChange]] = {}
    """Of an ablation: by run and metric, what switching one thing off has changed."""
    answers: dict[str, tuple[AnsweredSplit, ...]] = {}
    """Answers to questions, by run id."""
