"""Measures the facts of a built subset: `python -m datasets_mm.profile.measure_facts FOLDER`.

Prints one JSON line with its `SubsetFacts`. Captions are counted in full up to `MAX_TEXTS`, media
are a sample of `MAX_MEDIA`, both spread evenly: a second or two whatever the subset's size.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from PIL import Image

from datasets_mm.child_messages import emit_message
from datasets_mm.media.decode import (
    MAX_VIDEO_BYTES,
    UnusableError,
    composite_on_white,
    open_inside,
)
from datasets_mm.media_types import is_video
from datasets_mm.profile.subset_facts import BYTES_PER_TOKEN, SubsetFacts, TextLengths
from datasets_mm.profile.token_lengths import load_counter
from datasets_mm.storage.corpus import map_table

MAX_TEXTS: Final = 20_000
MAX_MEDIA: Final = 200
MAX_BYTES: Final = 32 << 20
HEAD_BYTES: Final = 1 << 20
"""Of a video, this much and its size tell whether it equals another."""
SIDE: Final = 64
"""Pictures are reduced to this side before their colours are compared."""


def measure_facts(
    folder: Path, tokenizer: Path | None = None, judge: Path | None = None
) -> SubsetFacts:
    """The facts of a built subset. `tokenizer`, `judge`: folders with a `tokenizer.json`.

    Raises:
        OSError: the folder is not a built subset.
    """
    records = map_table(folder / "records.arrow")
    texts = _read_captions(records)
    captions = count_tokens(texts, tokenizer)
    facts = SubsetFacts(
        rows=records.num_rows,
        languages=tuple(sorted(set(records["dataset_id"].unique().to_pylist()) - {None, ""})),
        captions=captions,
        judged=count_tokens(texts, judge) if judge else captions,
    )
    root = folder / "image_root"
    if not root.is_file():
        return facts
    paths = [path for path in records["image_path"].unique().to_pylist() if path]
    media = compare_media(Path(os.fsdecode(root.read_bytes())), _spread(paths, MAX_MEDIA))
    return facts.model_copy(update=media)


def _read_captions(records: pa.Table) -> list[str]:
    """The captions of a caption subset: answers of records without a question."""
    if "options" in records.column_names or any(records["question"].slice(0, 100).to_pylist()):
        return []
    answers = records["answer"].combine_chunks().flatten()
    rows = _spread(range(len(answers)), MAX_TEXTS)
    texts = answers.take(pa.array(rows, pa.int64())).to_pylist()
    return [text for text in texts if text]


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the values, evenly spread."""
    count = min(len(values), most)
    return [values[number * len(values) // count] for number in range(count)]


def count_tokens(texts: Sequence[str], tokenizer: Path | None) -> TextLengths:
    """Texts by their number of tokens; without a tokenizer a lower bound by their bytes."""
    if tokenizer is None:
        sizes = (len(text.encode("utf-8", "replace")) for text in texts)
        return TextLengths(counts=Counter(-(-size // BYTES_PER_TOKEN) for size in sizes))
    lengths = load_counter(tokenizer).count(texts)
    return TextLengths(tokenizer=tokenizer.name, counts=Counter(lengths))


def compare_media(root: Path, paths: Sequence[str]) -> dict[str, int | str]:
    """Media that can be read, the most with equal content, and pictures of one colour."""
    groups: dict[bytes, list[str]] = {}
    blank = []
    for path in paths:
        video = is_video(path)
        try:
            with open_inside(root.resolve(), path, MAX_VIDEO_BYTES if video else MAX_BYTES) as file:
                content = file.read(HEAD_BYTES if video else MAX_BYTES)
                size = os.fstat(file.fileno()).st_size
        except (UnusableError, OSError):
            continue
        digest = hashlib.blake2b(content, digest_size=16).digest() + size.to_bytes(8, "big")
        groups.setdefault(digest, []).append(path)
        if not video and _has_one_color(content):
            blank.append(path)
    largest = max(groups.values(), key=len, default=[])
    return {
        "media": sum(map(len, groups.values())),
        "equal": len(largest),
        "equal_example": largest[0] if len(largest) > 1 else "",
        "blank": len(blank),
        "blank_example": blank[0] if blank else "",
    }


def _has_one_color(content: bytes) -> bool:
    """Whether a picture, on white where it is transparent, is of one colour."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            image.draft("RGB", (SIDE, SIDE))
            image.thumbnail((4 * SIDE, 4 * SIDE))
            extremes = composite_on_white(image).getextrema()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning):
        return False
    return all(low == high for low, high in extremes)  # type: ignore[misc] # of RGB, pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the subset in a folder and print its facts."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.profile.measure_facts", description=__doc__
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--judge", type=Path)
    options = parser.parse_args(arguments)
    try:
        facts = measure_facts(options.folder, options.tokenizer, options.judge)
    except (OSError, pa.ArrowException) as error:
        emit_message(kind="failed", error=f"{options.folder}: {error}")
        return 1
    emit_message(kind="done", facts=facts.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
