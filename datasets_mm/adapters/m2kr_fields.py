"""How a field of a real file is read: one defined result for each kind of dirt, in both layouts.

Missing values are null, NaN, "NA" or empty; ids are numbers or strings; the passage fields are
scalars or lists; answers are text, numbers or objects. Separate from the readers, so that a line of
JSON, a row of Parquet and a scan of either mean the same by "missing".
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
"""Fields that hold one text; beside them the path of the picture."""
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
"""Where an object keeps the path of a picture; `datasets` writes {bytes, path}."""
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


def items(value: Any) -> list[Any]:
    """A scalar is a list of one, an absent value an empty one."""
    if isinstance(value, list):
        return value
    return [] if value is None or (isinstance(value, float) and math.isnan(value)) else [value]


def text(value: Any) -> str:
    """Text of a scalar; "" for every way of writing that there is none."""
    if type(value) is str:  # the common case, a million times
        said = value.strip()
        if not said.isascii():
            said = _utf8(said.strip(media_paths.INVISIBLE))
        return "" if len(said) <= LONGEST_ABSENT and said.lower() in ABSENT else said
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of ids with one NaN comes out of pandas as floats
    if value is None or isinstance(value, dict | list):
        return ""
    try:
        said = str(value).strip()
    except ValueError:  # an integer of more digits than Python prints
        return ""
    if len(said) <= LONGEST_ABSENT and said.lower() in ABSENT:
        return ""
    return _utf8(said)


def listed(said: str) -> list[str] | None:
    """The elements of a list of texts that was written as one text; None: it is none."""
    said = said.strip()
    if not said.startswith(("['", '["', "[ ")) or len(said) > LONGEST_LISTED:
        return None
    try:
        values = json.loads(said)
    except (ValueError, RecursionError):
        if LISTED.fullmatch(said) is None:
            return None
        values = [_unquoted(match) for match in re.findall(_STRING, said, re.DOTALL)]
    is_texts = isinstance(values, list) and all(isinstance(value, str) for value in values)
    return values if is_texts and values else None


def _unquoted(said: str) -> str:
    try:
        return str(ast.literal_eval(said))
    except (ValueError, SyntaxError):
        return said[1:-1]


def _utf8(said: str) -> str:
    """A lone surrogate is legal in JSON and not in UTF-8."""
    return said if said.isascii() else said.encode("utf-8", "replace").decode()


def type_of(value: Any) -> str:
    """What a value is, for a reason: text, number, true or false, object, list, binary, null."""
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    return "number" if isinstance(value, Number) else type(value).__name__


_TYPES: Final = (
    (str, "text"), (bool, "true or false"), (dict, "an object"), (list, "a list"),
    (tuple, "a list"), (bytes, "binary"), (type(None), "null"),
)  # fmt: skip


class Oddities(list[str]):
    """What is odd about the values of one line that were kept; each is counted by the report."""

    def scalar(self, name: str, value: Any) -> str:
        """Text of a field that holds one value.

        Raises:
            LineError: it holds an object, several values or binary data.
        """
        if value is None or type(value) is str:
            return text(value)
        if isinstance(value, list | tuple):
            filled = [item for item in value if item is not None]
            if len(filled) > 1:
                raise LineError(f"{name} is a list of several values (one is read)")
            if not filled:
                return ""
            if isinstance(filled[0], list | tuple):
                return self._refuse(name, filled[0])
            self.append(f"values of {name} are lists of one and were read as their element")
            return self.scalar(name, filled[0])
        if isinstance(value, bool) or name not in IDS:
            return self._converted(name, value)
        return self._plain(name, value)

    def picture(self, name: str, value: Any) -> str:
        """A path in its clean form; of an object (`{path: …}`, `{bytes: …, path: …}`) its path.

        Raises:
            LineError: as for `scalar`; the picture is in the file itself.
        """
        if type(value) is str:
            return media_paths.clean(text(value))
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            value = value[0]
        if isinstance(value, dict):
            lower = {str(key).strip().lower(): inner for key, inner in value.items()}
            if path := next((p for key in PATH_KEYS if (p := text(lower.get(key)))), ""):
                self.append(f"values of {name} are objects and were read as their path")
                return media_paths.clean(path)
            if lower.get("bytes") is not None:
                raise LineError(f"{name} holds the picture itself (write it to a file)")
            is_named = isinstance(lower.get("path", ""), str | None)
            if lower and is_named and lower.keys() <= {"bytes", "path"}:
                return ""  # `datasets` writes a record without a picture like this
        return media_paths.clean(self.scalar(name, value))

    def elements(self, name: str, value: Any) -> list[str]:
        """Texts of a field that holds a list; "" where an element is absent.

        Raises:
            LineError: an element is an object, a list or binary data.
        """
        values = items(value)
        if name not in PICTURES and set(map(type, values)) <= _TEXTS:  # nearly all there are
            return list(map(text, self._unlisted(name, values)))
        return ["" if item is None or item == "" else self._element(name, item) for item in values]

    def _unlisted(self, name: str, values: list[Any]) -> list[Any]:
        """The elements of the one text, where that is a list written as text."""
        if len(values) != 1 or type(values[0]) is not str or values[0].lstrip()[:1] != "[":
            return values
        if (elements := listed(values[0])) is None:
            return values
        self.append(f"values of {name} are lists written as text and were read as their elements")
        return elements

    def _element(self, name: str, value: Any) -> str:
        if name in PICTURES and not isinstance(value, list | tuple):
            return self.picture(name, value)
        if isinstance(value, dict | list | tuple):
            return self._refuse(name, value)
        return self.scalar(name, value)

    def answers(self, value: Any) -> list[str]:
        """Every answer that is one, in the order given; lists of lists are read through."""
        found: list[str] = []
        pending = self._unlisted("answer", items(value))[::-1]
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
            if said := answer(item):
                found.append(said)
        return found

    def _converted(self, name: str, value: Any) -> str:
        """Text of what is no text."""
        said = self._plain(name, value)
        if said:
            self.append(f"values of {name} are {type_of(value)} and were read as text")
        return said

    def _plain(self, name: str, value: Any) -> str:
        if isinstance(value, dict | bytes):
            return self._refuse(name, value)
        if isinstance(value, float) and abs(value) >= EXACT and math.isfinite(value):
            raise LineError(f"{name} is a rounded number (write ids of 16 digits and more as text)")
        said = text(value)
        if not said and isinstance(value, int):
            raise LineError(f"{name} is a number of too many digits")
        return said

    @staticmethod
    def _refuse(name: str, value: Any) -> str:
        raise LineError(f"{name} is {type_of(value)} where text belongs")


def answer(value: Any) -> str:
    """InfoSeek writes numbers as objects; their `wikidata` value is what the field compares.

    Of other objects (VQAv2 writes `{answer: …, answer_confidence: …}`) the text is read, else all.
    Source: ReT, inference.py (str(answer["wikidata"])).
    """
    if isinstance(value, dict):
        if value.get("wikidata") is None:
            inner = (value.get(key) for key in ("answer", "text", "value", "name"))
            if said := next((one for one in inner if isinstance(one, str) and one.strip()), ""):
                return _utf8(said.strip())
        whole = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
        return _utf8(whole if value.get("wikidata") is None else str(value["wikidata"]))
    if isinstance(value, str):
        return _utf8(value.strip())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return text(value)


def record(line: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The nine fields of a line as they are written, and what is odd about them.

    Raises:
        LineError: it cannot be a record; the text is the reason under which it is counted.
    """
    odd = Oddities()
    line = by_name(line)
    rows = _passages(line, odd)
    if not rows:
        raise LineError(NO_POSITIVE)
    ids, texts, shown = (list(column) for column in zip(*rows, strict=True))
    fields = {name: odd.scalar(name, line.get(name)) for name in SCALARS}
    if not fields["data_id"] and isinstance(given := line.get("data_id"), str | float) and given:
        odd.append("values of data_id say that there is none (NA, NaN): ids were made")
    fields["image_path"] = odd.picture("image_path", line.get("image_path"))
    if not fields["image_path"] and (others := _other_pictures(line)):
        odd.append(f"records name no image_path but {others}, which is not read: rename the key")
    return {
        **fields,
        "answer": odd.answers(line.get("answer")),
        "passage_id": ids,
        "passage_text": texts,
        "passage_image_path": shown,
    }, odd


