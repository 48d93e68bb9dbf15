"""VQA answers of a run for a report: tables and the most confident errors.

The files come from an engine that read foreign data, so every value is checked before use.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from results.comparison.predictions import confidence, find_subset
from results.records.schema import RunRecord
from results.records.suite_view import AnsweredSplit, AnswerExample
from workbench.reporting.caption_examples import MAX_TEXT, find_image_root, path_inside, read_lines

ERRORS_PER_SPLIT: Final = 5
"""Number of errors shown for a split."""
MAX_BYTES: Final = 1 << 20


def collect_answer_examples(
    record: RunRecord, log_root: Path, cache_root: Path
) -> tuple[AnsweredSplit, ...]:
    """Every split of a VQA run that has tables; empty for other runs."""
    splits = []
    folder = log_root / record.folder / "predictions"
    for split in dict.fromkeys(m.split for m in record.metrics if m.name == "accuracy"):
        inner = Path(split).name == split
        tables = _read_tables(folder / f"{split}.tables.json") if inner else None
        if tables is None:
            continue
        root = find_image_root(find_subset(record, split), cache_root)
        tables["worst"] = _find_worst(folder / f"{split}.jsonl", root)
        try:
            splits.append(AnsweredSplit.model_validate({**tables, "split": split}))
        except ValidationError:
            continue
    return tuple(splits)


def _read_tables(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        content = json.loads(path.read_bytes())
        bins = [
            [bin_[name] for name in ("low", "high", "n", "confidence", "accuracy")]
            for bin_ in content["reliability"]
        ]
        return {"confusion": content["confusion"], "reliability": bins, "kinds": content["kinds"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _find_worst(path: Path, root: Path | None) -> tuple[AnswerExample, ...]:
    """Wrong answers by falling confidence, at most one per picture."""
    wrong = [
        line
        for line in read_lines(path, "letter")
        if isinstance(line.get("truth"), str) and line["truth"] not in ("", line["letter"])
    ]
    wrong.sort(key=lambda line: (-confidence(line), str(line.get("id"))))
    first: dict[str, dict[str, Any]] = {}
    for line in wrong:
        first.setdefault(str(line.get("medium", line.get("id"))), line)
    return tuple(_build_example(line, root) for line in list(first.values())[:ERRORS_PER_SPLIT])


def _build_example(line: dict[str, Any], root: Path | None) -> AnswerExample:
    medium, options = str(line.get("medium", "")), line.get("options")
    return AnswerExample(
        id=str(line.get("id", "")),
        medium=medium,
        question=str(line.get("question", ""))[:MAX_TEXT],
        options=tuple(str(option)[:MAX_TEXT] for option in options)
        if isinstance(options, list)
        else (),
        truth=line["truth"][:1],
        answer=line["letter"][:1],
        confidence=confidence(line),
        kind=str(line.get("kind", ""))[:MAX_TEXT],
        picture=path_inside(medium, root),
    )
