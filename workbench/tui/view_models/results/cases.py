"""Single items that runs answered: rows of their list, and the lines and pictures of one. Pure.

A line is what a run wrote about an item; the source is its record in the subset, with the passages
that were found, as `datasets_mm.profile.find_records` prints them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from results.comparison.predictions import LETTERS, answer_text, reference_text
from results.text.sanitize import clean, clean_line
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow

PREDICTIONS: Final = (
    GridColumn("score", "score", 6, right=True),
    GridColumn("rank", "rank", 5, right=True, rank=1),
    GridColumn("item", "item", 12, grow=30, middle_cut=True),
    GridColumn("answer", "answer", 12, grow=24, rank=2),
)
SHOWN_PASSAGES: Final = 3
"""Found passages of a side whose text is shown; the others by their ids."""
TEXT_CHARACTERS: Final = 240
BAR_CELLS: Final = 12
UNSHOWN: Final = frozenset({
    "id", "cluster", "rank", "top", "medium", "question", "options", "letter", "truth",
    "probabilities", "caption", "references", "answer", "votes", "plain", "blank", "generated",
    "parsed", "methods",
})  # fmt: skip
"""Fields of a line that have a place of their own; others are named with their values."""


class CaseSide(NamedTuple):
    """What one run wrote about an item."""

    letter: str
    """A to D; empty: there is one run only."""
    score: float
    line: Mapping[str, Any]


class CaseLine(NamedTuple):
    """A line of text about an item."""

    name: str
    text: str
    tone: str = ""
    """`strong`, `good`, `bad`, `head` or nothing."""


class CasePicture(NamedTuple):
    """A picture beside the text: its title, and the file or why there is none."""

    title: str
    file: Path | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CaseSource:
    """Record of an item in its subset, and passages by their ids."""

    record: Mapping[str, Any] | None = None
    passages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def fields(self) -> Mapping[str, Any]:
        """Fields of the record; empty without it."""
        return self.record["fields"] if self.record else {}


class ListedPredictions(NamedTuple):
    """Output of `workbench results predictions --json`."""

    metric: str
    split: str
    subset: str
    total: int
    matches: int
    metrics: tuple[str, ...]
    sides: tuple[CaseSide, ...]


def parse_predictions(text: str) -> ListedPredictions | None:
    """The command's output; None: no metric of the run has a score of each item."""
    rows = [json.loads(line) for line in text.split("\n") if line]
    if not rows:
        return None
    head = rows[0]
    sides = tuple(CaseSide("", row["score"], {**row["line"], "id": row["id"]}) for row in rows[1:])
    return ListedPredictions(
        head["metric"], head["split"], head["subset"], head["total"], head["matches"],
        tuple(head["metrics"]), sides,
    )  # fmt: skip


def prediction_rows(sides: Sequence[CaseSide]) -> list[GridRow]:
    """A row an item: score, rank, id, answer."""
    return [
        (
            GridCell(q.score(side.score), "strong"),
            format_rank(side.line),
            clean_line(item_id(side)),
            GridCell(clean_line(answer_text(side.line), 120), "dim"),
        )
        for side in sides
    ]


def item_id(side: CaseSide) -> str:
    """Id of the item in its score file."""
    return str(side.line.get("id", ""))


def format_rank(line: Mapping[str, Any]) -> str:
    """`#3`; `–` where the positive was not among the ranked; empty without ranks."""
    if "rank" not in line:
        return ""
    return "–" if line["rank"] is None else f"#{line['rank']}"


def list_passages(sides: Sequence[CaseSide]) -> list[str]:
    """Ids of the passages whose texts are shown."""
    ids = [str(name) for side in sides for name in _list_top(side.line)[:SHOWN_PASSAGES]]
    return list(dict.fromkeys(ids))


def describe_item(side: CaseSide, source: CaseSource) -> list[CaseLine]:
    """What was asked and wanted: the same for all sides."""
    first = side.line
    lines = [CaseLine("item", item_id(side), "head")]
    question = str(first.get("question") or source.fields.get("question") or "")
    if question:
        lines.append(CaseLine("question", question, "strong"))
    if instruction := source.fields.get("instruction"):
        lines.append(CaseLine("instruction", str(instruction)))
    lines += _describe_reference(first, source)
    if medium := first.get("medium") or source.fields.get("image_path"):
        lines.append(CaseLine("picture", str(medium)))
    return _clean_lines(lines)


def describe_side(side: CaseSide, source: CaseSource) -> list[CaseLine]:
    """The answer of one run with its score."""
    return _clean_lines(_describe_side(side, source))


def _clean_lines(lines: Iterable[CaseLine]) -> list[CaseLine]:
    return [CaseLine(line.name, clean(line.text), line.tone) for line in lines]


