"""Cleaning of M2KR's fields: one defined result for each kind of dirt, in all layouts.

Missing values are null, NaN, "NA" or empty; ids are numbers or strings; the passage fields are
scalars or lists; answers are text, numbers or objects. JSON lines, Parquet files and profiles use
the same rules.
"""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from numbers import Number
from typing import Any, Final

from datasets_mm import media_paths

ABSENT: Final = frozenset({"", "na", "nan", "none", "null"})
LONGEST_ABSENT: Final = max(map(len, ABSENT))
PASSAGE_FIELDS: Final = ("passage_id", "passage_text", "passage_image_path")
SCALARS: Final = ("data_id", "dataset_id", "instruction", "question")
"""Fields that hold one text, besides the image path."""
PICTURES: Final = frozenset({"image_path", "passage_image_path"})
OTHER_PICTURES: Final = frozenset({
    "image", "images", "img", "img_path", "image_file", "image_name", "imagepath", "file_name",
    "filename", "picture", "pictures", "image_paths",
})  # fmt: skip
IDS: Final = frozenset({"data_id", "passage_id"})
"""Compared as text, whether they are written as numbers or not."""
EXACT: Final = 2.0**53
"""Whole numbers from here on are rounded where they are written as floats: ids lose their ends."""
_TEXTS: Final = {str, type(None)}
PATH_KEYS: Final = ("path", "image_path", "file_name", "filename", "file", "name", "image")
"""Keys under which an object has the path of an image; `datasets` writes {bytes, path}."""
_NAMES: Final = frozenset({*SCALARS, *PICTURES, *PASSAGE_FIELDS, "answer"})
NO_POSITIVE: Final = "no positive passage"
UNEQUAL: Final = "passage lists of unequal length"

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


LONGEST_LISTED: Final = 100_000
_STRING: Final = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
LISTED: Final = re.compile(rf"\[\s*{_STRING}(?:(?:\s*,\s*|\s+){_STRING})*\s*,?\s*\]", re.DOTALL)
"""A list of texts as text: JSON, as Python prints it, and as NumPy does, without commas."""


class LineError(Exception):
    """This line cannot be used; the text is the reason under which it is counted."""


def as_list(value: Any) -> list[Any]:
    """A scalar is a list of one, an absent value an empty one."""
    if isinstance(value, list):
        return value
    return [] if value is None or (isinstance(value, float) and math.isnan(value)) else [value]


def scalar_text(value: Any) -> str:
    """Text of a scalar; "" for every way of writing that there is none."""
    if type(value) is str:  # the common case, a million times
        stripped = value.strip()
        if not stripped.isascii():
            stripped = _replace_surrogates(stripped.strip(media_paths.INVISIBLE))
        return "" if len(stripped) <= LONGEST_ABSENT and stripped.lower() in ABSENT else stripped
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of ids with one NaN comes out of pandas as floats
    if value is None or isinstance(value, dict | list):
        return ""
    try:
        stripped = str(value).strip()
    except ValueError:  # an integer of more digits than Python prints
        return ""
    if len(stripped) <= LONGEST_ABSENT and stripped.lower() in ABSENT:
        return ""
    return _replace_surrogates(stripped)


def parse_text_list(text: str) -> list[str] | None:
    """Elements of a list of texts that was written as one text; None: it is not such a list."""
    text = text.strip()
    if not text.startswith(("['", '["', "[ ")) or len(text) > LONGEST_LISTED:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        if LISTED.fullmatch(text) is None:
            return None
        values = [_unquote(match) for match in re.findall(_STRING, text, re.DOTALL)]
    is_texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return values if is_texts and values else None


def _unquote(literal: str) -> str:
    try:
        return str(ast.literal_eval(literal))
    except (ValueError, SyntaxError):
        return literal[1:-1]


def _replace_surrogates(string: str) -> str:
    """A lone surrogate is legal in JSON and not in UTF-8."""
    return string if string.isascii() else string.encode("utf-8", "replace").decode()


def type_of(value: Any) -> str:
    """Type of a value for messages: text, number, true or false, object, list, binary, null."""
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return "number" if isinstance(value, Number) else type(value).__name__


_TYPES: Final = (
    (str, "text"), (bool, "true or false"), (dict, "an object"), (list, "a list"),
    (tuple, "a list"), (bytes, "binary"), (type(None), "null"),
)  # fmt: skip


