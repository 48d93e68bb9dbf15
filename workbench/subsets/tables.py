"""A profile, or two side by side, as tables: for the terminal, Markdown and JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets_mm.profile.profile import FieldProfile, Profile
from results.tables.table import Cell, Column, Table, code
from results.text.sanitize import clean_line
from workbench.subsets.section_types import Section
from workbench.subsets.sections import sections


def table(section: Section, profiles: Sequence[Profile], *, markup: bool = False) -> Table:
    """The section as a table; with two profiles a last column holds the difference.

    `markup`: it is meant for Markdown, where names of files must not be read as markup.
    """
    pair = len(profiles) == 2
    names = [code(p.name) if markup else clean_line(p.name) for p in profiles]
    columns = [Column(section.title), *(Column(name, right=True) for name in names)]
    columns += [Column("difference", right=True)] if pair else []
    rows = [
        (
            Cell(row.label, "text"),
            *(Cell(figure.text, "value") for figure in row.figures),
            *([Cell(row.difference, "value")] if pair else []),
        )
        for row in section.rows
    ]
    remarks = (Cell(section.remark, "text"),) if section.remark else ()
    return Table(tuple(columns), tuple(rows), remarks)


def lines(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
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
        for section in sections(profiles)
        for row in section.rows
    ]  # fmt: skip


def fields(profile: Profile) -> Table:
    """The schema: types as written, and every way of being absent, as shares of records."""
    titles = ("field", "types seen", "no key", "null", '"NA"', "empty", "elements absent")
    columns = [Column(title, right=number > 1) for number, title in enumerate(titles)]
    rows = []
    for field in profile.fields:
        counts = (field.no_key, field.null, field.stated_na, field.empty)
        shares = [_share(count, profile.records) for count in counts]
        elements = _share(field.elements_absent, field.elements) if field.elements else "–"
        cells = [Cell(field.name, "text"), Cell(_types(field), "text")]
        rows.append((*cells, *(Cell(text, "value") for text in (*shares, elements))))
    return Table(tuple(columns), tuple(rows))


def _types(field: FieldProfile) -> str:
    if len(field.types) == 1:
        return next(iter(field.types))
    return ", ".join(f"{kind} {count:,}" for kind, count in field.types.items()) or "–"


def _share(count: int, total: int) -> str:
    """`0`, or a percentage that never rounds a finding to nothing."""
    if not count:
        return "0"
    share = 100 * count / max(total, 1)
    return f"{share:.2f} %" if share >= 0.01 else "< 0.01 %"
