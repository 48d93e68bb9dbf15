"""Dataset: training pairs, evaluation splits and search corpora as rows of vocabularies.

Strings are numbered once over all subsets of a run; columns are dictionary-encoded by Arrow, so
that only distinct strings become Python objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets_mm.building.build import Subset
from engines.emitter import EngineError
from engines.retrieval.data.items import Rows, Vocabulary
from engines.retrieval.data.pairs import NONE, ItemRows, TrainingPairs
from engines.torchkit.data.subset_source import make_ids_unique


@dataclass
class Vocabularies:
    """Vocabularies of texts, images and passage ids over all subsets of a run."""

    texts: Vocabulary = field(default_factory=Vocabulary)
    images: Vocabulary = field(default_factory=Vocabulary)
    """Absolute paths below the subset's image root, as `root NUL path`."""
    passages: Vocabulary = field(default_factory=Vocabulary)
    """Passage ids."""


@dataclass(frozen=True)
class SearchCorpus:
    """A corpus to search: rows, ids and texts of its passages."""

    fingerprint: str
    passages: ItemRows
    ids: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class EvaluationSplit:
    """An evaluation split: queries, their positives and answers."""

    name: str
    queries: ItemRows
    ids: Sequence[str]
    positives: Sequence[Rows]
    """Rows of each query's positives in the corpus."""
    positive_ids: Sequence[Sequence[str]]
    """Ids of each query's positives, in the corpus or not."""
    answers: Sequence[Sequence[str]]
    corpus: SearchCorpus

    @property
    def positive_counts(self) -> Rows:
        """Positives of each query, in the corpus or not."""
        return np.asarray([len(ids) for ids in self.positive_ids], np.int64)


def read_training_pairs(
    subset: Subset, vocabularies: Vocabularies, *, use_instruction: bool
) -> TrainingPairs:
    """Training pairs of a subset, without records that have no positive."""
    records = subset.records
    counts = _lengths(records["passage_id"])
    if (counts == 0).any():
        records = records.filter(pa.array(counts > 0))
        counts = counts[counts > 0]
    root = subset.image_root
    positives = ItemRows(
        _vocabulary_rows(_flatten(records["passage_text"]), vocabularies.texts),
        _image_rows(_flatten(records["passage_image_path"]), root, vocabularies.images),
    )
    return TrainingPairs(
        queries=_queries(records, root, vocabularies, use_instruction=use_instruction),
        positives=positives,
        codes=_vocabulary_rows(_flatten(records["passage_id"]), vocabularies.passages),
        offsets=np.concatenate(([0], np.cumsum(counts))),
    )


def read_split(
    subset: Subset, corpus: SearchCorpus, vocabularies: Vocabularies, *, use_instruction: bool
) -> EvaluationSplit:
    """Evaluation split of a subset."""
    records = subset.records
    positive_ids = [list(dict.fromkeys(ids or ())) for ids in records["passage_id"].to_pylist()]
    return EvaluationSplit(
        name=subset.name,
        queries=_queries(records, subset.image_root, vocabularies, use_instruction=use_instruction),
        ids=make_ids_unique(records["data_id"].to_pylist()),
        positives=[np.asarray(subset.corpus.rows(ids), np.int64) for ids in positive_ids],
        positive_ids=positive_ids,
        answers=[[a for a in (answers or ()) if a and a.strip()] for answers in _answers(records)],
        corpus=corpus,
    )


def read_corpus(subset: Subset, vocabularies: Vocabularies) -> SearchCorpus:
    """The corpus of a subset.

    Raises:
        EngineError: it holds no passage.
    """
    table = subset.corpus.table
    if not table.num_rows:
        raise EngineError(
            f"subset '{subset.name}': its corpus is empty; there is nothing to search: check the "
            "recipe's passages"
        )
    return SearchCorpus(
        fingerprint=subset.corpus.fingerprint,
        passages=ItemRows(
            _vocabulary_rows(table["passage_text"], vocabularies.texts),
            _image_rows(table["passage_image_path"], subset.image_root, vocabularies.images),
        ),
        ids=subset.corpus.ids,
        texts=subset.corpus.texts,
    )


def image_key(root: Path, path: str) -> str:
    """Key of an image in the vocabulary: root and path."""
    return f"{root}\0{path}" if path else ""


def _queries(
    records: pa.Table, root: Path, vocabularies: Vocabularies, *, use_instruction: bool
) -> ItemRows:
    question = pc.fill_null(records["question"], "")
    if use_instruction:
        instruction = pc.fill_null(records["instruction"], "")
        question = pc.utf8_trim_whitespace(pc.binary_join_element_wise(instruction, question, " "))
    return ItemRows(
        _vocabulary_rows(question, vocabularies.texts),
        _image_rows(records["image_path"], root, vocabularies.images),
    )


def _vocabulary_rows(column: Any, vocabulary: Vocabulary) -> Rows:
    """Vocabulary rows of a column's strings; NONE for null and the empty string."""
    encoded = pc.dictionary_encode(column)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # no rows at all
        return np.empty(0, np.int64)
    rows = vocabulary.rows(encoded.dictionary.to_pylist())
    indices = np.asarray(pc.fill_null(encoded.indices, -1), np.int64)
    return np.where(indices < 0, NONE, np.append(rows, NONE)[indices])


def _image_rows(column: Any, root: Path, vocabulary: Vocabulary) -> Rows:
    paths = Vocabulary()
    local = _vocabulary_rows(column, paths)
    rows = vocabulary.rows(image_key(root, path) for path in paths.values())
    return np.append(rows, NONE)[local]


def _flatten(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column)


def _lengths(column: pa.ChunkedArray) -> Rows:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)


def _answers(records: pa.Table) -> list[list[str] | None]:
    answers: list[list[str] | None] = records["answer"].to_pylist()
    return answers
