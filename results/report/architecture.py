"""The parts of a suite's models as a drawing of text: what is frozen, what is trained, its size.

Computed from the facts and settings of the records: captioners as vision encoder, projectors and
language model; vision-language models with their LoRA; two towers of a retrieval model with what
joins them. A drawing of text, because it looks the same on a terminal and in every viewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from results.records import message_translations
from results.records.schema import Identity, RunRecord
from results.records.suite_view import SuiteView
from results.tables import captioning
from results.text import formats
from results.text.sanitize import clean_line
from results.text.table import code_block, text_width
from results.text.translations import translate

Lines = list[str]

_SNAPSHOT: Final = re.compile(r"[0-9a-f]{40}")
"""A folder of the hub's cache is called by its commit, which names no model."""
_TOWER: Final = re.compile(r"(\w+) ([\d,]+)")
"""`text 29,000,000` in the fact of a retrieval model's parameters."""
_NF4: Final = "in NF4"
MAX_LINE: Final = 44
"""Letters of a line; a longer model name is cut."""


def render(view: SuiteView, lang: str) -> str:
    """One drawing for each kind of model in the suite; empty where no record knows its parts."""
    drawings: list[str] = []
    for name in dict.fromkeys(_base_model(r) for r in view.records):
        records = [r for r in view.records if _base_model(r) == name and r.facts]
        planned = [identity for identity in view.planned if identity.model == name]
        for lines in (
            _draw_captioner(view, records, planned, lang),
            _draw_vqa_model(records, lang),
            _draw_towers(records, lang),
        ):
            if lines and (drawing := code_block("\n".join(lines), "text")) not in drawings:
                drawings.append(drawing)
    return "\n".join(drawings)


def _base_model(record: RunRecord) -> str:
    return record.identity.base_model or record.identity.model


def _draw_captioner(
    view: SuiteView, records: Sequence[RunRecord], planned: Sequence[Identity], lang: str
) -> Lines:
    runs = [r for r in records if r.identity.engine == "captioning" and "vision" in r.facts]
    if not runs:
        return []
    last = runs[-1]
    encoder, _, patches = last.facts["vision"].partition("; ")
    vision = [translate("architecture.vision", lang), _state_text("frozen", lang), ""]
    vision += [
        encoder.partition(",")[0].replace(" at ", ", "),
        message_translations.localize(patches, lang),
    ]
    projectors = _projector_lines(view, runs, planned, lang)
    return _draw_chain([vision, projectors, _language_model_lines(last, "llm", lang)])


def _projector_lines(
    view: SuiteView, records: Sequence[RunRecord], planned: Sequence[Identity], lang: str
) -> Lines:
    """The projector with its size and tokens, or all that are compared."""
    sizes: dict[str, str] = {}
    facts_of_runs = [(r.identity, r.facts) for r in records]
    facts_of_runs += [(i, view.planned_facts.get(i.run_id, {})) for i in planned]
    for identity, facts in facts_of_runs:
        kind, size, *rest = (*facts.get("projector", "").split(", "), "")
        title = captioning.projector_title(kind or identity.params.get("projector"))
        reported = view.reported.get(identity.run_id, {}).get("projector", "")
        count = size.partition(" ")[0].replace(",", "")
        parameters = formats.parameters(int(count)) if count.isdigit() else ""
        name = f"{title} = {reported}" if reported not in ("", title) else title
        details = (parameters,) if name != title else (parameters, *rest[:1])  # a line is short
        described = ", ".join(filter(None, details))
        sizes[name] = described or sizes.get(name, "")
    rows = [f"{name} ({size})" if size else name for name, size in sizes.items() if name]
    head = [translate("architecture.projector", lang), _state_text("trained", lang), ""]
    if len(rows) < 2:
        return head + rows
    return [
        *head,
        translate("architecture.compared", lang).format(len(rows)),
        *(f"- {r}" for r in rows),
    ]


