"""The architecture of captioners as a drawing in text: vision tower, projectors, language model.

Apart from the sections of facts: it is drawn from a few of them, as the study's report has it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from results import captioning, phrases
from results.schema import RunRecord
from results.text import clean_line
from results.words import say

WIDTH: Final = 40
"""Cells of a line in a box; longer ones are cut."""
LINES: Final = 8
"""Lines of a box; more projectors are counted by the table of experiments."""
_PROJECTOR: Final = re.compile(r"([\w-]+, [\d,]+) parameters(?:, (\d+ tokens))?")
NEEDED: Final = ("vision", "projector", "llm")


def drawings(records: Sequence[RunRecord], lang: str) -> str:
    """One drawing for each captioner of the records; empty: there is none."""
    found = [r for r in captioning.of(records) if all(r.facts.get(name) for name in NEEDED)]
    models: dict[str, list[RunRecord]] = {}
    for record in found:
        models.setdefault(record.identity.base_model or record.identity.model, []).append(record)
    return "\n\n".join("\n".join(("```text", *_drawn(own, lang), "```")) for own in models.values())


def _drawn(records: Sequence[RunRecord], lang: str) -> list[str]:
    facts = records[0].facts
    ranks = dict.fromkeys(r.identity.params.get("lora_rank") or 0 for r in records)
    projectors = dict.fromkeys(_projector(r.facts["projector"]) for r in records)
    words = [f"LoRA r{rank}" if rank else say("architecture.frozen", lang) for rank in ranks]
    llm = _parts(facts["llm"], lang)
    if len(llm) > 3:
        llm = [llm[0], *llm[-2:]]  # how a base from scratch was made stands in the facts
    boxes = (
        (say("architecture.vision", lang), _parts(facts["vision"], lang)),
        (say("architecture.projector", lang), list(projectors)),
        (f"{say('architecture.llm', lang)} ({', '.join(words)})", llm),
    )
    return _joined([[title, *lines][:LINES] for title, lines in boxes])


def _projector(fact: str) -> str:
    known = _PROJECTOR.match(fact)
    return ", ".join(part for part in known.groups() if part) if known else fact


def _parts(fact: str, lang: str) -> list[str]:
    """A fact's parts, one a line; that the tower is frozen stands in its title."""
    parts = re.split(r"[;,] ", fact)
    return [phrases.localized(part, lang) for part in parts if part != "frozen"]


def _joined(boxes: Sequence[Sequence[str]]) -> list[str]:
    """The boxes side by side, an arrow between each two."""
    high = max(map(len, boxes))
    columns = [list(_box(lines, high)) for lines in boxes]
    arrow = [" ──▶ " if row == 1 else " " * 5 for row in range(high + 2)]
    return [
        gap.join(parts).rstrip()
        for gap, parts in zip(arrow, zip(*columns, strict=True), strict=True)
    ]


def _box(lines: Sequence[str], high: int) -> Iterator[str]:
    shown = [clean_line(line.replace("`", "'"), WIDTH) for line in lines]
    wide = max(map(_cells, shown))
    yield f"┌{'─' * (wide + 2)}┐"
    for line in [*shown, *[""] * (high - len(shown))]:
        yield f"│ {line}{' ' * (wide - _cells(line))} │"
    yield f"└{'─' * (wide + 2)}┘"


def _cells(text: str) -> int:
    """Width in a terminal: letters of Korean take two cells."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
