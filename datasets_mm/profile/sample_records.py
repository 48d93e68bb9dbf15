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
from datasets_mm.profile.target import Target, TargetError, resolve_target
from datasets_mm.recipes.recipe import RecipeError
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.storage.corpus import map_table

if TYPE_CHECKING:
    import pyarrow as pa

PIXELS: Final = 224
"""Side of the copies: more than the cells of a terminal can show, and what CLIP sees."""


def draw_samples(
    target: Target, count: int, seed: int, cache_root: Path
) -> Iterator[dict[str, Any]]:
    """`count` records drawn by the seed: fields, row number, copies of pictures by their path.

    Raises:
        TargetError: the target is no subset.
    """
    if target.kind != "subset":
        raise TargetError(f"{target.name} is no subset; records of subsets can be browsed")
    table = map_table(target.path)
    rows = Random(seed).sample(range(table.num_rows), min(count, table.num_rows))
    for row in rows:
        yield describe_record(target, table, row, cache_root)


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
    options = parser.parse_args(arguments)
    try:
        target = resolve_target(options.name, options.cache_root, None, "", ignore_progress)
        for record in draw_samples(target, options.count, options.seed, options.cache_root):
            emit_message(kind="record", **record)
    except (TargetError, RecipeError, SourceError, OSError) as error:
        emit_message(kind="failed", error=str(error))
        return 1
    emit_message(kind="done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
