"""How a field of a real file is read: one defined result for each kind of dirt, in both layouts.

Missing values are null, NaN, "NA" or empty; ids are numbers or strings; the passage fields are
scalars or lists; answers are text, numbers or objects. Separate from the readers, so that a line of
JSON, a row of Parquet and a scan of either mean the same by "missing".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

ABSENT: Final = frozenset({"", "na", "nan", "none", "null"})
LONGEST_ABSENT: Final = max(map(len, ABSENT))
PASSAGE_FIELDS: Final = ("passage_id", "passage_text", "passage_image_path")

M2KR_DATA: Final = {
    "answer": "answers",
    "data_id": "question_id",
    "image_path": "img_path",
    "instruction": "instruction",
    "passage_id": "pos_item_ids",
    "passage_text": "pos_item_contents",
    "question": "question",
}
"""Our field -> column of BByrneLab/M2KR's `*_data` files. The data set is the folder's name."""

M2KR_PASSAGES: Final = {
    "passage_id": "passage_id",
    "passage_text": "passage_content",
    "passage_image_path": "img_path",
}
"""Our field -> column of `*_passages` files; only CC_passages has pictures."""


class LineError(Exception):
    """This line cannot be used; the text is the reason under which it is counted."""


def items(value: Any) -> list[Any]:
    """A scalar is a list of one, an absent value an empty one."""
    if isinstance(value, list):
        return value
    return [] if value is None or (isinstance(value, float) and math.isnan(value)) else [value]


def text(value: Any) -> str:
    """Text of a scalar; "" for every way of writing that there is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of ids with one NaN comes out of pandas as floats
    if value is None or isinstance(value, dict | list):
        return ""
    said = str(value).strip()
    if len(said) <= LONGEST_ABSENT and said.lower() in ABSENT:
        return ""
    return _utf8(said)


def _utf8(said: str) -> str:
    """A lone surrogate is legal in JSON and not in UTF-8."""
    return said if said.isascii() else said.encode("utf-8", "replace").decode()


def answer(value: Any) -> str:
    """InfoSeek writes numbers as objects; their `wikidata` value is what the field compares.

    Source: ReT, inference.py (str(answer["wikidata"])).
    """
    if isinstance(value, dict):
        whole = json.dumps(value, sort_keys=True, ensure_ascii=False)
        return _utf8(str(value.get("wikidata", whole)))
    if isinstance(value, str):
        return _utf8(value.strip())
    return text(value)


def answers(value: Any) -> list[str]:
    """Every answer that is one, in the order given."""
    return [said for item in items(value) if (said := answer(item))]


def passages(line: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(id, text, picture) of each passage. A missing text or picture list means: none has one.

    Raises:
        LineError: the lists are of unequal length.
    """
    columns = [[text(item) for item in items(line.get(name))] for name in PASSAGE_FIELDS]
    ids = columns[0]
    if not any(ids):
        return []
    for number in (1, 2):
        if not any(columns[number]):
            columns[number] = [""] * len(ids)
        if len(columns[number]) != len(ids):
            raise LineError("passage lists of unequal length")
    return [(name, said, shown) for name, said, shown in zip(*columns, strict=True) if name]


def from_m2kr(row: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """A row of an M2KR `*_data` file under our nine names, its dirt untouched.

    `gold_answer` stands in where `answers` is empty; `pos_item_contents` may be absent.
    """
    line = {ours: row.get(theirs) for ours, theirs in M2KR_DATA.items()}
    if not answers(line["answer"]):
        line["answer"] = row.get("gold_answer")
    if len(items(line["passage_text"])) != len(items(line["passage_id"])):
        line["passage_text"] = None  # the passage file has the texts
    return {**line, "dataset_id": dataset, "passage_image_path": None}


def passage_from_m2kr(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an M2KR `*_passages` file under our names."""
    return {ours: row.get(theirs) for ours, theirs in M2KR_PASSAGES.items()}
