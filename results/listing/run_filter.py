"""Filter language of lists of runs: `since:7d end:ok score>.3 model:clip -label:old "two words"`.

Terms with blanks between them must all hold. A term is a word (anywhere in the run's texts),
`FIELD:PATTERN` (a part of the text, or a shell pattern; alternatives with commas), `FIELD=VALUE`,
`FIELD>NUMBER` (also >=, <, <=, !=), or `FIELD:LOW..HIGH`; a `-` before it turns it round. Numbers
may have a unit: `wall<10m step<600ms rss<2GiB score>30%`.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from results.listing.summary import NUMBERS, RecordSummary

if TYPE_CHECKING:
    from results.records.notes import RunNotes

SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0,
                  "w": 604800.0}  # fmt: skip
SIZES: Final = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40,
                "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40, "B": 1.0}  # fmt: skip
TIMES: Final = ("since", "until")
TROUBLES: Final = ("completed", "skipped", "pruned", "stopped")
"""Ends that are no failures."""
_TERM: Final = re.compile(r'(?:[^\s"]|"[^"]*")+')
_PARTS: Final = re.compile(
    r"(?P<field>[^\s:<>=!]+)(?P<operator>>=|<=|!=|:|=|>|<)(?P<value>.*)", re.DOTALL
)
_NUMBER: Final = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([a-zA-Z%]*)")
_AGE: Final = re.compile(r"(\d+\.?\d*)([smhdw])")


class FilterError(ValueError):
    """The text is no filter; a sentence that names the term."""


class ListedRun(NamedTuple):
    """What a filter is about: a run's summary and its notes."""

    summary: RecordSummary
    notes: RunNotes | None = None

    @property
    def is_trashed(self) -> bool:
        """Whether it is in the trash."""
        return self.notes is not None and bool(self.notes.trashed)


_FORECAST: Final = (("forecast",), ())
"""Further word for the end of a run, by whether its times were measured."""
Condition = Callable[[ListedRun], bool]

TEXT_FIELDS: Final[Mapping[str, Callable[[ListedRun], Iterable[str]]]] = {
    "suite": lambda run: (run.summary.suite,),
    "run": lambda run: (run.summary.run_id,),
    "label": lambda run: (run.summary.label,),
    "subset": lambda run: (run.summary.subset,),
    "model": lambda run: (run.summary.model,),
    "engine": lambda run: (run.summary.engine,),
    "task": lambda run: (run.summary.task,),
    "end": lambda run: (run.summary.cause, *_FORECAST[run.summary.measured]),
    "why": lambda run: (run.summary.detail,),
    "tag": lambda run: run.notes.tags if run.notes else (),
    "note": lambda run: run.notes.findings if run.notes else (),
    "state": lambda run: (run.notes.state,) if run.notes else (),
}


def _number_reader(name: str) -> Callable[[RecordSummary], float | None]:
    return lambda summary: summary.numbers.get(name)


NUMBER_FIELDS: Final[Mapping[str, Callable[[RecordSummary], float | None]]] = {
    "seed": lambda summary: summary.seed,
    "steps": lambda summary: summary.steps,
    "samples": lambda summary: summary.samples,
    **{name: _number_reader(name) for name in NUMBERS},
}
ENDS: Final[Mapping[str, Callable[[RecordSummary], bool]]] = {
    "ok": lambda summary: summary.cause == "completed",
    "failed": lambda summary: summary.cause not in TROUBLES,
    "never": lambda summary: summary.never_started,
}
"""Words for `end:` besides the causes."""
FIELDS: Final = (*TEXT_FIELDS, *NUMBER_FIELDS, *TIMES, "score", "in")


class AnyName(Collection[str]):
    """Every name: for a filter that is checked without runs, whose settings are not known."""

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class RunFilter(NamedTuple):
    """A parsed filter."""

    text: str
    conditions: tuple[Condition, ...]
    fields: frozenset[str]
    """Fields that its terms name."""

    def matches(self, run: ListedRun) -> bool:
        """Whether all conditions hold."""
        return all(condition(run) for condition in self.conditions)