def _other_pictures(line: Mapping[str, Any]) -> str:
    """Keys that hold a picture under a name that other data sets give it."""
    return ", ".join(
        str(key)
        for key, value in line.items()
        if key not in _NAMES and heading(key) in OTHER_PICTURES and value
    )


def passages(line: Mapping[str, Any]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(id, text, picture) of each passage of a line, and what is odd about them.

    Raises:
        LineError: the lists are of unequal length, or hold what is no text.
    """
    odd = Oddities()
    return _passages(by_name(line), odd), odd


def _passages(line: Mapping[str, Any], odd: Oddities) -> list[tuple[str, str, str]]:
    """A missing text or picture list means: none has one."""
    columns = [odd.elements(name, line.get(name)) for name in PASSAGE_FIELDS]
    ids = columns[0]
    if not any(ids):
        return []
    for number in (1, 2):
        if not any(columns[number]):
            columns[number] = [""] * len(ids)
        if len(columns[number]) != len(ids):
            raise LineError(UNEQUAL)
    rows = list(zip(*columns, strict=True))
    for name, said, shown in rows:
        if not name and (said or shown):
            odd.append("positives have no id and were left out")
    return [(name, said, shown) for name, said, shown in rows if name]


def by_name(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The line with its keys as they are called here: without blanks, marks and capitals.

    A key that is written as it should be comes before one that only resembles it.
    """
    if line.keys() >= _NAMES or all(key in _NAMES for key in line):
        return line
    extra = {heading(key): value for key, value in line.items() if key not in _NAMES}
    return {**{key: value for key, value in extra.items() if key in _NAMES}, **line}


def heading(name: Any) -> str:
    """The name of a column or key: composed letters, in small ones, `_` for blanks."""
    said = unicodedata.normalize("NFC", str(name)).strip(media_paths.INVISIBLE)
    return "_".join(said.lower().split())


def from_m2kr(row: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """A row of an M2KR `*_data` file under our nine names, its dirt untouched.

    `gold_answer` stands in where `answers` is empty; `pos_item_contents` may be absent.
    """
    line = {ours: row.get(theirs) for ours, theirs in M2KR_DATA.items()}
    if not Oddities().answers(line["answer"]):
        line["answer"] = row.get("gold_answer")
    if len(items(line["passage_text"])) != len(items(line["passage_id"])):
        line["passage_text"] = None  # the passage file has the texts
    return {**line, "dataset_id": dataset, "passage_image_path": None}


def passage_from_m2kr(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an M2KR `*_passages` file under our names."""
    return {ours: row.get(theirs) for ours, theirs in M2KR_PASSAGES.items()}
