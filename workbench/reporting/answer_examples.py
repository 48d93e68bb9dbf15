"""Answers of a VQA run for a report: its tables, and the errors it was surest of.

Apart from `reporting`, because it reads what an engine wrote of foreign data: everything is checked
before it is shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from results.records.schema import RunRecord
from results.records.suite_view import AnsweredSplit, AnswerExample
from workbench.reporting.caption_examples import SHORT, image_root, inside, lines_of

SHOWN: Final = 5
"""Errors of a split."""
OWN: Final = ("validation", "out-of-fold")
"""Splits whose pictures are those of the run's own subset."""
MAX_BYTES: Final = 1 << 20


def of_run(record: RunRecord, log_root: Path, cache_root: Path) -> tuple[AnsweredSplit, ...]:
    """Every split of the run that left tables; nothing of a run that is no VQA."""
    found = []
    folder = log_root / record.folder / "predictions"
    for split in dict.fromkeys(m.split for m in record.metrics if m.name == "accuracy"):
        inner = Path(split).name == split
        tables = _tables(folder / f"{split}.tables.json") if inner else None
        if tables is None:
            continue
        root = image_root(record.identity.subset if split in OWN else split, cache_root)
        tables["worst"] = _worst(folder / f"{split}.jsonl", root)
        try:
            found.append(AnsweredSplit.model_validate({**tables, "split": split}))
        except ValidationError:
            continue
    return tuple(found)


def _tables(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        said = json.loads(path.read_bytes())
        bins = [
            [one[name] for name in ("low", "high", "n", "confidence", "accuracy")]
            for one in said["reliability"]
        ]
        return {"confusion": said["confusion"], "reliability": bins, "kinds": said["kinds"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _worst(path: Path, root: Path | None) -> tuple[AnswerExample, ...]:
    """Wrong answers, the surest first, each of another picture."""
    wrong = [
        line
        for line in lines_of(path, "letter")
        if isinstance(line.get("truth"), str) and line["truth"] not in ("", line["letter"])
    ]
    wrong.sort(key=lambda line: (-_confidence(line), str(line.get("id"))))
    first: dict[str, dict[str, Any]] = {}
    for line in wrong:
        first.setdefault(str(line.get("medium", line.get("id"))), line)
    return tuple(_example(line, root) for line in list(first.values())[:SHOWN])


def _example(line: dict[str, Any], root: Path | None) -> AnswerExample:
    medium, options = str(line.get("medium", "")), line.get("options")
    return AnswerExample(
        id=str(line.get("id", "")),
        medium=medium,
        question=str(line.get("question", ""))[:SHORT],
        options=tuple(str(one)[:SHORT] for one in options) if isinstance(options, list) else (),
        truth=line["truth"][:1],
        answer=line["letter"][:1],
        confidence=_confidence(line),
        kind=str(line.get("kind", ""))[:SHORT],
        picture=inside(medium, root),
    )


def _confidence(line: dict[str, Any]) -> float:
    shares = line.get("probabilities")
    numbers = [s for s in shares if isinstance(s, int | float)] if isinstance(shares, list) else []
    return float(max(numbers, default=0.0))
