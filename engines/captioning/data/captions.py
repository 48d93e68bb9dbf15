"""The captions of a built subset: its media and the reference captions of each.

A caption subset is an ordinary subset: `image_path` is the medium, `answer` its captions,
`dataset_id` their language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from datasets_mm.building.build import Subset
from datasets_mm.media_paths import find_on_disk
from datasets_mm.media_types import is_medium, is_video
from engines.emitter import EngineError
from engines.torchkit.data.subset_source import make_ids_unique

MIXED: Final = "mul"
"""ISO 639-2's code for several languages."""


@dataclass(frozen=True)
class Captions:
    """Media with their captions; all lists have one entry a medium."""

    paths: list[str]
    """Relative to `root`, as ImageCache and ClipCache take them."""
    references: list[list[str]]
    """Captions of each medium, none empty; at least one, unless media without were asked for."""
    ids: list[str]
    language: str
    """`en`, `ko`, …; `mul` when the subset has several; "" when it names none."""
    root: Path
    videos: bool
    """Whether the media are videos; else pictures."""

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]]) -> Captions:
        """The media of these rows, in this order."""
        positions = [int(row) for row in rows]
        return Captions(
            [self.paths[row] for row in positions],
            [self.references[row] for row in positions],
            [self.ids[row] for row in positions],
            self.language,
            self.root,
            self.videos,
        )


def read_captions(subset: Subset, *, optional: bool = False) -> Captions:
    """The media of a subset that have a caption; `optional`: those without one, too.

    Raises:
        EngineError: there is none, or pictures and videos are mixed.
    """
    records = subset.records
    paths: list[str] = records["image_path"].to_pylist()
    texts = [
        [" ".join(text.split()) for text in captions] for captions in records["answer"].to_pylist()
    ]
    references = [[text for text in captions if text] for captions in texts]
    rows = [row for row, path in enumerate(paths) if path and (optional or references[row])]
    if not rows and optional:
        raise EngineError(
            f"subset '{subset.name}': no record has a medium (image_path); name a subset of "
            "pictures or videos"
        )
    if not rows:
        raise EngineError(
            f"subset '{subset.name}': no record has both a medium (image_path) and a caption "
            "(answer); train captioning on a caption subset, such as "
            "emoji_captions_en_train, or caption this one by task infer"
        )
    root = subset.image_root
    videos = {names_video(root, paths[row]) for row in rows}
    if len(videos) > 1:
        raise EngineError(
            f"subset '{subset.name}': it mixes pictures and videos; split it by a `where` step on "
            "image_path"
        )
    languages: list[str] = records["dataset_id"].to_pylist()
    ids: list[str] = records["data_id"].to_pylist()
    subset_languages = {languages[row] for row in rows}
    return Captions(
        paths=[paths[row] for row in rows],
        references=[references[row] for row in rows],
        ids=make_ids_unique([ids[row] for row in rows]),
        language=subset_languages.pop() if len(subset_languages) == 1 else MIXED,
        root=subset.image_root,
        videos=videos.pop(),
    )


def names_video(root: Path, path: str) -> bool:
    """Whether a path names a video, also without its file extension (`video7010`) on disk."""
    return is_video(path if is_medium(path) else find_on_disk(root, path))
