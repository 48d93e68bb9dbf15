"""Counts of field values over records; the counts of several processes can be merged.

Written for speed: 676,441 records of 3 KB must pass in seconds, so the common case of each field (a
text; a list of texts) takes a short path, and everything else a slow one with the same result. The
rules of what counts as absent are those of the adapters (`adapters/m2kr_fields.py`).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from datasets_mm.adapters import m2kr_fields
from datasets_mm.adapters.m2kr_fields import ABSENT, NO_POSITIVE, UNEQUAL, LineError
from datasets_mm.profile.profile import ChoiceProfile, FieldProfile
from datasets_mm.recipes.recipe import FIELDS, LIST_FIELDS, Form
from datasets_mm.recipes.record_classes import question_kind, wh_word

LONGEST_ABSENT: Final = 8
"""Characters. Longer texts are not compared with the words for absent values."""

FIELDS_OF: Final[dict[Form, tuple[str, ...]]] = {
    "passages": FIELDS,
    "captions": ("answer", "data_id", "dataset_id", "image_path"),
    "choices": ("answer", "data_id", "dataset_id", "image_path", "options", "question"),
}
"""Form of the records -> the fields that have a meaning in them; others are always empty."""
VERBATIM_FIELDS: Final = frozenset({"answer", "options"})
"""In these "none" and "NA" are words; only a blank is none at all."""
_TEXT_ONLY: Final = {str}
_NINE_OF: Final = itemgetter(*FIELDS)
_USUAL: Final = tuple(list if name in LIST_FIELDS else str for name in FIELDS)
_PLAIN: Final = {str, type(None)}
_BLANK: Final = frozenset({""})
_LIST_OF_TEXT: Final = "list of text"
_NOT_THERE: Final = object()


@dataclass(slots=True)
class ColumnCounts:
    """Running counts of one field."""

    types: Counter[str] = field(default_factory=Counter)
    no_key: int = 0
    null: int = 0
    stated_na: int = 0
    empty: int = 0
    elements: int = 0
    elements_absent: int = 0

    def add(self, other: ColumnCounts) -> None:
        """Take over the counts of another process."""
        self.types.update(other.types)
        for name in ("no_key", "null", "stated_na", "empty", "elements", "elements_absent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def count_absent(self, value: Any) -> None:
        """Count an absent value by how it is written."""
        if isinstance(value, str):
            if value.strip():
                self.stated_na += 1
            else:
                self.empty += 1
        else:
            self.null += 1

    def profile(self, name: str, records: int) -> FieldProfile:
        """The counts under their names."""
        absent = self.no_key + self.null + self.stated_na + self.empty
        return FieldProfile(
            name=name,
            types={kind: n for kind, n in self.types.most_common() if n},
            filled=records - absent,
            no_key=self.no_key,
            null=self.null,
            stated_na=self.stated_na,
            empty=self.empty,
            elements=self.elements,
            elements_absent=self.elements_absent,
        )


@dataclass
class FieldCounts:
    """Running counts of all records that one process saw."""

    form: Form = "passages"
    records: int = 0
    usual: int = 0
    """Records that took the short path: their types are not in `columns`."""
    usual_passages: int = 0
    usual_answers: int = 0
    columns: dict[str, ColumnCounts] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    candidates: Counter[int] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    records_with_repeats: int = 0
    oddities: Counter[str] = field(default_factory=Counter)
    """Oddity of values that a build keeps -> records."""
    reasons: set[str] = field(default_factory=set)
    """Reasons for which a build would skip records; these are counted in `records` too."""
    gaps: list[str] = field(default_factory=list)
    """Gaps of the record that was added last; the caller stores their positions and clears it."""
    data_ids: array[int] = field(default_factory=lambda: array("q"))
    """Hashes: of each record's id, and of every (passage id, text) referred to, in step."""
    passage_ids: array[int] = field(default_factory=lambda: array("q"))
    passage_texts: array[int] = field(default_factory=lambda: array("q"))

    def __post_init__(self) -> None:
        self.columns = {name: ColumnCounts() for name in FIELDS_OF[self.form]}

    def add(self, record: dict[str, Any]) -> tuple[str, list[str], str]:
        """Count one record.

        Returns:
            The query's words, the texts of its positives, and why a build would leave the record
            out (empty: it would not).
        """
        self.records += 1
        if len(record) == len(FIELDS) and self.form == "passages":
            try:
                values = _NINE_OF(record)
            except KeyError:
                return self._add_unusual(record)
            if tuple(map(type, values)) == _USUAL and (usual := self._add_usual(*values)):
                return usual
        return self._add_unusual(record)

    def _add_usual(  # noqa: PLR0913, PLR0917 - M2KR's nine fields
        self,
        answer: list[str],
        data_id: str,
        dataset_id: str,
        image: str,
        instruction: str,
        ids: list[str],
        images: list[str],
        texts: list[str],
        question: str,
    ) -> tuple[str, list[str], str] | None:
        """The short path: all there, texts and lists of texts of one length; None: it is not so."""
        count = len(ids)
        if not (
            count == len(images) == len(texts) > 0
            and set(map(type, chain(ids, images, texts, answer))) == _TEXT_ONLY
            and not _any_absent(ids)
            and not _any_absent(texts)
            and answer
            and all(map(str.strip, answer))
        ):
            return None
        for value in (data_id, dataset_id, image, instruction, question):
            if len(value) <= LONGEST_ABSENT and value.strip().lower() in ABSENT:
                return None
        if min(map(len, images)) <= LONGEST_ABSENT:
            column = self.columns["passage_image_path"]
            absent = [t for t in images if len(t) <= LONGEST_ABSENT and t.strip().lower() in ABSENT]
            if absent:
                column.elements_absent += len(absent)
                self.gaps.append("passage_image_path not filled")
                if len(absent) == count:
                    column.count_absent(absent[0])
        self.usual += 1
        self.usual_passages += count
        self.usual_answers += len(answer)
        self.candidates[count] += 1
        self.questions[wh_word(question)] += 1
        self.data_ids.append(hash(data_id))
        self.passage_ids.extend(map(hash, map(str.strip, ids)))
        self.passage_texts.extend(map(hash, map(str.strip, texts)))
        if count > 1 and len(set(ids)) != count:
            self.records_with_repeats += 1
        return f"{instruction} {question}", texts, ""

    def _add_unusual(self, record: dict[str, Any]) -> tuple[str, list[str], str]:
        if self.form == "passages":
            record = dict(m2kr_fields.normalize_keys(record))
        get = record.get
        values: dict[str, Any] = {}
        for name, column in self.columns.items():
            value = get(name, _NOT_THERE)
            if type(value) is str:
                if len(value) <= LONGEST_ABSENT and value.strip().lower() in ABSENT:
                    column.count_absent(value)
                    self.gaps.append(f"{name} not filled")
                    value = ""
                column.types["text"] += 1
                values[name] = value
            elif type(value) is list:
                values[name] = self._count_list(name, value)
            else:
                values[name] = self._count_other(name, value)
        known_fields = self.columns.keys() | FIELDS
        if not record.keys() <= known_fields:
            self.others.update(record.keys() - known_fields)
        if self.form != "passages":
            return self._add_plain(values)
        query, texts, reason = self._add_meaning(values)
        reason = (self._build_problem(record) if _is_odd(record) else "") or reason
        self.reasons |= {reason} - {""}
        return query, texts, reason

    def _build_problem(self, record: dict[str, Any]) -> str:
        """Reason for which a build would skip the record, by the build's own code; "": none."""
        try:
            _, oddities = m2kr_fields.parse_record(record)
        except LineError as reason:
            return str(reason)
        for oddity in dict.fromkeys(oddities):
            self.oddities[oddity] += 1
            self.gaps.append(oddity)
        return ""

    def _add_plain(self, values: dict[str, Any]) -> tuple[str, list[str], str]:
        """As `_add_meaning`, without passages: the texts are captions or options."""
        if data_id := _join_texts(values["data_id"]):
            self.data_ids.append(hash(data_id))
        texts = [text for text in values["answer"] if text]
        question = _join_texts(values.get("question", ""))
        if self.form == "choices":
            self.questions[wh_word(question)] += 1
            self.letters[texts[0] if texts else ""] += 1
            self.kinds[question_kind(_join_texts(values["dataset_id"]), question)] += 1
            texts = [text for text in values["options"] if text]
        self.candidates[len(texts)] += 1
        return question, texts, ""

    def _count_list(self, name: str, values: list[Any]) -> list[str]:
        """Count a list; its elements as texts, "" where absent."""
        column, is_answer = self.columns[name], name in VERBATIM_FIELDS
        column.elements += len(values)
        kinds = set(map(type, values))
        if kinds == _TEXT_ONLY:
            texts = values
            column.types[_LIST_OF_TEXT] += 1
        else:
            texts = list(
                map(m2kr_fields.answer_text if is_answer else m2kr_fields.scalar_text, values)
            )
            column.types[_list_type(kinds)] += 1
        if texts and min(map(len, texts)) <= LONGEST_ABSENT:
            # An answer may well be "none" or "NA": only a blank one is none at all.
            words = _BLANK if is_answer else ABSENT
            texts = [
                "" if len(t) <= LONGEST_ABSENT and t.strip().lower() in words else t for t in texts
            ]
            absent = texts.count("")
            column.elements_absent += absent
            if absent:
                self.gaps.append(f"{name} not filled")
            if absent == len(texts):
                column.count_absent(values[0])
        elif not values:
            column.empty += 1
            self.gaps.append(f"{name} not filled")
        return texts

    def _count_other(self, name: str, value: Any) -> str:
        column = self.columns[name]
        if value is _NOT_THERE:
            column.no_key += 1
            self.gaps.append(f"{name} missing")
            return ""
        column.types[type_name(value)] += 1
        if value is None or (isinstance(value, float) and math.isnan(value)):
            column.null += 1
            self.gaps.append(f"{name} missing")
            return ""
        return m2kr_fields.scalar_text(value)

    def _add_meaning(self, values: dict[str, Any]) -> tuple[str, list[str], str]:
        """Result of `add`; counts that need more than one field."""
        question, instruction = _join_texts(values["question"]), _join_texts(values["instruction"])
        self.questions[wh_word(question)] += 1
        if data_id := _join_texts(values["data_id"]):
            self.data_ids.append(hash(data_id))
        ids, texts, images = (_as_list(values[name]) for name in m2kr_fields.PASSAGE_FIELDS)
        reason = ""
        if not ids:
            reason = NO_POSITIVE
        elif len(texts or ids) != len(ids) or len(images or ids) != len(ids):
            reason = UNEQUAL
        else:
            texts = texts or [""] * len(ids)
            if "" in ids:
                numbers = [number for number, name in enumerate(ids) if name]
                ids, texts = [ids[n] for n in numbers], [texts[n] for n in numbers]
            self.passage_ids.extend(map(hash, map(str.strip, ids)))
            self.passage_texts.extend(map(hash, map(str.strip, texts)))
            if len(set(ids)) != len(ids):
                self.records_with_repeats += 1
        self.candidates[len(ids) - ids.count("")] += 1
        query = f"{instruction} {question}" if instruction and question else instruction or question
        return query, texts, reason

    def profiles(self) -> tuple[FieldProfile, ...]:
        """The counts of every field, both paths together."""
        for name, column in self.columns.items():
            is_list = name in LIST_FIELDS
            column.types[_LIST_OF_TEXT if is_list else "text"] += self.usual
            if is_list:
                column.elements += self.usual_answers if name == "answer" else self.usual_passages
        self.usual = self.usual_answers = self.usual_passages = 0
        return tuple(column.profile(name, self.records) for name, column in self.columns.items())

    def choices(self) -> ChoiceProfile | None:
        """Counts of right letters and question types; None where there are no options."""
        if self.form != "choices":
            return None
        return ChoiceProfile(
            answers=dict(sorted(self.letters.items())), kinds=dict(self.kinds.most_common())
        )

    def merge(self, other: FieldCounts) -> None:
        """Take over the counts of another process."""
        self.records += other.records
        self.usual += other.usual
        self.usual_passages += other.usual_passages
        self.usual_answers += other.usual_answers
        for name, column in self.columns.items():
            column.add(other.columns[name])
        self.others.update(other.others)
        self.candidates.update(other.candidates)
        self.questions.update(other.questions)
        self.oddities.update(other.oddities)
        self.reasons |= other.reasons
        self.letters.update(other.letters)
        self.kinds.update(other.kinds)
        self.records_with_repeats += other.records_with_repeats
        self.data_ids.extend(other.data_ids)
        self.passage_ids.extend(other.passage_ids)
        self.passage_texts.extend(other.passage_texts)


