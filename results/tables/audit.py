"""Tables of the audit: faults with their evidence and remedy, and the rules without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from results.records.suite_view import AuditRow
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate

STANDINGS: Final = ("clean", "impossible", "unjudged")
"""Standings of a rule without a fault."""


def fault_table(rows: Sequence[AuditRow], lang: str = "en") -> Table:
    """One row a fault: severity, fault and code, runs, evidence, remedy; counts below."""
    faults = [row for row in rows if row.standing == "fault"]
    titles = ("severity", "fault", "runs", "evidence", "remedy")
    columns = tuple(TableColumn(translate(f"audit.{title}", lang)) for title in titles)
    body = tuple(
        (
            TableCell(translate(f"audit.{row.severity}", lang), "value"),
            TableCell(row.title[lang], flags=(row.code,)),
            TableCell(", ".join(row.runs)),
            TableCell(row.evidence[lang], "sentence"),
            TableCell(row.remedy[lang], "sentence"),
        )
        for row in faults
    )
    return Table(columns if body else (), body, (TableCell(count_line(rows, lang), "value"),))


def count_line(rows: Sequence[AuditRow], lang: str = "en") -> str:
    """`faults: 3 (1 error, 2 warnings, 0 notes); rules without one: …`."""
    severities = [row.severity for row in rows if row.standing == "fault"]
    counts = [severities.count(name) for name in ("error", "warning", "note")]
    standings = [row.standing for row in rows]
    others = [standings.count(name) for name in STANDINGS]
    return translate("audit.counts", lang).format(sum(counts), *counts, sum(others), *others)


def rule_table(rows: Sequence[AuditRow], lang: str = "en") -> Table:
    """One row a rule without a fault: the rule, its standing, and why it is so."""
    others = [row for row in rows if row.standing in STANDINGS]
    titles = ("fault", "standing", "reason")
    columns = tuple(TableColumn(translate(f"audit.{title}", lang)) for title in titles)
    body = tuple(
        (
            TableCell(row.title[lang], flags=(row.code,)),
            TableCell(translate(f"audit.{row.standing}", lang), "value"),
            TableCell(row.evidence.get(lang, ""), "sentence"),
        )
        for row in sorted(others, key=lambda row: STANDINGS.index(row.standing))
    )
    return Table(columns, body)
