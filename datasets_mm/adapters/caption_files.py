"""Files of captions as objects: JSON in its several forms, JSON lines, tables.

Apart from the choice of keys (caption_keys.py): here it is only decided what an object is, and that
each is either handed on or counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets_mm.adapters import SourceReport, parse_json
from datasets_mm.adapters.caption_keys import MEDIA, SPLIT, Keys, is_caption
from datasets_mm.adapters.languages import SPLITS, split_name
from datasets_mm.adapters.m2kr_fields import heading, text
from datasets_mm.adapters.nested_values import BLOCKS
from datasets_mm.adapters.text_files import parse_table, read_text, skip_problems, tell_lost_cells
from datasets_mm.media_types import is_medium
from datasets_mm.sources.fingerprint import SourceError

MEDIA_LISTS: Final = ("images", "videos")
CAPTION_LISTS: Final = ("annotations", "sentences", "captions")
"""COCO's two lists and MSR-VTT's."""
REFERENCES: Final = (
    "image_id",
    "video_id",
    "img_id",
    "imageid",
    "videoid",
    "file_name",
    "filename",
)
LISTS: Final = (
    "data", "annotations", "items", "records", "videos", "images", "samples", "database",
    "captions",
)  # fmt: skip
"""Where a JSON file keeps its objects, if it is not one itself."""
TABLES: Final = frozenset({".csv", ".tsv", ".tab", ".txt", ".token", ".psv"})
LINES: Final = frozenset({".jsonl", ".ndjson", ".jsonlines"})
TOKEN: Final = re.compile(r"^(\S+)#\d+\t")
"""Flickr's own form: `1000092795.jpg#0<tab>caption`, without a heading."""
NOT_JSON: Final = "line is not JSON"
NO_OBJECT: Final = "line is not an object"
NO_CAPTION: Final = "no caption"
OTHER_LISTS: Final = "files have further lists of objects, which were not read"
SAME_ID: Final = "media share an id, of which the first was taken"


@dataclass(frozen=True, slots=True)
class Item:
    """One object. `split`: what its file says of it beside its own keys."""

    where: str
    content: Mapping[str, Any]
    split: str = ""


def read(path: Path, name: str, keys: Keys, encoding: str, report: SourceReport) -> Iterator[Item]:
    """Every object of a file; what is none is counted.

    Raises:
        SourceError: the file is neither JSON nor a table of captions.
    """
    said = read_text(path, name, report, encoding)
    ending = path.suffix.lower()
    is_json = said.lstrip()[:1] in {"{", "["}
    if ending in LINES and not said.lstrip().startswith("["):
        yield from _json_lines(said, name, report)
    elif ending in TABLES and not is_json:
        yield from _table(said, name, keys, report)
    else:
        yield from _document(said, name, keys, report)


def _json_lines(said: str, name: str, report: SourceReport) -> Iterator[Item]:
    for number, line in enumerate(said.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            value = parse_json(line, where, report)
        except (ValueError, RecursionError):
            report.skip(NOT_JSON, where)
            continue
        if isinstance(value, dict):
            yield Item(where, value)
        else:
            report.skip(NO_OBJECT, where)


# -- tables ------------------------------------------------------------------------------------


def _table(said: str, name: str, keys: Keys, report: SourceReport) -> Iterator[Item]:
    """Rows of a table with a heading, or Flickr's lines."""
    if TOKEN.match(said.lstrip("\n")):
        yield from _token_lines(said, name, report)
        return
    table = parse_table(said, name, report)
    names = [heading(cell) for cell in table.header]
    chosen = {heading(path) for path in (*keys.caption, keys.split, keys.media) if path}
    if not (keys.media or set(names) & set(MEDIA)) or not (
        keys.caption or keys.optional or any(map(is_caption, names))
    ):
        raise SourceError(
            f"{name} has no column of media or none of captions (it has {', '.join(names)}); "
            "name them `media` and `caption` in its first line"
        )
    for one in dict.fromkeys(names):
        if names.count(one) > 1 and (one in chosen or one in MEDIA or is_caption(one)):
            raise SourceError(f"{name} has {names.count(one)} columns {one!r}; rename all but one")
    tell_lost_cells(table, report)
    for row in skip_problems(table, report):
        yield Item(f"{name} row {row.number}", dict(zip(names, row.cells, strict=True)))


def _token_lines(said: str, name: str, report: SourceReport) -> Iterator[Item]:
    for number, line in enumerate(said.split("\n"), 1):
        if match := TOKEN.match(line):
            caption = line[match.end() :]
            yield Item(f"{name} line {number}", {"media": match.group(1), "caption": caption})
        elif line.strip():
            report.skip("line is no picture with a number, a tab and a caption", f"{name} {number}")


# -- one JSON document -------------------------------------------------------------------------


def _document(said: str, name: str, keys: Keys, report: SourceReport) -> Iterator[Item]:
    try:
        whole = parse_json(said, name, report)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error) and said.lstrip().startswith("{"):
            yield from _json_lines(said, name, report)  # JSON lines under the ending of JSON
            return
        raise SourceError(f"{name} is not JSON ({error}); mend it or leave it out") from None
    if keys.stem and isinstance(whole, dict):  # the file is one label: its name is the medium's
        yield Item(name, whole)
        return
    read = _Reading(report, name, optional=keys.optional)
    for number, (content, split) in enumerate(_objects(whole, "", read), 1):
        yield Item(f"{name} item {number}", content, split)


