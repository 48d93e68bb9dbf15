"""A small VQA challenge, true in form, made from easy-VQA: for trying things out.

train.csv, test.csv without answers, sample_submission.csv, and pictures of several sizes, so that
tokens a picture differ as those of photographs do. Beside `copies.py`, which writes M2KR's layouts
and has the command for all of them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from PIL import Image

from datasets_mm.building.build import BuildError, Subset
from datasets_mm.recipes.steps import rank
from datasets_mm.storage.arrow_store import Progress

LAYOUT: Final = "vqa-challenge"
SIZES: Final = ((640, 480), (480, 640), (500, 375), (333, 500), (800, 450), (224, 224))
"""Widths and heights of the pictures: those of COCO, a wide one and a small one."""
TEST_SHARE: Final = 4
"""One test row for so many training rows."""


def make(
    out: Path, rows: int, train: Sequence[Subset], test: Sequence[Subset], progress: Progress
) -> None:
    """Write the challenge into an empty or new folder: all of a first subset before the next.

    Raises:
        BuildError: there are not as many questions.
    """
    parts = (("train", train, rows), ("test", test, max(4, rows // TEST_SHARE)))
    drawn = {name: _drawn(subsets, wanted) for name, subsets, wanted in parts}
    for done, (name, subsets, _) in enumerate(parts, 1):
        records = drawn[name]
        pictures = _pictures(out, name, records, subsets[0].image_root)
        columns = ["id", "image", "question", "a", "b", "c", "d"]
        columns += ["answer"] if name == "train" else []
        lines = [
            [f"{name}_{number:04}", pictures[one["image_path"]], one["question"], *one["options"],
             *(one["answer"] if name == "train" else ())]
            for number, one in enumerate(records, 1)
        ]  # fmt: skip
        _write(out / f"{name}.csv", columns, lines)
        if name == "test":
            _write(
                out / "sample_submission.csv", ["id", "answer"], [[row[0], "a"] for row in lines]
            )
        progress(done, len(parts), "files")
    licences = "\n".join(train[0].manifest["licences"])
    (out / "README.txt").write_text(
        "A small VQA challenge, made from easy-VQA: for trying things out. Its questions and\n"
        f"pictures are not those of any challenge. Licences:\n{licences}\n",
        "utf-8",
    )


def _drawn(subsets: Sequence[Subset], wanted: int) -> list[dict[str, Any]]:
    """Records in an order that has no system."""
    drawn: list[dict[str, Any]] = []
    for subset in subsets:
        ids = subset.records["data_id"].to_pylist()
        order = sorted(range(len(ids)), key=lambda row: (rank(13, ids[row]), ids[row]))
        rows = pa.array(order[: wanted - len(drawn)], pa.int64())
        drawn += subset.records.take(rows).to_pylist()
    if len(drawn) < wanted:
        raise BuildError(f"easy-VQA has {len(drawn):,} questions for it; ask for fewer --rows")
    return drawn


def _pictures(
    out: Path, name: str, records: Sequence[dict[str, Any]], root: Path
) -> dict[str, str]:
    """Path in the source -> path in the copy, written as JPEG."""
    (out / name).mkdir(parents=True)
    found: dict[str, str] = {}
    for record in records:
        source = record["image_path"]
        if source not in found:
            found[source] = f"{name}/{name}_{len(found) + 1:04}.jpg"
            size = SIZES[rank(14, source) % len(SIZES)]
            _framed(root / source, size).save(out / found[source], "JPEG", quality=90)
    return found


def _framed(path: Path, size: tuple[int, int]) -> Image.Image:
    """The drawing as large as it fits, in the middle of its own background."""
    with Image.open(path) as image:
        drawing = image.convert("RGB")
    side = min(size)
    ground = drawing.getpixel((0, 0))
    frame = Image.new("RGB", size, ground if isinstance(ground, tuple) else 0)
    place = ((size[0] - side) // 2, (size[1] - side) // 2)
    frame.paste(drawing.resize((side, side), Image.Resampling.BICUBIC), place)
    return frame


def _write(path: Path, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """With a byte-order mark and CRLF, as Excel saves "CSV UTF-8"."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)