def parse_filter(
    text: str, names: Collection[str] = (), *, metric: str = "", now: float | None = None
) -> RunFilter:
    """The filter that a text describes.

    Args:
        text: Terms with blanks between them; empty: every run.
        names: Further fields: settings and metrics that the runs have.
        metric: Metric that `score` means, as `name@split`; empty: each run's headline.
        now: Unix time from which `since:7d` counts; None: now.

    Raises:
        FilterError: an unknown field, or a value that is none of it.
    """
    moment = time.time() if now is None else now
    conditions, fields = list[Condition](), set[str]()
    if text.count('"') % 2:
        raise FilterError('a quotation mark (") has no partner')
    for term in _TERM.findall(text):
        is_negated = term.startswith("-") and len(term) > 1
        field, condition = _parse_term(term[1:] if is_negated else term, names, metric, moment)
        fields.add(field)
        conditions.append(_negate(condition) if is_negated else condition)
    return RunFilter(text, tuple(conditions), frozenset(fields))


def collect_names(summaries: Iterable[RecordSummary]) -> dict[str, None]:
    """Settings and metrics (`name`, `name@split`) that some run has, in order of appearance."""
    names: dict[str, None] = {}
    known_params: set[int] = set()
    for summary in summaries:
        if id(summary.params) not in known_params:
            known_params.add(id(summary.params))
            names.update(dict.fromkeys(summary.params))
        for metric in summary.metrics:
            names[metric.name] = names[metric.key] = None
    return names


def _negate(condition: Condition) -> Condition:
    return lambda run: not condition(run)


def _parse_term(
    term: str, names: Collection[str], metric: str, now: float
) -> tuple[str, Condition]:
    match = None if term.startswith('"') else _PARTS.fullmatch(term)
    if match is None:
        return "", _word_condition(term.replace('"', ""))
    field, operator, value = match["field"], match["operator"], match["value"].replace('"', "")
    if not value:
        raise FilterError(f"'{term}' has nothing behind '{operator}'")
    if field in TIMES:
        return field, _time_condition(field, operator, value, now)
    if field == "in":
        return field, _trash_condition(operator, value)
    if field == "end":
        return field, _end_condition(operator, value, term)
    if field in TEXT_FIELDS:
        return field, _text_condition(field, operator, value, term)
    if field != "score" and field not in NUMBER_FIELDS and field not in names:
        raise FilterError(_unknown_field(field, names))
    return field, _value_condition(field, operator, value, metric)


