"""Counts over the records of a built Arrow table, batch by batch.

Batches are read into memory rather than mapped: mapped pages count as resident, and the table of a
large subset has gigabytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets_mm.adapters.m2kr_fields import ABSENT
from datasets_mm.profile.duplicate_passages import (
    Hashes,
    count_distinct,
    distinct_pairs,
    passage_profile,
    text_hashes,
)
from datasets_mm.profile.profile import ChoiceProfile, FieldProfile, PassageProfile
from datasets_mm.recipes.recipe import FIELDS, LIST_FIELDS, Form
from datasets_mm.recipes.record_classes import question_kind, wh_word

FIELDS_OF: Final[dict[Form, tuple[str, ...]]] = {
    "passages": FIELDS,
    "captions": ("answer", "data_id", "dataset_id", "image_path"),
    "choices": ("answer", "data_id", "dataset_id", "image_path", "options", "question"),
}
"""Form of the records -> the fields that have a meaning in them; others are always empty."""
TEXTS_OF: Final[dict[Form, str]] = {
    "passages": "passage_text", "captions": "answer", "choices": "options",
}  # fmt: skip
"""Form of the records -> the list whose texts are counted in tokens."""
CANDIDATES_OF: Final[dict[Form, str]] = TEXTS_OF | {"passages": "passage_id"}
"""Form of the records -> the list whose filled elements are counted per record."""
VERBATIM_FIELDS: Final = frozenset({"answer", "options"})
"""In these "none" and "NA" are words; only a blank is none at all."""
MAX_POSITIONS: Final = 5
ABSENT_WORDS: Final = pa.array(sorted(ABSENT))
BLANK: Final = pa.array([""])


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, one in memory at a time."""
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


@dataclass
class TableCounts:
    """Running counts over the batches that were added."""

    form: Form
    records: int = 0
    fields: dict[str, Counter[str]] = field(default_factory=dict)
    """Field -> counts under the names of `FieldProfile`, and types of values as `type …`."""
    positions: dict[str, list[int]] = field(default_factory=dict)
    """`<field> not filled` -> the first such rows, from 1."""
    candidates: Counter[int] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    records_with_repeats: int = 0
    data_ids: list[Hashes] = field(default_factory=list)
    """Hashes of each record's id."""
    passages: list[tuple[Hashes, Hashes]] = field(default_factory=list)
    """Hashes of the distinct (id, text) pairs of each batch."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the records of one batch."""
        for name in FIELDS_OF[self.form]:
            count = _count_lists if name in LIST_FIELDS | {"options"} else _count_texts
            counts, gaps = count(name, batch[name])
            self.fields.setdefault(name, Counter()).update(counts)
            self._add_positions(f"{name} not filled", gaps)
        self.records += batch.num_rows
        filled = _filled_lengths(batch[CANDIDATES_OF[self.form]])
        self.candidates.update(Counter(filled.tolist()))
        data_ids = batch["data_id"].filter(pc.not_equal(batch["data_id"], ""))
        self.data_ids.append(text_hashes(data_ids))
        if self.form != "captions":
            self.questions.update(map(wh_word, batch["question"].to_pylist()))
        if self.form == "choices":
            self._add_choices(batch)
        if self.form == "passages":
            self._add_passages(batch)

    def _add_positions(self, problem: str, gaps: Any) -> None:
        positions = self.positions.get(problem, [])
        if len(positions) < MAX_POSITIONS and pc.any(gaps).as_py():
            rows = np.flatnonzero(gaps.to_numpy(zero_copy_only=False)) + self.records + 1
            self.positions[problem] = [*positions, *rows.tolist()][:MAX_POSITIONS]

    def _add_choices(self, batch: pa.RecordBatch) -> None:
        answers = ([text for text in answer if text] for answer in batch["answer"].to_pylist())
        self.letters.update(answer[0] if answer else "" for answer in answers)
        columns = (batch[name].to_pylist() for name in ("dataset_id", "question"))
        self.kinds.update(map(question_kind, *columns))

    def _add_passages(self, batch: pa.RecordBatch) -> None:
        ids = text_hashes(batch["passage_id"].flatten())
        texts = text_hashes(batch["passage_text"].flatten())
        self.passages.append(distinct_pairs(ids, texts))
        # A record names a passage twice where its row comes with an id more than once.
        rows = pc.list_parent_indices(batch["passage_id"]).to_numpy()
        order = np.lexsort((ids, rows))
        is_repeat = (np.diff(rows[order]) == 0) & (np.diff(ids[order].view(np.int64)) == 0)
        self.records_with_repeats += np.unique(rows[order][1:][is_repeat]).size

    def field_profiles(self) -> tuple[FieldProfile, ...]:
        """The counts of every field."""
        return tuple(
            FieldProfile(
                name=name,
                types=_types(counts),
                filled=self.records - counts["stated_na"] - counts["empty"],
                **{key: n for key, n in counts.items() if not key.startswith("type ")},
            )
            for name, counts in self.fields.items()
        )

    def repeated_data_ids(self) -> int:
        """Records whose data_id another record has too (the first of them not counted)."""
        data_ids = np.concatenate([np.zeros(0, np.uint64), *self.data_ids])
        return data_ids.size - count_distinct(data_ids)

    def passage_profile(self) -> PassageProfile:
        """Duplicates among the passages; all zero where the records have none."""
        if not self.passages:
            return PassageProfile()
        ids, texts = (np.concatenate(hashes) for hashes in zip(*self.passages, strict=True))
        references = sum(count * records for count, records in self.candidates.items())
        return passage_profile(*distinct_pairs(ids, texts), references, self.records_with_repeats)

    def choices(self) -> ChoiceProfile | None:
        """Counts of right letters and question types; None where there are no options."""
        if self.form != "choices":
            return None
        return ChoiceProfile(
            answers=dict(sorted(self.letters.items())), kinds=dict(self.kinds.most_common())
        )