Objects = Iterator[tuple[Mapping[str, Any], str]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """A file that is read. `optional`: media without a caption are handed on."""

    report: SourceReport
    name: str
    optional: bool

    def skip(self, reason: str, at: str = "") -> None:
        """Count what is left out."""
        self.report.skip(reason, f"{self.name} {at}".rstrip())


def _objects(whole: Any, split: str, reading: _Reading) -> Objects:
    """(object, split) of each in a list, in COCO's two lists, in `{medium: captions}`, or one."""
    if isinstance(whole, dict):
        yield from _of_object(whole, split, reading)
        return
    for line in whole if isinstance(whole, list) else [whole]:
        if isinstance(line, dict):
            yield line, split
        elif reading.optional and isinstance(line, str) and is_medium(line):
            yield {"media": line}, split
        else:
            reading.skip(NO_OBJECT)


def _of_object(whole: Mapping[str, Any], split: str, reading: _Reading) -> Objects:
    names = {heading(key): value for key, value in whole.items()}
    split = _split_of(names) or split
    parts = {key: value for key, value in names.items() if key in SPLITS and _holds(value)}
    media, captions = (_list_among(names, keys) for keys in (MEDIA_LISTS, CAPTION_LISTS))
    if parts and not _has_medium(names):
        for key, value in parts.items():
            yield from _objects(value, split_name(key), reading)
    elif media and captions and media != captions:
        yield from _joined(names[media], names[captions], split, reading)
    elif _has_medium(names) and not _is_mapping(names):
        yield whole, split
    elif lists := [key for key in LISTS if _holds(names.get(key))]:
        if len(lists) > 1:
            reading.report.note(OTHER_LISTS, f"{reading.name}: {', '.join(lists[1:])}")
        yield from _objects(names[lists[0]], split, reading)
    elif any(is_caption(key) and not isinstance(value, dict) for key, value in names.items()):
        yield whole, split
    else:
        yield from _mapping(whole, split, reading)


def _holds(value: Any) -> bool:
    """A list, or a mapping of objects."""
    if isinstance(value, dict):
        return bool(value) and all(isinstance(inner, dict | list | str) for inner in value.values())
    return isinstance(value, list) and bool(value)


def _split_of(names: Mapping[str, Any]) -> str:
    """The split of a whole file: `split: train`, or TextCaps' `dataset_type: train`."""
    for key in (*SPLIT, "dataset_type"):
        said = text(names.get(key))
        if heading(said) in SPLITS:
            return split_name(said)
    return ""


def _has_medium(names: Mapping[str, Any]) -> bool:
    """The object itself, or an object in it, names a medium."""
    inner = [value for key, value in names.items() if isinstance(value, dict) and key not in BLOCKS]
    return any(
        text(level.get(key)) for level in (names, *inner) for key in level if heading(key) in MEDIA
    )


def _is_mapping(names: Mapping[str, Any]) -> bool:
    """Every value is an object with a medium of its own, under names that mean none."""
    objects = {key: value for key, value in names.items() if key not in BLOCKS}
    return len(objects) > 1 and all(
        isinstance(value, dict) and key not in MEDIA and any(heading(k) in MEDIA for k in value)
        for key, value in objects.items()
    )


def _list_among(names: Mapping[str, Any], keys: Sequence[str]) -> str:
    lists = (key for key in keys if isinstance(names.get(key), list))
    return next((key for key in lists if any(isinstance(one, dict) for one in names[key])), "")


def _mapping(whole: Mapping[str, Any], split: str, reading: _Reading) -> Objects:
    """`{medium: captions}` or `{medium: {sentences: …}}`."""
    entries = {key: value for key, value in whole.items() if heading(key) not in BLOCKS}
    has_endings = any(is_medium(key) for key in entries)
    for key, value in entries.items():
        if has_endings and not is_medium(key):
            reading.skip("entry names no medium", key[:40])
        elif isinstance(value, dict):
            named = any(heading(k) in MEDIA and is_medium(text(v)) for k, v in value.items())
            own = {k: v for k, v in value.items() if heading(k) not in MEDIA}
            yield (value if named and not is_medium(key) else {**own, "media": key}), split
        else:
            yield {"media": key, "captions": value}, split


def _joined(
    media: Sequence[Any], captions: Sequence[Any], split: str, reading: _Reading
) -> Objects:
    """Each caption with its medium; media without a caption are counted, or handed on too."""
    files = [item for item in media if isinstance(item, dict)]
    for _ in range(len(media) - len(files)):
        reading.skip(NO_OBJECT)
    tables: dict[str, dict[str, Mapping[str, Any]]] = {}
    used: set[int] = set()
    for line in captions:
        if not isinstance(line, dict):
            reading.skip(NO_OBJECT)
            continue
        reference = next((key for key in REFERENCES if text(line.get(key))), "")
        if reference not in tables:
            tables[reference] = _by_id(files, reference, reading)
        file = tables[reference].get(text(line.get(reference)) if reference else "", {})
        if not reference and len(files) == 1:
            file = files[0]
        used.add(id(file))
        yield {**file, **{k: v for k, v in line.items() if k != "id"}}, split
    for file in files:
        if id(file) in used:
            continue
        if reading.optional or any(is_caption(heading(key)) for key in file):
            yield file, split
        else:
            reading.skip(NO_CAPTION, text(file.get("id")))


def _by_id(
    files: Sequence[Mapping[str, Any]], reference: str, reading: _Reading
) -> dict[str, Mapping[str, Any]]:
    """What captions refer to -> the medium: by the same key where media have it, else by `id`."""
    key = reference if any(reference in file for file in files) else "id"
    found: dict[str, Mapping[str, Any]] = {}
    for file in files:
        number = text(file.get(key))
        if number and found.setdefault(number, file) is not file:
            reading.report.note(SAME_ID, f"{reading.name} {number}")
    return found
