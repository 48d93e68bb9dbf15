"""The parts of a suite's models as a drawing of text: what is frozen, what is trained, its size.

Computed from the facts and settings of the records: captioners as vision encoder, projectors and
language model; vision-language models with their LoRA; two towers of a retrieval model with what
joins them. A drawing of text, because it looks the same on a terminal and in every viewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from results.records.schema import Identity, RunRecord
from results.records.suite_view import SuiteView
from results.tables import captioning, message_translations
from results.tables.table import fenced, text_width
from results.text import formats
from results.text.sanitize import clean_line
from results.text.translations import say

Lines = list[str]

_SNAPSHOT: Final = re.compile(r"[0-9a-f]{40}")
"""A folder of the hub's cache is called by its commit, which names no model."""
_TOWER: Final = re.compile(r"(\w+) ([\d,]+)")
"""`text 29,000,000` in the fact of a retrieval model's parameters."""
_NF4: Final = "in NF4"
LONGEST: Final = 44
"""Letters of a line; a longer name of a model is cut."""


def render(view: SuiteView, lang: str) -> str:
    """One drawing for each kind of model in the suite; empty where no record knows its parts."""
    drawn: list[str] = []
    for name in dict.fromkeys(_base(r) for r in view.records):
        own = [r for r in view.records if _base(r) == name and r.facts]
        planned = [one for one in view.planned if one.model == name]
        for lines in (_captioner(own, planned, lang), _answerer(own, lang), _towers(own, lang)):
            if lines and (text := fenced("\n".join(lines), "text")) not in drawn:
                drawn.append(text)
    return "\n".join(drawn)


def _base(record: RunRecord) -> str:
    return record.identity.base_model or record.identity.model


def _captioner(records: Sequence[RunRecord], planned: Sequence[Identity], lang: str) -> Lines:
    own = [r for r in records if r.identity.engine == "captioning" and "vision" in r.facts]
    if not own:
        return []
    first = own[-1]
    seen, _, patches = first.facts["vision"].partition("; ")
    vision = [say("architecture.vision", lang), _state("frozen", lang), ""]
    vision += [
        seen.partition(",")[0].replace(" at ", ", "),
        message_translations.localized(patches, lang),
    ]
    return _chain([vision, _projectors(own, planned, lang), _language_model(first, "llm", lang)])


def _projectors(records: Sequence[RunRecord], planned: Sequence[Identity], lang: str) -> Lines:
    """The projector with its size and tokens, or all that are compared."""
    found: dict[str, str] = {}
    for record in records:
        kind, size, *rest = (*record.facts.get("projector", "").split(", "), "")
        count = size.partition(" ")[0].replace(",", "")
        known = formats.parameters(int(count)) if count.isdigit() else ""
        found[captioning.projector_title(kind)] = ", ".join(filter(None, (known, *rest[:1])))
    for identity in planned:
        found.setdefault(captioning.projector_title(identity.params.get("projector")), "")
    rows = [f"{name} ({size})" if size else name for name, size in found.items() if name]
    head = [say("architecture.projector", lang), _state("trained", lang), ""]
    if len(rows) < 2:
        return head + rows
    return [*head, say("architecture.compared", lang).format(len(rows)), *(f"- {r}" for r in rows)]


def _answerer(records: Sequence[RunRecord], lang: str) -> Lines:
    own = [r for r in records if r.identity.engine == "vqa" and "model" in r.facts]
    if not own:
        return []
    first = own[-1]
    side = first.identity.params.get("long_side")
    vision = [say("architecture.vision", lang), _state("frozen", lang), ""]
    vision += [say("architecture.side", lang).format(side)] if side else []
    answers = [say("architecture.answers", lang), "", "a / b / c / d"]
    return _chain([vision, _language_model(first, "model", lang), answers])


def _language_model(record: RunRecord, fact: str, lang: str) -> Lines:
    """Name, precision of the weights, LoRA: by the fact of that name and the settings."""
    params, said = record.identity.params, record.facts.get(fact, "")
    name = said.partition(", ")[0]
    name = record.identity.model_title if _SNAPSHOT.fullmatch(name) or not name else name
    rank, alpha = params.get("lora_rank"), params.get("lora_alpha")
    head = [say("architecture.llm", lang), _state("lora" if rank else "trained", lang), "", name]
    head += ["4-bit NF4"] if _NF4 in said else []
    return head + ([f"LoRA r={rank}, alpha={alpha}"] if rank else [])


def _towers(records: Sequence[RunRecord], lang: str) -> Lines:
    own = [r for r in records if r.identity.engine == "retrieval" and "parameters" in r.facts]
    if not own:
        return []
    facts = own[-1].facts
    counts = dict(_TOWER.findall(facts["parameters"].partition(": ")[2].partition(";")[0]))
    state = _state("frozen" if "towers" in facts else "trained", lang)

    def tower(kind: str, *beside: str) -> Lines:
        count = counts.get(kind, "").replace(",", "")
        size = formats.parameters(int(count)) if count.isdigit() else ""
        return [say(f"architecture.{kind}", lang), state, "", *filter(None, (size, *beside))]

    joined = [say("architecture.joined", lang), ""]
    said = (facts.get(name, "") for name in ("fusion", "scoring"))
    joined += [
        line
        for text in said
        if text
        for line in _folded(message_translations.localized(text, lang))
    ]
    pair = tower("text"), tower("vision", facts.get("image_size", ""))
    width = max(text_width(line) for lines in pair for line in lines)
    left = [line for lines in pair for line in _box(lines, width)]
    return _beside([left, _box(joined)])


def _state(name: str, lang: str) -> str:
    return f"({say(f'architecture.{name}', lang)})"


def _folded(text: str, width: int = 34) -> Iterator[str]:
    """Lines of whole words, no wider than that where the words allow it."""
    line = ""
    for word in text.split():
        if line and text_width(f"{line} {word}") > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    if line:
        yield line


def _chain(parts: Sequence[Lines]) -> Lines:
    tallest = max(map(len, parts))
    return _beside([_box([*part, *[""] * (tallest - len(part))]) for part in parts])


def _beside(blocks: Sequence[Lines]) -> Lines:
    """Blocks side by side, each centred in height, arrows between them at the middle."""
    tallest = max(map(len, blocks))
    columns: list[Lines] = []
    for place, block in enumerate(blocks):
        above = (tallest - len(block)) // 2
        width = max(map(text_width, block))
        lines = ["" for _ in range(above)] + list(block)
        columns.append([_filled(line, width) for line in [*lines, *[""] * (tallest - len(lines))]])
        if place + 1 < len(blocks):
            columns.append([" ──▶ " if n == tallest // 2 else "     " for n in range(tallest)])
    return ["".join(row).rstrip() for row in zip(*columns, strict=True)]


def _box(lines: Sequence[str], width: int = 0) -> Lines:
    """With a border; `width`: columns inside of it, at least."""
    lines = [clean_line(line, LONGEST) for line in lines]
    width = max(width, *map(text_width, lines))
    body = [f"│ {_filled(line, width)} │" for line in lines]
    rule = "─" * (width + 2)
    return [f"┌{rule}┐", *body, f"└{rule}┘"]


def _filled(line: str, width: int) -> str:
    return line + " " * (width - text_width(line))
