"""What a model reads of a table's records: queries, positives and pictures."""

from __future__ import annotations

from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class RowSample:
    """Rows of a table, drawn uniformly without replacement; they follow from the seed alone."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self.is_complete = size >= rows
        self._random = Random(seed)
        self._rows = np.sort(self._random.sample(range(rows), min(size, rows)))

    def texts(
        self, batch: pa.RecordBatch, start: int, name: str
    ) -> tuple[list[str], list[list[str]]]:
        """Queries of the batch's rows in the sample, and their texts in the list `name`.

        `start`: rows before the batch. Of a complete sample all texts of each record, otherwise
        one, as a training step draws it.
        """
        low, high = np.searchsorted(self._rows, (start, start + batch.num_rows))
        chosen = batch.take(pa.array(self._rows[low:high] - start, pa.int64()))
        columns = (chosen[column].to_pylist() for column in ("instruction", "question"))
        queries = [" ".join(filter(None, words)) for words in zip(*columns, strict=True)]
        texts = chosen[name].to_pylist()
        if not self.is_complete:
            texts = [[self._random.choice(choices)] for choices in texts if choices]
        return queries, texts


def picture_paths(batch: pa.RecordBatch) -> list[str]:
    """The distinct paths of the batch's pictures."""
    pictures = pa.chunked_array([batch["image_path"], batch["passage_image_path"].flatten()])
    paths: list[str] = pc.unique(pictures).to_pylist()
    return paths