def _types(counts: Counter[str]) -> dict[str, int]:
    types = {key: n for key, n in counts.items() if key.startswith("type ") and n}
    return {key.removeprefix("type "): types[key] for key in sorted(types, key=lambda k: -types[k])}


def _count_texts(name: str, column: pa.Array) -> tuple[dict[str, int], Any]:
    """Counts of a column of texts, and which are absent."""
    del name
    is_absent, is_blank = _absent(column, ABSENT_WORDS), _absent(column, BLANK)
    empty = _sum(is_blank)
    counts = {"type text": len(column), "stated_na": _sum(is_absent) - empty, "empty": empty}
    return counts, is_absent


def _count_lists(name: str, column: pa.Array) -> tuple[dict[str, int], Any]:
    """Counts of a column of lists, and which are empty or have absent elements."""
    elements = column.flatten()
    is_absent = _absent(elements, BLANK if name in VERBATIM_FIELDS else ABSENT_WORDS)
    lengths = pc.list_value_length(column).to_numpy()
    absent_rows = pc.list_parent_indices(column).filter(is_absent).to_numpy()
    absent = np.bincount(absent_rows, minlength=len(column))
    all_absent = (absent == lengths) & (lengths > 0)
    # What a list of absent elements says is what its first element says.
    first = pc.list_element(column.filter(pa.array(all_absent)), 0)
    blank = _sum(_absent(first, BLANK))
    no_elements = int((lengths == 0).sum())
    counts = {
        "type list of text": len(column) - no_elements,
        "type empty list": no_elements,
        "elements": len(elements),
        "elements_absent": len(absent_rows),
        "empty": no_elements + blank,
        "stated_na": int(all_absent.sum()) - blank,
    }
    return counts, pa.array((absent > 0) | (lengths == 0))


def _absent(texts: pa.Array, words: pa.Array) -> Any:
    """Which texts are one of the words, but for blanks and capitals."""
    is_short = pc.less_equal(pc.binary_length(texts), 8)
    short = pc.utf8_lower(pc.utf8_trim_whitespace(texts.filter(is_short)))
    return pc.replace_with_mask(is_short, is_short, pc.is_in(short, value_set=words))


def _filled_lengths(column: pa.Array) -> Any:
    """Elements of each list that are not ""."""
    rows = pc.list_parent_indices(column).filter(pc.not_equal(column.flatten(), ""))
    return np.bincount(rows.to_numpy(), minlength=len(column))


def _sum(mask: Any) -> int:
    return int(pc.sum(mask).as_py() or 0)