def _is_odd(record: dict[str, Any]) -> bool:
    """Some field holds another type than texts, ids and lists of them."""
    for name in FIELDS:
        value = record.get(name)
        if type(value) is list and name in LIST_FIELDS:
            if not set(map(type, value)) <= _PLAIN:
                return True
        elif type(value) not in _PLAIN or (value is not None and type(value) is not str):
            return True
    return False


def _any_absent(texts: list[str]) -> bool:
    """Whether one of the texts is absent; the shortest is checked first."""
    if min(map(len, texts)) > LONGEST_ABSENT:
        return False
    return any(len(t) <= LONGEST_ABSENT and t.strip().lower() in ABSENT for t in texts)


def _as_list(value: list[str] | str) -> list[str]:
    """A scalar counts as a list of one; a list of nothing but absent elements as none."""
    if type(value) is list:
        return value if any(value) else []
    return [str(value)] if value else []


def _join_texts(value: list[str] | str) -> str:
    return value if type(value) is str else " ".join(value)


def type_name(value: Any) -> str:
    """Name of a JSON type, for people."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    names = {str: "text", bool: "boolean", dict: "object", list: "list", type(None): "null"}
    return names.get(type(value), "number")


def _list_type(kinds: set[type]) -> str:
    if not kinds:
        return "empty list"
    names = {str: "text", dict: "object", list: "list", type(None): "null", bool: "boolean"}
    inner = sorted({names.get(kind, "number") for kind in kinds})
    return f"list of {' and '.join(inner)}"
