"""Best and worst captions of a run, picked from the files that its evaluation wrote.

Apart from `reporting`, because it reads what an engine wrote of foreign data: lines are checked one
by one, and a picture or video counts only where it lies inside the image root of its subset.
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

from results.records.schema import RunRecord
from results.records.suite_view import CaptionExample

SHOWN: Final = 3
"""Best ones of a split, and as many worst."""
RANKED_BY: Final = ("METEOR", "chrF", "SigLIP cosine", "cosine (local")
"""How the names of metrics begin by which captions are ranked; the first that is there."""
MAX_BYTES: Final = 256 << 20
SHORT: Final = 500
"""Letters of a caption in a report."""
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")
SHEET_SECONDS: Final = 120.0
"""For the frames of all examples of a run; a report without them is better than none."""


def of_run(record: RunRecord, log_root: Path, cache_root: Path) -> tuple[CaptionExample, ...]:
    """Examples of every split, each with another caption; none without a score to rank them by."""
    found: list[CaptionExample] = []
    for split in dict.fromkeys(m.split for m in record.metrics):
        files = {m.scores_file for m in record.metrics if m.split == split and m.scores_file}
        for name in sorted(files)[:1]:
            lines = list(lines_of(log_root / record.folder / name, "caption"))
            root = image_root(record.identity.subset if split == "train" else split, cache_root)
            found += _picked(lines, split, root)
    return tuple(found)


def with_sheets(
    shown: Sequence[CaptionExample], frames: int, cache_root: Path
) -> tuple[CaptionExample, ...]:
    """The same, videos with a contact sheet of their frames; those that cannot be read keep none.

    Decoding is a child's work.
    """
    videos = {e.picture for e in shown if e.picture and not e.picture.lower().endswith(PICTURES)}
    sheets = _sheets(sorted(videos), frames, cache_root) if videos else {}
    return tuple(
        e.model_copy(update={"picture": sheets[e.picture], "frames": frames})
        if e.picture in sheets
        else e
        for e in shown
    )


def _sheets(videos: list[str], frames: int, cache_root: Path) -> dict[str, str]:
    """File of the sheet by that of the video."""
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
    return dict(filter(None, map(_sheet, done.stdout.splitlines())))


def _sheet(line: bytes) -> tuple[str, str] | None:
    """Video and sheet as the child's line tells them; a library of it may have printed others."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("kind") != "sheet":
        return None
    video, sheet = said.get("path"), said.get("file")
    return (video, sheet) if isinstance(video, str) and isinstance(sheet, str) else None


def image_root(subset: str, cache_root: Path) -> Path | None:
    """Where the pictures of a built subset lie; None: it is not built here, or not known."""
    from datasets_mm import catalog
    from datasets_mm.recipes.recipe import RecipeError

    try:
        folder = catalog.summary(subset, cache_root).folder
        if folder is None:
            return None
        return Path(os.fsdecode((folder / "image_root").read_bytes())).resolve()
    except (RecipeError, OSError, UnicodeDecodeError):
        return None


def lines_of(path: Path, said: str) -> Iterator[dict[str, Any]]:
    """Lines that hold a text under the name `said`; others are left out."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return
        with path.open("rb") as file:
            for raw in file:
                try:
                    line = json.loads(raw)
                except (ValueError, RecursionError):
                    continue
                if isinstance(line, dict) and isinstance(line.get(said), str):
                    yield line
    except OSError:
        return


def _picked(lines: list[dict[str, Any]], split: str, root: Path | None) -> list[CaptionExample]:
    names = dict.fromkeys(name for line in lines for name in line)
    metric = next((n for start in RANKED_BY for n in names if n.startswith(start)), None)
    if metric is None:
        return []
    scored = [line for line in lines if _is_score(line.get(metric))]
    scored.sort(key=lambda line: (-line[metric], str(line.get("id"))))
    best = _varied(scored)
    worst = _varied([line for line in scored[::-1] if line not in best])[::-1]
    return [
        CaptionExample(
            split=split,
            standing="best" if number < len(best) else "worst",
            id=str(line.get("id", "")),
            medium=str(line.get("medium", "")),
            caption=line["caption"][:SHORT],
            references=tuple(str(one)[:SHORT] for one in _list(line.get("references"))[:3]),
            metric=metric,
            score=float(line[metric]),
            picture=inside(str(line.get("medium", "")), root),
        )
        for number, line in enumerate([*best, *worst])
    ]


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _varied(ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first ones of different captions: three times the same sentence shows little."""
    first: dict[str, dict[str, Any]] = {}
    for line in ranked:
        first.setdefault(line["caption"], line)
    return list(first.values())[:SHOWN]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def inside(medium: str, root: Path | None) -> str:
    """The picture's real path if it lies under the root; else empty."""
    if root is None or not medium or "\0" in medium:
        return ""
    try:
        real = (root / medium).resolve(strict=True)
    except (OSError, RuntimeError):
        return ""
    return str(real) if real.is_relative_to(root) else ""