def _unknown_field(field: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(field, [*FIELDS, *names], n=3, cutoff=0.6)
    guess = f"did you mean {' or '.join(close)}?" if close else (
        f"there are {', '.join(FIELDS)}, settings (lr) and metrics (recall@1)"
    )  # fmt: skip
    return f"no field '{field}'; {guess}"


def _word_condition(word: str) -> Condition:
    needle = word.lower()

    def holds(run: ListedRun) -> bool:
        summary = run.summary
        texts = (
            summary.subset, summary.model, summary.label, summary.suite, summary.run_id,
            summary.engine, summary.cause, summary.detail, *_FORECAST[summary.measured],
        )  # fmt: skip
        noted = (*run.notes.findings, *run.notes.tags) if run.notes else ()
        return any(needle in text.lower() for text in (*texts, *noted))

    return holds


def _text_condition(field: str, operator: str, value: str, term: str) -> Condition:
    read, values = TEXT_FIELDS[field], value.lower().split(",")
    if operator in ("=", "!="):
        is_equal = operator == "="
        return lambda run: any(text.lower() in values for text in read(run)) is is_equal
    if operator != ":":
        raise FilterError(f"'{term}': {field} is a text; write {field}:{value} or {field}={value}")
    patterns = [p if any(c in p for c in "*?[") else f"*{p}*" for p in values]
    match = re.compile("|".join(map(fnmatch.translate, patterns)), re.IGNORECASE).match
    return lambda run: any(match(text) for text in read(run))


def _end_condition(operator: str, value: str, term: str) -> Condition:
    """A condition on how runs ended: causes and the words of `ENDS`, with commas between them."""
    parts = value.lower().split(",")
    groups = [ENDS[part] for part in parts if part in ENDS]
    causes = ",".join(part for part in parts if part not in ENDS)
    if operator not in (":", "=", "!=") or not groups:
        return _text_condition("end", operator, value, term)
    has_cause = _text_condition("end", operator.lstrip("!"), causes, term) if causes else None

    def holds(run: ListedRun) -> bool:
        return any(group(run.summary) for group in groups) or bool(has_cause and has_cause(run))

    return _negate(holds) if operator == "!=" else holds


def _trash_condition(operator: str, value: str) -> Condition:
    if operator not in ":=" or value != "trash":
        raise FilterError(f"'in{operator}{value}' is unknown; write in:trash")
    return lambda run: run.is_trashed


def _time_condition(field: str, operator: str, value: str, now: float) -> Condition:
    if operator not in ":=":
        raise FilterError(f"'{field}{operator}{value}': write {field}:{value}")
    if match := _AGE.fullmatch(value):
        limit = now - float(match[1]) * SECONDS[match[2]]
    else:
        try:
            limit = datetime.fromisoformat(value).timestamp()
        except ValueError:
            raise FilterError(
                f"'{field}:{value}' is no time; write {field}:7d (s, m, h, d, w) or "
                f"{field}:2026-11-30 or {field}:2026-11-30T14:00"
            ) from None
    if field == "since":
        return lambda run: run.summary.started is not None and run.summary.started >= limit
    return lambda run: run.summary.started is not None and run.summary.started < limit


def _value_condition(field: str, operator: str, value: str, metric: str) -> Condition:
    """A condition on a number or a setting; unmeasured numbers satisfy none but `!=`."""
    read = _value_getter(field, metric)
    unit = NUMBERS.get(field, "")
    if operator == ":" and ".." in value:
        low, high = (
            parse_quantity(part, unit, field) if part else None for part in value.split("..", 1)
        )
        return lambda run: _is_between(read(run), low, high)
    if operator in ("<", ">", "<=", ">="):
        limit = parse_quantity(value, unit, field)
        compare = _COMPARISONS[operator]
        return lambda run: (number := _as_number(read(run))) is not None and compare(number, limit)
    is_equal = operator != "!="
    values = [_plain_value(part, unit) for part in value.split(",")]
    return lambda run: (_plain_value(read(run), "") in values) is is_equal


_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": lambda a, b: a < b, ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def _value_getter(field: str, metric: str) -> Callable[[ListedRun], Any]:
    if (number := NUMBER_FIELDS.get(field)) is not None:
        return lambda run: number(run.summary)

    def read(run: ListedRun) -> Any:
        if field in run.summary.params:
            return run.summary.params[field]
        chosen = run.summary.find_metric(metric if field == "score" else field)
        return chosen.value if chosen else None

    return read


def parse_quantity(text: str, unit: str, field: str) -> float:
    """A number in SI units from `10m`, `600ms`, `2GiB`, `30%`, `1e-4`.

    Raises:
        FilterError: it is no number, or the unit is not one of the field's.
    """
    match = _NUMBER.fullmatch(text)
    units: Mapping[str, float] = {"s": SECONDS, "bytes": SIZES}.get(unit, {"%": 0.01})
    if match is None:
        example = {"s": "10m", "bytes": "2GiB"}.get(unit, ".3")
        raise FilterError(f"'{text}' is no number; write {field}>{example}")
    if match[2] and match[2] not in units:
        raise FilterError(f"'{match[2]}' is no unit of {field}; it has {', '.join(units)}")
    return float(match[1]) * (units[match[2]] if match[2] else 1.0)


def _as_number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _is_between(value: Any, low: float | None, high: float | None) -> bool:
    number = _as_number(value)
    return number is not None and (
        (low is None or number >= low) and (high is None or number <= high)
    )


def _plain_value(value: Any, unit: str) -> Any:
    """A number as a float, any other value as text in small letters, to be compared."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)).lower()
    try:
        return parse_quantity(str(value), unit, "")
    except FilterError:
        return str(value).lower()


def select_runs(runs: Sequence[ListedRun], run_filter: RunFilter) -> list[ListedRun]:
    """The runs that match; those in the trash only if the filter names it (`in:trash`)."""
    with_trash = "in" in run_filter.fields
    return [run for run in runs if (with_trash or not run.is_trashed) and run_filter.matches(run)]
