"""The corpus: the passages that are searched, memory-mapped and shared by subsets.

Subsets of one source search the same corpus; what is computed over it (its encoding, for example)
is keyed by its own fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("passage_id", pa.string()),
        ("passage_text", pa.string()),
        ("passage_image_path", pa.string()),
    ]
)


class Corpus:
    """Passages by row number. `image_paths` holds "" where a passage has no picture."""

    def __init__(self, table: pa.Table, fingerprint: str) -> None:
        self.table = table
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def ids(self) -> list[str]:
        """Passage ids, one a row."""
        return list(self.table["passage_id"].to_pylist())

    @cached_property
    def texts(self) -> list[str]:
        """Passage texts, one a row."""
        return list(self.table["passage_text"].to_pylist())

    @cached_property
    def image_paths(self) -> list[str]:
        """Paths under the image root; "" where there is none."""
        return list(self.table["passage_image_path"].to_pylist())

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def row(self, passage_id: str) -> int:
        """Row of a passage; -1 when the corpus does not hold it."""
        return self._rows.get(passage_id, -1)

    def rows(self, passage_ids: Sequence[str]) -> list[int]:
        """Rows of those passages that the corpus holds."""
        return [row for name in passage_ids if (row := self.row(name)) >= 0]


def map_table(path: Path) -> pa.Table:
    """A table over an Arrow file, without copying it into memory."""
    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_file(mapped).read_all()
