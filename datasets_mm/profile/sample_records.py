"""Sampled records of a subset, with thumbnails of their images.

`python -m datasets_mm.profile.sample_records NAME`

A child process of the screen, which thus never decodes untrusted images itself. Prints JSON lines:
one `record` each, then `done`, or one `failed`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from datasets_mm.atomic_files import atomic_path
from datasets_mm.child_messages import emit_message, ignore_progress
from datasets_mm.media.decode import UnusableError, decode, open_inside, read_inside
from datasets_mm.media_types import is_video
from datasets_mm.profile.target import Target, TargetError, resolve_target, run_sending
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.storage.corpus import map_table

if TYPE_CHECKING:
    import pyarrow as pa

PIXELS: Final = 224
"""Side of the copies: more than the cells of a terminal can show, and what CLIP sees."""

SEARCHED: Final = (
    "data_id", "question", "instruction", "options", "answer", "image_path", "passage_id",
    "passage_text",
)  # fmt: skip
"""Columns in which words are searched."""


def draw_samples(
    target: Target, count: int, seed: int, cache_root: Path, words: str = ""
) -> Iterator[dict[str, Any]]:
    """`count` records drawn by the seed: fields, row number, copies of pictures by their path.

    `words`: only records that have all of them; the first ones then, in their order.

    Raises:
        TargetError: the target is no subset.
    """
    if target.kind != "subset":
        raise TargetError(f"{target.name} is no subset; records of subsets can be browsed")
    table = map_table(target.path)
    if words.strip():
        matches = find_rows(table, words)
        rows, match_count = matches[:count], len(matches)
    else:
        rows = Random(seed).sample(range(table.num_rows), min(count, table.num_rows))
        match_count = table.num_rows
    for row in rows:
        yield {**describe_record(target, table, row, cache_root), "found": match_count}


def find_rows(table: pa.Table, words: str) -> list[int]:
    """Row numbers of the records in which all words occur, without regard to case, from 0 on; a
    word `id:q17` stands for the records with just this `data_id`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = np.ones(table.num_rows, dtype=bool)
    for word in words.split():
        if word.startswith("id:"):
            equal = pc.equal(table["data_id"], word.removeprefix("id:"))
            mask &= equal.to_numpy(zero_copy_only=False).astype(bool)
            continue
        fits = np.zeros(table.num_rows, dtype=bool)
        start = 0
        for batch in table.select([c for c in SEARCHED if c in table.column_names]).to_batches():
            for column in batch.columns:
                nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
                texts = pc.list_flatten(column) if nested else column
                hit = pc.match_substring(texts, word, ignore_case=True).fill_null(False)
                places = pc.list_parent_indices(column) if nested else None
                rows = hit.to_numpy(zero_copy_only=False).astype(bool).nonzero()[0]
                if places is not None:
                    rows = places.to_numpy(zero_copy_only=False)[rows]
                fits[start + rows] = True
            start += batch.num_rows
        mask &= fits
    return [int(row) for row in mask.nonzero()[0]]


def describe_record(target: Target, table: pa.Table, row: int, cache_root: Path) -> dict[str, Any]:
    """Fields, row number from 1, and copies of the pictures of a record."""
    fields = table.slice(row, 1).to_pylist()[0]
    paths = dict.fromkeys([fields["image_path"], *fields["passage_image_path"]])
    copies = {path: make_thumbnail(target.images, path, cache_root) for path in paths if path}
    return {"row": row + 1, "rows": table.num_rows, "fields": fields, "pictures": copies}


def make_thumbnail(root: Path | None, path: str, cache_root: Path) -> dict[str, str]:
    """{"file": …} of the small copy, or {"reason": …} why there is none."""
    if root is None:
        return {"reason": "the picture folder is not known"}
    try:
        if is_video(path):
            name, pixels = _read_first_frame(root, path)
        else:
            data = read_inside(root, path)
            name, pixels = hashlib.blake2b(data, digest_size=12).hexdigest(), None
        file = cache_root / "thumbnails" / f"{name}-{PIXELS}.png"
        if not file.exists():
            from PIL import Image

            pixels = decode(data, PIXELS, "bilinear") if pixels is None else pixels
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_path(file) as draft:
                Image.fromarray(pixels).save(draft, "PNG")
    except (UnusableError, SourceError) as reason:
        return {"reason": str(reason)}
    return {"file": str(file)}


def _read_first_frame(root: Path, path: str) -> tuple[str, Any]:
    """(name, uint8 [PIXELS, PIXELS, 3]) of a video."""
    from datasets_mm.media import video_frames

    with open_inside(root, path, video_frames.MAX_BYTES) as file:
        name = video_frames.digest_file(file, 12).hex()
        return name, video_frames.read_frames(file, 1, PIXELS, "bilinear")[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print sampled records of one subset as JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.profile.sample_records", description=__doc__
    )
    parser.add_argument("name")
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--find", default="", help="only records with all these words, or id:ID")
    parser.add_argument("--data-root", type=Path, help="folder of data that do not ship")
    options = parser.parse_args(arguments)

    def send() -> None:
        target = resolve_target(
            options.name, options.cache_root, options.data_root, "", ignore_progress
        )
        cache, words = options.cache_root, options.find
        for record in draw_samples(target, options.count, options.seed, cache, words):
            emit_message(kind="record", **record)

    return run_sending(send)


if __name__ == "__main__":
    sys.exit(main())