class Oddities(list[str]):
    """Readers of one line's fields that collect oddities of values that are kept."""

    def read_scalar(self, name: str, value: Any) -> str:
        """Text of a field that holds one value.

        Raises:
            LineError: it holds an object, several values or binary data.
        """
        if value is None or type(value) is str:
            return scalar_text(value)
        if isinstance(value, list | tuple):
            filled = [item for item in value if item is not None]
            if len(filled) > 1:
                raise LineError(f"{name} is a list of several values (one is read)")
            if not filled:
                return ""
            if isinstance(filled[0], list | tuple):
                return self._reject(name, filled[0])
            self.append(f"values of {name} are lists of one and were read as their element")
            return self.read_scalar(name, filled[0])
        if isinstance(value, bool) or name not in IDS:
            return self._read_converted(name, value)
        return self._read_plain(name, value)

    def read_image_path(self, name: str, value: Any) -> str:
        """A path in its clean form; of an object (`{path: …}`, `{bytes: …, path: …}`) its path.

        Raises:
            LineError: as for `read_scalar`; the picture is in the file itself.
        """
        if type(value) is str:
            return media_paths.clean_path(scalar_text(value))
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            value = value[0]
        if isinstance(value, dict):
            lower = {str(key).strip().lower(): inner for key, inner in value.items()}
            if path := next((p for key in PATH_KEYS if (p := scalar_text(lower.get(key)))), ""):
                self.append(f"values of {name} are objects and were read as their path")
                return media_paths.clean_path(path)
            if lower.get("bytes") is not None:
                raise LineError(f"{name} holds the picture itself (write it to a file)")
            is_named = isinstance(lower.get("path", ""), str | None)
            if lower and is_named and lower.keys() <= {"bytes", "path"}:
                return ""  # `datasets` writes a record without a picture like this
        return media_paths.clean_path(self.read_scalar(name, value))

    def read_elements(self, name: str, value: Any) -> list[str]:
        """Texts of a field that holds a list; "" where an element is absent.

        Raises:
            LineError: an element is an object, a list or binary data.
        """
        values = as_list(value)
        if name not in PICTURES and set(map(type, values)) <= _TEXTS:  # nearly all there are
            return list(map(scalar_text, self._split_text_list(name, values)))
        return [
            "" if item is None or item == "" else self._read_element(name, item) for item in values
        ]

    def _split_text_list(self, name: str, values: list[Any]) -> list[Any]:
        """The elements of the one text, where that is a list written as text."""
        if len(values) != 1 or type(values[0]) is not str or values[0].lstrip()[:1] != "[":
            return values
        if (elements := parse_text_list(values[0])) is None:
            return values
        self.append(f"values of {name} are lists written as text and were read as their elements")
        return elements

    def _read_element(self, name: str, value: Any) -> str:
        if name in PICTURES and not isinstance(value, list | tuple):
            return self.read_image_path(name, value)
        if isinstance(value, dict | list | tuple):
            return self._reject(name, value)
        return self.read_scalar(name, value)

    def read_answers(self, value: Any) -> list[str]:
        """Non-empty answers, in order; nested lists are flattened."""
        answers: list[str] = []
        pending = self._split_text_list("answer", as_list(value))[::-1]
        while pending:
            item = pending.pop()
            if isinstance(item, list | tuple):
                self.append("answers are lists in lists and were read as their elements")
                pending += list(item)[::-1]
                continue
            if isinstance(item, dict) and type(item.get("wikidata")) not in {str, int, float}:
                self.append("answers are objects without `wikidata`: their text, or JSON, is read")
            elif isinstance(item, bool | bytes) or (
                isinstance(item, float) and not math.isfinite(item) and item == item  # noqa: PLR0124
            ):
                self.append(f"values of answer are {type_of(item)} and were read as text")
            if text := answer_text(item):
                answers.append(text)
        return answers

    def _read_converted(self, name: str, value: Any) -> str:
        """A value that is no text, as text; noted as an oddity."""
        string = self._read_plain(name, value)
        if string:
            self.append(f"values of {name} are {type_of(value)} and were read as text")
        return string

    def _read_plain(self, name: str, value: Any) -> str:
        if isinstance(value, dict | bytes):
            return self._reject(name, value)
        if isinstance(value, float) and abs(value) >= EXACT and math.isfinite(value):
            raise LineError(f"{name} is a rounded number (write ids of 16 digits and more as text)")
        string = scalar_text(value)
        if not string and isinstance(value, int):
            raise LineError(f"{name} is a number of too many digits")
        return string

    @staticmethod
    def _reject(name: str, value: Any) -> str:
        raise LineError(f"{name} is {type_of(value)} where text belongs")


