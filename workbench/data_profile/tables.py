"""A profile, or two side by side, as tables: for the terminal, Markdown and JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets_mm.profile.profile import FieldProfile, Profile
from results.text.sanitize import clean_line
from results.text.table import Table, TableCell, TableColumn, code
from workbench.data_profile.section_types import ProfileSection
from workbench.data_profile.sections import build_sections


def section_table(
    section: ProfileSection, profiles: Sequence[Profile], *, markup: bool = False
) -> Table:
    """The section as a table; with two profiles the last column has the difference.

    `markup`: the table is for Markdown, so names of files are escaped.
    """
    pair = len(profiles) == 2
    names = [code(p.name) if markup else clean_line(p.name) for p in profiles]
    columns = [TableColumn(section.title), *(TableColumn(name, right=True) for name in names)]
    columns += [TableColumn("difference", right=True)] if pair else []
    rows = [
        (
            TableCell(row.label, "text"),
            *(TableCell(figure.text, "value") for figure in row.figures),
            *([TableCell(row.difference, "value")] if pair else []),
        )
        for row in section.rows
    ]
    remarks = (TableCell(section.remark, "text"),) if section.remark else ()
    return Table(tuple(columns), tuple(rows), remarks)


def json_rows(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """Every row as one JSON object."""
    return [
        {
            "section": section.title,
            "label": row.label,
            "figures": [
                {"subset": profile.name, "text": figure.text, "value": figure.value,
                 "share": figure.share, "low": figure.low, "high": figure.high}
                for profile, figure in zip(profiles, row.figures, strict=True)
            ],
            "difference": row.difference,
        }
        for section in build_sections(profiles)
        for row in section.rows
    ]  # fmt: skip


def schema_table(profile: Profile) -> Table:
    """The schema: types of each field, and kinds of absence as shares of records."""
    titles = ("field", "types seen", "no key", "null", '"NA"', "empty", "elements absent")
    columns = [TableColumn(title, right=number > 1) for number, title in enumerate(titles)]
    rows = []
    for field in profile.fields:
        counts = (field.no_key, field.null, field.stated_na, field.empty)
        shares = [_format_share(count, profile.records) for count in counts]
        elements = _format_share(field.elements_absent, field.elements) if field.elements else "–"
        cells = [TableCell(field.name, "text"), TableCell(_format_types(field), "text")]
        rows.append((*cells, *(TableCell(text, "value") for text in (*shares, elements))))
    return Table(tuple(columns), tuple(rows))


def _format_types(field: FieldProfile) -> str:
    if len(field.types) == 1:
        return next(iter(field.types))
    return ", ".join(f"{kind} {count:,}" for kind, count in field.types.items()) or "–"


def _format_share(count: int, total: int) -> str:
    """`0` or a percentage; small counts are `< 0.01 %` and never round to 0."""
    if not count:
        return "0"
    share = 100 * count / max(total, 1)
    return f"{share:.2f} %" if share >= 0.01 else "< 0.01 %"
