"""A small copy of AI-Hub 71849 in form, made from OpenMoji: Korean labels and short videos.

`{train,val}/labels/NAME.json` holds `annotation.description_kr` and `description_en`; its clip is
`{train,val}/videos/NAME.mp4`, in which a drawing moves or changes its size. The command is in
m2kr_copy.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL import Image

from datasets_mm.building.build import BuildError, Subset
from datasets_mm.child_messages import Progress
from datasets_mm.recipes.steps import rank

LAYOUT: Final = "aihub"
SUBSETS: Final = ("emoji_captions_ko_train", "emoji_captions_ko_val")
"""Their drawings become the clips of `train` and `val`; the English names are those of the same."""
VAL_SHARE: Final = 9
"""One clip of `val` for so many of `train`, as in the study: 97 of 865."""
SIDE: Final = 224
FRAMES: Final = 12
RATE: Final = 6
"""Frames a second: a clip takes two seconds."""
MOTIONS: Final = (
    ("오른쪽으로 움직인다", "moves to the right"),
    ("왼쪽으로 움직인다", "moves to the left"),
    ("점점 커진다", "grows"),
    ("점점 작아진다", "shrinks"),
)
"""What a drawing does, in Korean and English."""


def write_copy(
    out: Path, rows: int, korean: Sequence[Subset], english: Sequence[Subset], progress: Progress
) -> None:
    """Write `rows` clips of `train` and their share of `val` into an empty or new folder.

    Raises:
        BuildError: there are not as many drawings, or PyAV is missing.
    """
    counts = (rows, max(2, rows // VAL_SHARE))
    names = _english_names(english)
    parts = [_draw_records(subset, count) for subset, count in zip(korean, counts, strict=True)]
    total, done = sum(map(len, parts)), 0
    for part, subset, records in zip(("train", "val"), korean, parts, strict=True):
        for folder in ("labels", "videos"):
            (out / part / folder).mkdir(parents=True)
        for number, record in enumerate(records, 1):
            name, motion = f"clip_{part}_{number:05}", rank(15, record["data_id"]) % len(MOTIONS)
            label = _label(record["answer"][0], names.get(record["image_path"], ""), motion)
            text = json.dumps(label, ensure_ascii=False, indent=2)
            (out / part / "labels" / f"{name}.json").write_text(text, "utf-8")
            with Image.open(subset.image_root / record["image_path"]) as image:
                drawing = image.convert("RGB")
            _write_video(out / part / "videos" / f"{name}.mp4", drawing, motion)
            done += 1
            progress(done, total, "videos")
    licences = "\n".join(korean[0].manifest["licences"])
    (out / "README.txt").write_text(
        "A small copy of AI-Hub 71849 in form, made from OpenMoji: for trying things out. Its\n"
        f"clips and descriptions are not AI-Hub's. Licences:\n{licences}\n",
        "utf-8",
    )


def _draw_records(subset: Subset, count: int) -> list[dict[str, Any]]:
    """Records in an order that has no system.

    Raises:
        BuildError: there are fewer.
    """
    ids = subset.records["data_id"].to_pylist()
    if count > len(ids):
        raise BuildError(
            f"{subset.name} has {len(ids):,} drawings, not {count:,}; ask for fewer --rows"
        )
    order = sorted(range(len(ids)), key=lambda row: (rank(14, ids[row]), ids[row]))
    records: list[dict[str, Any]] = subset.records.take(pa.array(order[:count])).to_pylist()
    return records


def _english_names(subsets: Sequence[Subset]) -> dict[str, str]:
    """Drawing -> its first English name."""
    tables = [subset.records.select(["image_path", "answer"]).to_pylist() for subset in subsets]
    return {row["image_path"]: row["answer"][0] for rows in tables for row in rows}


def _label(korean: str, english: str, motion: int) -> dict[str, Any]:
    """One label file as AI-Hub 71849 writes them: no key names the video."""
    korean_motion, english_motion = MOTIONS[motion]
    return {
        "annotation": {
            "description_kr": f"흰 배경에서 {korean} 그림이 {korean_motion}.",
            "description_en": f"On a white background, a drawing of {english} {english_motion}.",
        },
        "video": {"width": SIDE, "height": SIDE, "fps": RATE, "frames": FRAMES},
    }


def _write_video(path: Path, drawing: Image.Image, motion: int) -> None:
    """H.264 in MP4 without sound."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.options = {"threads": "1"}  # equal bytes on every machine
        for number in range(FRAMES):
            frame = _place(drawing, motion, number / (FRAMES - 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))


def _place(drawing: Image.Image, motion: int, share: float) -> np.ndarray[Any, Any]:
    """The frame [SIDE, SIDE, 3] at this share (0 to 1) of the clip."""
    moves = motion < 2
    size = 0.6 if moves else 0.4 + 0.5 * (share if motion == 2 else 1 - share)
    side = round(SIDE * size)
    room = SIDE - side
    offset = round(room * (share if motion == 0 else 1 - share)) if moves else room // 2
    frame = Image.new("RGB", (SIDE, SIDE), "white")
    resized = drawing.resize((side, side), Image.Resampling.BICUBIC)
    frame.paste(resized, (offset, room // 2))
    return np.asarray(frame)
