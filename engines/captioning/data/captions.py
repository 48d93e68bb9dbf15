"""The captions of a built subset: which media there are, and what may be said about each.

A caption subset is an ordinary subset: `image_path` is the medium, `answer` its captions,
`dataset_id` their language. Separate from the work, because training, evaluation and every score
read the same few lists.
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
from engines.torchkit.data.subsets import make_ids_unique

MIXED: Final = "mul"
"""ISO 639-2's code for several languages."""


@dataclass(frozen=True)
class Captions:
    """Media with their captions; all lists have one entry a medium."""

    paths: list[str]
    """Relative to `root`: what ImageCache and ClipCache take."""
    references: list[list[str]]
    """Captions of each medium, none empty; at least one, unless media without were asked for."""
    ids: list[str]
    language: str
    """`en`, `ko`, …; `mul` when the subset has several; "" when it names none."""
    root: Path
    videos: bool
    """The media are videos; else pictures."""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]]) -> Captions:
        """Some of them, in this order."""
        places = [int(row) for row in rows]
        return Captions(
            [self.paths[row] for row in places],
            [self.references[row] for row in places],
            [self.ids[row] for row in places],
            self.language,
            self.root,
            self.videos,
        )


def read(subset: Subset, *, optional: bool = False) -> Captions:
    """The media of a subset that have a caption; `optional`: those without one, too.

    Raises:
        EngineError: there is none, or pictures and videos are mixed.
    """
    records = subset.records
    paths: list[str] = records["image_path"].to_pylist()
    said = [[" ".join(one.split()) for one in many] for many in records["answer"].to_pylist()]
    references = [[one for one in many if one] for many in said]
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
    videos = {is_video(paths[row]) or _is_video_on_disk(root, paths[row]) for row in rows}
    if len(videos) > 1:
        raise EngineError(
            f"subset '{subset.name}': it mixes pictures and videos; split it by a `where` step on "
            "image_path"
        )
    languages: list[str] = records["dataset_id"].to_pylist()
    ids: list[str] = records["data_id"].to_pylist()
    spoken = {languages[row] for row in rows}
    return Captions(
        paths=[paths[row] for row in rows],
        references=[references[row] for row in rows],
        ids=make_ids_unique([ids[row] for row in rows]),
        language=spoken.pop() if len(spoken) == 1 else MIXED,
        root=subset.image_root,
        videos=videos.pop(),
    )


def _is_video_on_disk(root: Path, path: str) -> bool:
    """A path without the ending of its file (`video7010`) means the video that is there."""
    return not is_medium(path) and is_video(find_on_disk(root, path))