def _describe_reference(line: Mapping[str, Any], source: CaseSource) -> Iterator[CaseLine]:
    references = line.get("references")
    if isinstance(references, list):
        for number, reference in enumerate(references, 1):
            yield CaseLine("reference" if number == 1 else "", str(reference)[:TEXT_CHARACTERS])
    elif "top" in line:
        yield from _describe_positives(line, source)
    elif right := reference_text(line):
        yield CaseLine("right", right)
    if answers := source.fields.get("answer"):
        yield CaseLine("answers", ", ".join(map(str, answers))[:TEXT_CHARACTERS])


def _describe_positives(line: Mapping[str, Any], source: CaseSource) -> Iterator[CaseLine]:
    fields = source.fields
    ids = [str(name) for name in fields.get("passage_id", ())] or [str(line.get("cluster", ""))]
    texts = [str(text) for text in fields.get("passage_text", ())]
    for number, name in enumerate(dict.fromkeys(ids)):
        text = _cut_text(texts[number]) if number < len(texts) else ""
        yield CaseLine("wanted" if number == 0 else "", f"{name}  {text}".rstrip())


def _describe_side(side: CaseSide, source: CaseSource) -> Iterator[CaseLine]:
    line = side.line
    rank = format_rank(line)
    title = " ".join(part for part in (side.letter, q.score(side.score)) if part)
    yield CaseLine(title, f"rank {rank}" if rank else "", "head")
    if "top" in line:
        yield from _describe_ranking(line, source)
    elif isinstance(line.get("probabilities"), list):
        yield from _describe_options(line)
    else:
        yield CaseLine("answer", answer_text(line)[:TEXT_CHARACTERS], "strong")
    for name, value in line.items():
        if name not in UNSHOWN and isinstance(value, int | float | str) and value != "":
            shown = q.number(value) if isinstance(value, float) else str(value)
            yield CaseLine(f"  {clean_line(name, 30)}", shown)


def _describe_ranking(line: Mapping[str, Any], source: CaseSource) -> Iterator[CaseLine]:
    """Found passages by rank, the wanted ones marked."""
    positives = {str(name) for name in source.fields.get("passage_id", ())}
    positives = positives or {str(line.get("cluster", ""))}
    for number, name in enumerate(_list_top(line), 1):
        is_right = name in positives
        text = _cut_text(str(source.passages.get(name, {}).get("text", "")))
        mark = "✓" if is_right else " "
        yield CaseLine(
            f"{mark} {number:>2}", f"{name}  {text}".rstrip(), "good" if is_right else ""
        )


def _describe_options(line: Mapping[str, Any]) -> Iterator[CaseLine]:
    """Options with their probabilities; the right one and the chosen one are marked."""
    options = line.get("options") or ()
    truth, letter = str(line.get("truth", ""))[:1], str(line.get("letter", ""))[:1]
    for at, value in enumerate(line["probabilities"][: len(LETTERS)]):
        name, share = LETTERS[at], _read_share(value)
        bar = "█" * round(share * BAR_CELLS)
        mark = "✓" if name == truth else "✗" if name == letter and truth else " "
        tone = "good" if name == truth else "bad" if name == letter and truth else ""
        option = str(options[at]) if at < len(options) else ""
        chosen = "●" if name == letter else " "
        text = f"{bar:░<{BAR_CELLS}} {share:>4.0%}  {option}"
        yield CaseLine(f"{mark}{chosen} {name}", text[:TEXT_CHARACTERS], tone)
    if line.get("generated") is not None:
        yield CaseLine("written", str(line["generated"])[:TEXT_CHARACTERS])


def _read_share(value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, min(1.0, share)) if math.isfinite(share) else 0.0


def _list_top(line: Mapping[str, Any]) -> list[str]:
    top = line.get("top")
    return [str(name) for name in top] if isinstance(top, list) else []


def _cut_text(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= TEXT_CHARACTERS else f"{flat[:TEXT_CHARACTERS]} …"


def list_pictures(sides: Sequence[CaseSide], source: CaseSource) -> list[CasePicture]:
    """Pictures of the item, of what was wanted, and of what each side found first."""
    fields = source.fields
    copies = source.record["pictures"] if source.record else {}
    pictures = []
    if path := fields.get("image_path"):
        pictures.append(_make_picture("asked", copies.get(path)))
    positive = next((path for path in fields.get("passage_image_path", ()) if path), "")
    if positive:
        pictures.append(_make_picture("wanted", copies.get(positive)))
    for side in sides:
        top = _list_top(side.line)
        passage = source.passages.get(top[0], {}) if top else {}
        if passage.get("path"):
            title = " ".join(part for part in (side.letter, "found") if part)
            pictures.append(_make_picture(title, passage.get("picture")))
    return pictures


def _make_picture(title: str, copy: Mapping[str, str] | None) -> CasePicture:
    if copy and "file" in copy:
        return CasePicture(title, Path(copy["file"]))
    return CasePicture(title, None, (copy or {}).get("reason", "no picture"))