def _draw_vqa_model(records: Sequence[RunRecord], lang: str) -> Lines:
    runs = [r for r in records if r.identity.engine == "vqa" and "model" in r.facts]
    if not runs:
        return []
    last = runs[-1]
    side = last.identity.params.get("long_side")
    vision = [translate("architecture.vision", lang), _state_text("frozen", lang), ""]
    vision += [translate("architecture.side", lang).format(side)] if side else []
    answers = [translate("architecture.answers", lang), "", "a / b / c / d"]
    return _draw_chain([vision, _language_model_lines(last, "model", lang), answers])


def _language_model_lines(record: RunRecord, fact: str, lang: str) -> Lines:
    """Name, precision of the weights, LoRA: by the fact of that name and the settings."""
    params, description = record.identity.params, record.facts.get(fact, "")
    name = description.partition(", ")[0]
    name = record.identity.model_title if _SNAPSHOT.fullmatch(name) or not name else name
    rank, alpha = params.get("lora_rank"), params.get("lora_alpha")
    head = [
        translate("architecture.llm", lang),
        _state_text("lora" if rank else "trained", lang),
        "",
        name,
    ]
    head += ["4-bit NF4"] if _NF4 in description else []
    return head + ([f"LoRA r={rank}, alpha={alpha}"] if rank else [])


def _draw_towers(records: Sequence[RunRecord], lang: str) -> Lines:
    runs = [r for r in records if r.identity.engine == "retrieval" and "parameters" in r.facts]
    if not runs:
        return []
    facts = runs[-1].facts
    counts = dict(_TOWER.findall(facts["parameters"].partition(": ")[2].partition(";")[0]))
    state = _state_text("frozen" if "towers" in facts else "trained", lang)

    def tower_lines(kind: str, *details: str) -> Lines:
        count = counts.get(kind, "").replace(",", "")
        size = formats.parameters(int(count)) if count.isdigit() else ""
        return [translate(f"architecture.{kind}", lang), state, "", *filter(None, (size, *details))]

    joined = [translate("architecture.joined", lang), ""]
    descriptions = (facts.get(name, "") for name in ("fusion", "scoring"))
    joined += [
        line
        for text in descriptions
        if text
        for line in _wrap(message_translations.localize(text, lang))
    ]
    pair = tower_lines("text"), tower_lines("vision", facts.get("image_size", ""))
    width = max(text_width(line) for lines in pair for line in lines)
    towers = [line for lines in pair for line in _draw_box(lines, width)]
    return _place_beside([towers, _draw_box(joined)])


def _state_text(name: str, lang: str) -> str:
    return f"({translate(f'architecture.{name}', lang)})"


def _wrap(text: str, width: int = 34) -> Iterator[str]:
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


def _draw_chain(parts: Sequence[Lines]) -> Lines:
    tallest = max(map(len, parts))
    return _place_beside([_draw_box([*part, *[""] * (tallest - len(part))]) for part in parts])


def _place_beside(blocks: Sequence[Lines]) -> Lines:
    """Blocks side by side, each centred in height, arrows between them at the middle."""
    tallest = max(map(len, blocks))
    columns: list[Lines] = []
    for position, block in enumerate(blocks):
        above = (tallest - len(block)) // 2
        width = max(map(text_width, block))
        lines = ["" for _ in range(above)] + list(block)
        columns.append([_pad(line, width) for line in [*lines, *[""] * (tallest - len(lines))]])
        if position + 1 < len(blocks):
            columns.append([" ──▶ " if n == tallest // 2 else "     " for n in range(tallest)])
    return ["".join(row).rstrip() for row in zip(*columns, strict=True)]


def _draw_box(lines: Sequence[str], width: int = 0) -> Lines:
    """The lines with a border; `width`: minimum number of columns inside it."""
    lines = [clean_line(line, MAX_LINE) for line in lines]
    width = max(width, *map(text_width, lines))
    body = [f"│ {_pad(line, width)} │" for line in lines]
    rule = "─" * (width + 2)
    return [f"┌{rule}┐", *body, f"└{rule}┘"]


def _pad(line: str, width: int) -> str:
    return line + " " * (width - text_width(line))
