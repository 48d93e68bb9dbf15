"""What people say about a suite in its report: goal, reasons, findings, timeline, next steps.

Apart from `sections`, whose parts are made of records. All texts are a person's, from the plan or
from notes, and are shown as they were written.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from results.records.suite_view import SuiteView
from results.tables import message_translations
from results.tables.table import Cell, Column, Table, code, escape, markdown, prose
from results.text.translations import say


def title(view: SuiteView, lang: str) -> str:
    """The heading of the report: the title that a person gave, else the suite's name."""
    if view.words.title:
        return prose(view.words.title)
    return say("report.title", lang).format(escape(view.name))


def head(view: SuiteView, lang: str) -> Iterator[str]:
    """Goal and background, where there are any."""
    if view.words.goal:
        yield f"> **{say('story.goal', lang)}**: {prose(view.words.goal)}"
    if view.words.background:
        yield f"## {say('story.background', lang)}"
        yield prose(view.words.background)


def subset_reasons(view: SuiteView, subsets: Sequence[str], lang: str) -> str:
    """Why these subsets: of the choice, then of each with its recipe's title and notes."""
    reasons = view.words.reasons
    lines = [f"{say('story.why', lang)}: {prose(reasons[''])}", ""] if reasons.get("") else []
    for name in subsets:
        recipe = view.recipes.get(name)
        told = escape(message_translations.localized(recipe.title, lang)) if recipe else ""
        if not told and name not in reasons:
            continue
        lines.append(f"- **{code(name)}**{f': {told}' if told else ''}")
        if name in reasons:
            lines.append(f"  - {say('story.why', lang)}: {prose(reasons[name])}")
        if recipe and recipe.notes:
            lines.append(f"  - {escape(message_translations.localized(recipe.notes, lang))}")
    return _block(lines)


def other_reasons(view: SuiteView, subsets: Sequence[str]) -> str:
    """Why the models and variants of the suite were chosen."""
    named = {name: why for name, why in view.words.reasons.items() if name and name not in subsets}
    return _block([f"- **{escape(name)}**: {prose(why)}" for name, why in named.items()])


def findings(view: SuiteView) -> str:
    """What was found about the suite, numbered."""
    found = view.notes.get("", ())
    return _block([f"{number}. {prose(text)}" for number, text in enumerate(found, 1)])


def timeline(view: SuiteView, lang: str) -> str:
    """Dates and what happened, dates in order, others behind; nothing without a noted event."""
    if not view.words.events:
        return ""
    events = [(date, prose(what)) for date, what in view.words.events]
    if view.started_wall is not None:
        day = datetime.datetime.fromtimestamp(view.started_wall, datetime.UTC)
        events.insert(0, (day.strftime("%Y-%m-%d"), say("story.started", lang)))
    events.sort(key=lambda event: (not _dated(event[0]), event[0] if _dated(event[0]) else ""))
    columns = (Column(say("story.date", lang)), Column(say("story.event", lang)))
    body = tuple((Cell(date, "text"), Cell(what, "value")) for date, what in events)
    return markdown(Table(columns, body))


def _dated(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def links(view: SuiteView, lang: str) -> str:
    """Documents beside the report: where they are, what they hold."""
    if not view.words.links:
        return ""
    columns = (Column(say("story.document", lang)), Column(say("story.holds", lang)))
    body = tuple(
        (Cell(_link(where), "value"), Cell(holds, "prose")) for where, holds in view.words.links
    )
    return markdown(Table(columns, body))


def _link(where: str) -> str:
    """`[name](where)`; only paths and pages are noted, and what could end the link is quoted."""
    quoted = quote(where, safe="/:?&=#%~+,;@!.-_")
    name = where if "://" in where else where.rpartition("/")[2] or where
    return f"[{escape(name)}]({quoted})"


def conclusion(view: SuiteView) -> str:
    """What follows, as a quotation."""
    return f"> {prose(view.words.conclusion)}\n" if view.words.conclusion else ""


def next_steps(view: SuiteView) -> str:
    """What comes next."""
    return _block([f"- {prose(step)}" for step in view.words.next_steps])


def _block(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""
