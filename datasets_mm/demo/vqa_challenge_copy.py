"""A small VQA challenge in the usual layout, made from easy-VQA, for trying things out.

Writes train.csv, test.csv without answers, sample_submission.csv, and images of several sizes, so
that the tokens per image differ as those of photographs do. The command is in m2kr_copy.py.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from PIL import Image

from datasets_mm.building.build import BuildError, Subset
from datasets_mm.child_messages import Progress
from datasets_mm.recipes.steps import rank

LAYOUT: Final = "vqa-challenge"
SIZES: Final = ((640, 480), (480, 640), (500, 375), (333, 500), (800, 450), (224, 224))
"""Widths and heights of the pictures: those of COCO, a wide one and a small one."""
TEST_SHARE: Final = 4
"""One test row for so many training rows."""


def write_copy(
    out: Path, rows: int, train: Sequence[Subset], test: Sequence[Subset], progress: Progress
) -> None:
    """Write the challenge into an empty or new folder: all of a first subset before the next.

    Raises:
        BuildError: there are not as many questions.
    """
    parts = (("train", train, rows), ("test", test, max(4, rows // TEST_SHARE)))
    records_of_part = {name: _draw_records(subsets, count) for name, subsets, count in parts}
    for done, (name, subsets, _) in enumerate(parts, 1):
        records = records_of_part[name]
        pictures = _write_pictures(out, name, records, subsets[0].image_root)
        columns = ["id", "image", "question", "a", "b", "c", "d"]
        columns += ["answer"] if name == "train" else []
        lines = [
            [f"{name}_{number:04}", pictures[record["image_path"]], record["question"],
             *record["options"], *(record["answer"] if name == "train" else ())]
            for number, record in enumerate(records, 1)
        ]  # fmt: skip
        _write_csv(out / f"{name}.csv", columns, lines)
        if name == "test":
            _write_csv(
                out / "sample_submission.csv", ["id", "answer"], [[row[0], "a"] for row in lines]
            )
        progress(done, len(parts), "files")
    licences = "\n".join(train[0].manifest["licences"])
    (out / "README.txt").write_text(
        "A small VQA challenge, made from easy-VQA: for trying things out. Its questions and\n"
        f"pictures are not those of any challenge. Licences:\n{licences}\n",
        "utf-8",
    )


def _draw_records(subsets: Sequence[Subset], count: int) -> list[dict[str, Any]]:
    """Records in an order that has no system."""
    records: list[dict[str, Any]] = []
    for subset in subsets:
        ids = subset.records["data_id"].to_pylist()
        order = sorted(range(len(ids)), key=lambda row: (rank(13, ids[row]), ids[row]))
        rows = pa.array(order[: count - len(records)], pa.int64())
        records += subset.records.take(rows).to_pylist()
    if len(records) < count:
        raise BuildError(f"easy-VQA has {len(records):,} questions for it; ask for fewer --rows")
    return records


def _write_pictures(
    out: Path, name: str, records: Sequence[dict[str, Any]], root: Path
) -> dict[str, str]:
    """Path in the source -> path in the copy, written as JPEG."""
    (out / name).mkdir(parents=True)
    targets: dict[str, str] = {}
    for record in records:
        source = record["image_path"]
        if source not in targets:
            targets[source] = f"{name}/{name}_{len(targets) + 1:04}.jpg"
            size = SIZES[rank(14, source) % len(SIZES)]
            _place_on_canvas(root / source, size).save(out / targets[source], "JPEG", quality=90)
    return targets


def _place_on_canvas(path: Path, size: tuple[int, int]) -> Image.Image:
    """The drawing as large as it fits, in the middle of its own background."""
    with Image.open(path) as image:
        drawing = image.convert("RGB")
    side = min(size)
    background = drawing.getpixel((0, 0))
    frame = Image.new("RGB", size, background if isinstance(background, tuple) else 0)
    offset = ((size[0] - side) // 2, (size[1] - side) // 2)
    frame.paste(drawing.resize((side, side), Image.Resampling.BICUBIC), offset)
    return frame


def _write_csv(path: Path, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """With a byte-order mark and CRLF, as Excel saves "CSV UTF-8"."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)