def answer_text(value: Any) -> str:
    """Text of one answer; of InfoSeek's number objects their `wikidata` value, as in the field.

    Of other objects (VQAv2 writes `{answer: …, answer_confidence: …}`) the text is read, else all.
    Source: ReT, inference.py (str(answer["wikidata"])).
    """
    if isinstance(value, dict):
        if value.get("wikidata") is None:
            inner = (value.get(key) for key in ("answer", "text", "value", "name"))
            if string := next(
                (
                    candidate
                    for candidate in inner
                    if isinstance(candidate, str) and candidate.strip()
                ),
                "",
            ):
                return _replace_surrogates(string.strip())
        content = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
        return _replace_surrogates(
            content if value.get("wikidata") is None else str(value["wikidata"])
        )
    if isinstance(value, str):
        return _replace_surrogates(value.strip())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return scalar_text(value)


def parse_record(line: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The nine fields of a line, and oddities of its values.

    Raises:
        LineError: it cannot be a record; the text is the reason under which it is counted.
    """
    oddities = Oddities()
    line = normalize_keys(line)
    rows = _parse_passages(line, oddities)
    if not rows:
        raise LineError(NO_POSITIVE)
    ids, texts, images = (list(column) for column in zip(*rows, strict=True))
    fields = {name: oddities.read_scalar(name, line.get(name)) for name in SCALARS}
    if not fields["data_id"] and isinstance(raw_id := line.get("data_id"), str | float) and raw_id:
        oddities.append("values of data_id say that there is none (NA, NaN): ids were made")
    fields["image_path"] = oddities.read_image_path("image_path", line.get("image_path"))
    if not fields["image_path"] and (other_keys := _other_pictures(line)):
        oddities.append(
            f"records name no image_path but {other_keys}, which is not read: rename the key"
        )
    return {
        **fields,
        "answer": oddities.read_answers(line.get("answer")),
        "passage_id": ids,
        "passage_text": texts,
        "passage_image_path": images,
    }, oddities


def _other_pictures(line: Mapping[str, Any]) -> str:
    """Keys that hold an image under a name used by other data sets."""
    return ", ".join(
        str(key)
        for key, value in line.items()
        if key not in _NAMES and normalize_name(key) in OTHER_PICTURES and value
    )


def parse_passages(line: Mapping[str, Any]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(id, text, image) of each passage of a line, and oddities of its values.

    Raises:
        LineError: the lists are of unequal length, or hold what is no text.
    """
    oddities = Oddities()
    return _parse_passages(normalize_keys(line), oddities), oddities


def _parse_passages(line: Mapping[str, Any], oddities: Oddities) -> list[tuple[str, str, str]]:
    """A missing text or picture list means: none has one."""
    columns = [oddities.read_elements(name, line.get(name)) for name in PASSAGE_FIELDS]
    ids = columns[0]
    if not any(ids):
        return []
    for number in (1, 2):
        if not any(columns[number]):
            columns[number] = [""] * len(ids)
        if len(columns[number]) != len(ids):
            raise LineError(UNEQUAL)
    rows = list(zip(*columns, strict=True))
    for name, passage_text, image in rows:
        if not name and (passage_text or image):
            oddities.append("positives have no id and were left out")
    return [(name, passage_text, image) for name, passage_text, image in rows if name]


def normalize_keys(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The line with normalized keys: lower case, without blanks and byte-order marks.

    A key that is written as it should be comes before one that only resembles it.
    """
    if line.keys() >= _NAMES or all(key in _NAMES for key in line):
        return line
    extra = {normalize_name(key): value for key, value in line.items() if key not in _NAMES}
    return {**{key: value for key, value in extra.items() if key in _NAMES}, **line}


def normalize_name(name: Any) -> str:
    """Normalized name of a column or key: NFC, lower case, `_` for blanks."""
    composed = unicodedata.normalize("NFC", str(name)).strip(media_paths.INVISIBLE)
    return "_".join(composed.lower().split())


def record_from_m2kr(row: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """A row of an M2KR `*_data` file under our nine names, its dirt untouched.

    `gold_answer` stands in where `answers` is empty; `pos_item_contents` may be absent.
    """
    line = {field: row.get(column) for field, column in M2KR_DATA.items()}
    if not Oddities().read_answers(line["answer"]):
        line["answer"] = row.get("gold_answer")
    if len(as_list(line["passage_text"])) != len(as_list(line["passage_id"])):
        line["passage_text"] = None  # the passage file has the texts
    return {**line, "dataset_id": dataset, "passage_image_path": None}


def passage_from_m2kr(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an M2KR `*_passages` file under our names."""
    return {field: row.get(column) for field, column in M2KR_PASSAGES.items()}
