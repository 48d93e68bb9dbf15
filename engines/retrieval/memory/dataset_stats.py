"""Dataset statistics for memory estimates: modalities and distinct items of built subsets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets_mm.storage.corpus import map_table


@dataclass(frozen=True)
class ItemCounts:
    """Number of queries or passages, and of their distinct texts and images."""

    items: int
    texts: int
    images: int

    def describe(self) -> str:
        """The modalities in words, `text and image`."""
        there = [name for name, n in (("text", self.texts), ("image", self.images)) if n]
        return " and ".join(there) or "nothing"


@dataclass(frozen=True)
class DatasetStats:
    """Counts of one built subset."""

    queries: ItemCounts
    positives: ItemCounts
    corpus: ItemCounts
    fingerprint: str
    """Fingerprint of the corpus, which subsets may share."""


def read_stats(folder: str) -> DatasetStats | None:
    """Statistics of the subset in a folder; None: it cannot be read."""
    try:
        records = map_table(Path(folder) / "records.arrow")
        corpus = map_table(Path(folder) / "corpus.arrow")
        manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
        texts, images = (
            pc.list_flatten(records[f"passage_{name}"]) for name in ("text", "image_path")
        )
        return DatasetStats(
            _count(records["question"], records["image_path"]),
            _count(texts, images),
            _count(corpus["passage_text"], corpus["passage_image_path"]),
            str(manifest["corpus_fingerprint"]),
        )
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None


def read_all_stats(folders: Sequence[str]) -> list[DatasetStats]:
    """Statistics of the readable subsets."""
    return [stats for stats in map(read_stats, folders) if stats is not None]


def _count(texts: Any, images: Any) -> ItemCounts:
    return ItemCounts(len(texts), _count_distinct(texts), _count_distinct(images))


def _count_distinct(column: Any) -> int:
    """Number of distinct non-empty strings. Questions are counted without instructions."""
    lengths = pc.binary_length(pc.drop_null(pc.unique(column)))
    return int(pc.sum(pc.greater(lengths, 0)).as_py() or 0)
