"""Checks of a gate as a table, as JUnit XML and as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree

from results.comparison.gate import GateCheck, Verdict, summarize
from results.records.message_translations import localize
from results.text import formats
from results.text.sanitize import clean
from results.text.table import Table, TableCell, TableColumn, render_markdown, render_terminal
from results.text.translations import translate

_SECONDS: Final = ("epoch", "step", "wall")
_COLUMNS: Final = ("check", "baseline", "candidate", "worse by", "p", "detectable", "verdict")


def render(
    checks: Sequence[GateCheck], threshold: float, lang: str = "en", *, markdown: bool
) -> str:
    """The verdict in a line, and a row for each check."""
    verdict = translate(f"gate.{summarize(checks).value}", lang)
    title = translate("gate.title", lang).format(verdict, f"{threshold:.1%}")
    table = checks_table(checks, lang)
    if markdown:
        return f"### {title}\n\n{render_markdown(table)}"
    return f"{title}\n\n{render_terminal(table)}"


def checks_table(checks: Sequence[GateCheck], lang: str = "en") -> Table:
    """A row a check: both values, the relative change to the worse with its interval, verdict."""
    rows = tuple(
        (
            TableCell(check.name, "code"),
            TableCell(_value(check, check.baseline), "value"),
            TableCell(_value(check, check.candidate), "value"),
            TableCell(_harm(check), "value"),
            TableCell("" if check.p is None else f"{check.p:.3f}", "value"),
            TableCell("" if check.detectable is None else f"{check.detectable:.1%}", "value"),
            TableCell(
                translate(f"gate.{check.verdict.value}", lang),
                "strong" if _is_alarm(check) else "value",
            ),
        )
        for check in checks
    )
    remarks = [
        TableCell(f"{check.name}: {localize(check.reason, lang)}")
        for check in checks
        if check.reason
    ]
    methods = dict.fromkeys(c.harm.method for c in checks if c.harm.low is not None)
    remarks += [TableCell(localize(method, lang)) for method in methods]
    columns = tuple(
        TableColumn(translate(f"gate.{name}", lang), name not in ("check", "verdict"))
        for name in _COLUMNS
    )
    return Table(columns if rows else (), rows, tuple(remarks))


def render_junit(checks: Sequence[GateCheck]) -> str:
    """A test case for each check: a failure if it is worse, skipped if it is inconclusive."""
    alarms = sum(map(_is_alarm, checks))
    skipped = sum(check.verdict is Verdict.INCONCLUSIVE for check in checks)
    suite = ElementTree.Element(
        "testsuite", name="workbench gate", tests=str(len(checks)), failures=str(alarms),
        errors="0", skipped=str(skipped),
    )  # fmt: skip
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="gate", name=clean(check.name))
        sentence = clean(
            f"{_value(check, check.baseline)} → {_value(check, check.candidate)}, {_harm(check)}"
        )
        if _is_alarm(check):
            ElementTree.SubElement(case, "failure", message=sentence)
        elif check.verdict is Verdict.INCONCLUSIVE:
            ElementTree.SubElement(case, "skipped", message=clean(check.reason))
        ElementTree.SubElement(case, "system-out").text = sentence
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def to_row(check: GateCheck) -> dict[str, Any]:
    """The check as plain values, for JSON; `harm` 0.05 is 5 % worse."""
    return {
        "check": check.name, "a": check.baseline, "b": check.candidate, "harm": check.harm.delta,
        "low": check.harm.low, "high": check.harm.high, "p_holm": check.p, "n": check.n,
        "detectable": check.detectable, "method": check.harm.method,
        "verdict": check.verdict.value, "reason": check.reason,
    }  # fmt: skip


def _is_alarm(check: GateCheck) -> bool:
    return check.verdict is Verdict.WORSE


def _value(check: GateCheck, value: float) -> str:
    if not check.is_cost:
        return formats.number(value)
    return formats.step_time(value) if check.name in _SECONDS else formats.size(value)


def _harm(check: GateCheck) -> str:
    delta, low, high, _ = check.harm
    if not math.isfinite(delta):
        return ""
    limits = "" if low is None or high is None else f" [{low:+.1%}, {high:+.1%}]"
    return f"{delta:+.1%}{limits}"
