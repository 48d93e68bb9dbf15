"""Best and worst captions of a run, selected from the score files of its evaluation.

The files come from an engine that read foreign data: every line is checked, and a picture or video
is used only if it lies inside the image root of its subset.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from results.comparison.predictions import find_subset
from results.records.schema import RunRecord
from results.records.suite_view import CaptionExample
from results.text.metric_names import split_name

EXAMPLES_PER_SPLIT: Final = 3
"""Number of best captions of a split, and of worst ones."""
RANKED_BY: Final = ("METEOR", "chrF", "SigLIP cosine", "cosine (local")
"""Prefixes of the metrics that rank captions; the first one present is used."""
MAX_BYTES: Final = 256 << 20
MAX_TEXT: Final = 500
"""Maximum length of a caption in a report, in characters."""
PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
SHEET_SECONDS: Final = 120.0
"""Timeout for the contact sheets of a run; a report is written without them then."""


def collect_caption_examples(
    record: RunRecord, log_root: Path, cache_root: Path
) -> tuple[CaptionExample, ...]:
    """Examples of every split with distinct captions; none without a metric to rank them."""
    examples: list[CaptionExample] = []
    for split in dict.fromkeys(m.split for m in record.metrics):
        files = {
            m.scores_file
            for m in record.metrics
            if m.split == split and m.scores_file and not split_name(m.name).variant
        }
        for name in sorted(files)[:1]:
            lines = list(read_lines(log_root / record.folder / name, "caption"))
            root = find_image_root(find_subset(record, split), cache_root)
            examples += _pick_examples(lines, split, root)
    return tuple(examples)


def add_contact_sheets(
    shown: Sequence[CaptionExample], frames: int, cache_root: Path
) -> tuple[CaptionExample, ...]:
    """The examples, with a contact sheet of `frames` frames for each readable video.

    A child process decodes the videos.
    """
    videos = {
        e.picture for e in shown if e.picture and not e.picture.lower().endswith(PICTURE_SUFFIXES)
    }
    sheets = _make_sheets(sorted(videos), frames, cache_root) if videos else {}
    return tuple(
        e.model_copy(update={"picture": sheets[e.picture], "frames": frames})
        if e.picture in sheets
        else e
        for e in shown
    )


def _make_sheets(videos: list[str], frames: int, cache_root: Path) -> dict[str, str]:
    """Path of a video -> path of its contact sheet."""
    command = [
        sys.executable,
        "-m",
        "datasets_mm.media.contact_sheet",
        "--cache-root",
        str(cache_root),
    ]
    command += ["--frames", str(frames), "--", *videos]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=SHEET_SECONDS)
    except subprocess.TimeoutExpired:
        return {}
    return dict(filter(None, map(_parse_sheet, done.stdout.splitlines())))


def _parse_sheet(line: bytes) -> tuple[str, str] | None:
    """(video, sheet) of a line of the child; None for other output, such as a library's."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("kind") != "sheet":
        return None
    video, sheet = message.get("path"), message.get("file")
    return (video, sheet) if isinstance(video, str) and isinstance(sheet, str) else None


def find_image_root(subset: str, cache_root: Path) -> Path | None:
    """Image root of a built subset; None: it is not built here, or unknown."""
    from datasets_mm import catalog
    from datasets_mm.recipes.recipe import RecipeError

    try:
        folder = catalog.summary(subset, cache_root).folder
        if folder is None:
            return None
        return Path(os.fsdecode((folder / "image_root").read_bytes())).resolve()
    except (RecipeError, OSError, UnicodeDecodeError):
        return None


def read_lines(path: Path, field: str) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file that have a string `field`; other lines are skipped."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return
        with path.open("rb") as file:
            for raw in file:
                try:
                    line = json.loads(raw)
                except (ValueError, RecursionError):
                    continue
                if isinstance(line, dict) and isinstance(line.get(field), str):
                    yield line
    except OSError:
        return


def _pick_examples(
    lines: list[dict[str, Any]], split: str, root: Path | None
) -> list[CaptionExample]:
    names = dict.fromkeys(name for line in lines for name in line)
    metric = next((n for start in RANKED_BY for n in names if n.startswith(start)), None)
    if metric is None:
        return []
    scored = [line for line in lines if _is_score(line.get(metric))]
    scored.sort(key=lambda line: (-line[metric], str(line.get("id"))))
    best = _first_distinct(scored)
    worst = _first_distinct([line for line in scored[::-1] if line not in best])[::-1]
    return [
        CaptionExample(
            split=split,
            standing="best" if number < len(best) else "worst",
            id=str(line.get("id", "")),
            medium=str(line.get("medium", "")),
            caption=line["caption"][:MAX_TEXT],
            references=tuple(
                str(reference)[:MAX_TEXT] for reference in _as_list(line.get("references"))[:3]
            ),
            metric=metric,
            score=float(line[metric]),
            picture=path_inside(str(line.get("medium", "")), root),
        )
        for number, line in enumerate([*best, *worst])
    ]


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _first_distinct(ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first `EXAMPLES_PER_SPLIT` lines with distinct captions."""
    first: dict[str, dict[str, Any]] = {}
    for line in ranked:
        first.setdefault(line["caption"], line)
    return list(first.values())[:EXAMPLES_PER_SPLIT]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def path_inside(medium: str, root: Path | None) -> str:
    """Real path of the picture if it lies under `root`, else an empty string."""
    if root is None or not medium or "\0" in medium:
        return ""
    try:
        real = (root / medium).resolve(strict=True)
    except (OSError, RuntimeError):
        return ""
    return str(real) if real.is_relative_to(root) else ""
