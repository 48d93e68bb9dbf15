"""Sections of a report that people write: goal, reasons, findings, timeline, next steps.

The texts come from the plan or from notes and are shown unchanged.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from results.comparison.document_view import DocumentView, ReportPeriod
from results.records import message_translations
from results.records.suite_view import SuiteView
from results.text.table import (
    Table,
    TableCell,
    TableColumn,
    code,
    escape,
    join_lines,
    prose,
    render_markdown,
    sentence,
)
from results.text.translations import translate


def title(document: DocumentView, lang: str) -> str:
    """Heading of the report: the title from plan or notes, else its kind and what it is of."""
    noted = prose(document.suite.words.title)
    if noted and document.kind != "audit":
        return noted
    period, name = document.period, document.suite.name
    if document.kind == "run":
        name = ", ".join(r.identity.label or r.identity.run_id for r in document.suite.records)
    subject = format_days(period) if period else noted or escape(name)
    return translate(f"document.title {document.kind}", lang).format(subject)


def format_days(period: ReportPeriod) -> str:
    """`2026-11-23 – 2026-11-29`, of one day its date alone."""
    return " – ".join(dict.fromkeys((period.first, period.last)))


def goal(view: SuiteView, lang: str) -> Iterator[str]:
    """The goal as a quotation, where there is one."""
    if view.words.goal:
        yield f"> **{translate('story.goal', lang)}**: {prose(view.words.goal)}"


def background(view: SuiteView) -> str:
    """What led to the work; empty where nobody said."""
    return prose(view.words.background) if view.words.background else ""


def subset_reasons(view: SuiteView, subsets: Sequence[str], lang: str) -> str:
    """Reasons for the choice of subsets, then of each subset with its recipe's title and notes."""
    reasons = view.words.reasons
    lines = [f"{translate('story.why', lang)}: {prose(reasons[''])}", ""] if reasons.get("") else []
    for name in subsets:
        recipe = view.recipes.get(name)
        title_of_recipe = (
            sentence(message_translations.localize(recipe.title, lang)) if recipe else ""
        )
        if not title_of_recipe and name not in reasons:
            continue
        lines.append(f"- **{code(name)}**{f': {title_of_recipe}' if title_of_recipe else ''}")
        if name in reasons:
            lines.append(f"  - {translate('story.why', lang)}: {prose(reasons[name])}")
        if recipe and recipe.notes:
            lines.append(f"  - {sentence(message_translations.localize(recipe.notes, lang))}")
    return join_lines(lines)


def other_reasons(view: SuiteView, subsets: Sequence[str]) -> str:
    """Reasons for the choice of models and variants."""
    reasons = {
        name: reason for name, reason in view.words.reasons.items() if name and name not in subsets
    }
    return join_lines(
        [f"- **{escape(name)}**: {prose(reason)}" for name, reason in reasons.items()]
    )


def findings(view: SuiteView) -> str:
    """Findings about the suite, numbered."""
    texts = view.notes.get("", ())
    return join_lines([f"{number}. {prose(text)}" for number, text in enumerate(texts, 1)])


def timeline(view: SuiteView, lang: str) -> str:
    """Dates and what happened, dates in order, others behind; nothing without a noted event."""
    if not view.words.events:
        return ""
    events = [(date, prose(event)) for date, event in view.words.events]
    if view.started_wall is not None:
        day = datetime.datetime.fromtimestamp(view.started_wall, datetime.UTC)
        events.insert(0, (day.strftime("%Y-%m-%d"), translate("story.started", lang)))
    return timeline_table(events, lang)


def timeline_table(events: Sequence[tuple[str, str]], lang: str) -> str:
    """A row an event (date, Markdown): dates in order, other words behind; empty without events."""
    ordered = sorted(
        events, key=lambda event: (not _is_date(event[0]), event[0] if _is_date(event[0]) else "")
    )
    if not ordered:
        return ""
    columns = (
        TableColumn(translate("story.date", lang)),
        TableColumn(translate("story.event", lang)),
    )
    body = tuple((TableCell(date, "text"), TableCell(event, "value")) for date, event in ordered)
    return render_markdown(Table(columns, body))


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def links(view: SuiteView, lang: str) -> str:
    """Documents beside the report: where they are, what they hold."""
    if not view.words.links:
        return ""
    columns = (
        TableColumn(translate("story.document", lang)),
        TableColumn(translate("story.holds", lang)),
    )
    body = tuple(
        (TableCell(_format_link(target), "value"), TableCell(contents, "prose"))
        for target, contents in view.words.links
    )
    return render_markdown(Table(columns, body))


def _format_link(target: str) -> str:
    """`[name](target)`; only paths and pages are noted, and what could end the link is quoted."""
    quoted = quote(target, safe="/:?&=#%~+,;@!.-_")
    name = target if "://" in target else target.rpartition("/")[2] or target
    return f"[{escape(name)}]({quoted})"


def conclusion(view: SuiteView) -> str:
    """The conclusion, as a quotation."""
    return f"> {prose(view.words.conclusion)}\n" if view.words.conclusion else ""


def next_steps(view: SuiteView) -> str:
    """The next steps, as a list."""
    return join_lines([f"- {prose(step)}" for step in view.words.next_steps])
