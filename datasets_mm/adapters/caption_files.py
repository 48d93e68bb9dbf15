"""Caption files as a sequence of objects: JSON in its several forms, JSON lines, tables.

Each object is either yielded or counted as skipped; which of its keys hold the medium and the
captions is decided in caption_labels.py and caption_keys.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets_mm.adapters import SourceReport, parse_json
from datasets_mm.adapters.caption_keys import RecipeKeys, is_caption
from datasets_mm.adapters.caption_labels import MEDIA, SPLIT
from datasets_mm.adapters.languages import SPLITS, split_name
from datasets_mm.adapters.m2kr_fields import normalize_name, scalar_text
from datasets_mm.adapters.nested_values import BLOCKS
from datasets_mm.adapters.text_files import (
    note_spreadsheet_errors,
    parse_table,
    read_text,
    readable_rows,
)
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
class CaptionItem:
    """One object of a caption file. `split`: of its file or list, "" where none is named."""

    position: str
    content: Mapping[str, Any]
    split: str = ""


def read_items(
    path: Path, name: str, keys: RecipeKeys, encoding: str, report: SourceReport
) -> Iterator[CaptionItem]:
    """Yield every object of a file; other values are counted as skipped.

    Raises:
        SourceError: the file is neither JSON nor a table of captions.
    """
    text = read_text(path, name, report, encoding)
    ending = path.suffix.lower()
    is_json = text.lstrip()[:1] in {"{", "["}
    if ending in LINES and not text.lstrip().startswith("["):
        yield from _read_json_lines(text, name, report)
    elif ending in TABLES and not is_json:
        yield from _read_table(text, name, keys, report)
    else:
        yield from _read_document(text, name, keys, report)


def _read_json_lines(text: str, name: str, report: SourceReport) -> Iterator[CaptionItem]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        position = f"{name} line {number}"
        try:
            value = parse_json(line, position, report)
        except (ValueError, RecursionError):
            report.skip(NOT_JSON, position)
            continue
        if isinstance(value, dict):
            yield CaptionItem(position, value)
        else:
            report.skip(NO_OBJECT, position)


# -- tables ------------------------------------------------------------------------------------


def _read_table(
    text: str, name: str, keys: RecipeKeys, report: SourceReport
) -> Iterator[CaptionItem]:
    """Rows of a table with a heading, or Flickr's lines."""
    if TOKEN.match(text.lstrip("\n")):
        yield from _read_token_lines(text, name, report)
        return
    table = parse_table(text, name, report)
    names = [normalize_name(cell) for cell in table.header]
    recipe_columns = {
        normalize_name(path) for path in (*keys.caption, keys.split, keys.media) if path
    }
    if not (keys.media or set(names) & set(MEDIA)) or not (
        keys.caption or keys.optional or any(map(is_caption, names))
    ):
        raise SourceError(
            f"{name} has no column of media or none of captions (it has {', '.join(names)}); "
            "name them `media` and `caption` in its first line"
        )
    for column in dict.fromkeys(names):
        if names.count(column) > 1 and (
            column in recipe_columns or column in MEDIA or is_caption(column)
        ):
            raise SourceError(
                f"{name} has {names.count(column)} columns {column!r}; rename all but one"
            )
    note_spreadsheet_errors(table, report)
    for row in readable_rows(table, report):
        yield CaptionItem(f"{name} row {row.number}", dict(zip(names, row.cells, strict=True)))


def _read_token_lines(text: str, name: str, report: SourceReport) -> Iterator[CaptionItem]:
    for number, line in enumerate(text.split("\n"), 1):
        if match := TOKEN.match(line):
            caption = line[match.end() :]
            yield CaptionItem(
                f"{name} line {number}", {"media": match.group(1), "caption": caption}
            )
        elif line.strip():
            report.skip("line is no picture with a number, a tab and a caption", f"{name} {number}")


# -- one JSON document -------------------------------------------------------------------------


def _read_document(
    text: str, name: str, keys: RecipeKeys, report: SourceReport
) -> Iterator[CaptionItem]:
    try:
        document = parse_json(text, name, report)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error) and text.lstrip().startswith("{"):
            yield from _read_json_lines(text, name, report)  # JSON lines under the ending of JSON
            return
        raise SourceError(f"{name} is not JSON ({error}); mend it or leave it out") from None
    if keys.stem and isinstance(document, dict):  # the file is one label: its name is the medium's
        yield CaptionItem(name, document)
        return
    context = _ReadContext(report, name, optional=keys.optional)
    for number, (content, split) in enumerate(_list_objects(document, "", context), 1):
        yield CaptionItem(f"{name} item {number}", content, split)


Objects = Iterator[tuple[Mapping[str, Any], str]]


@dataclass(frozen=True, slots=True)
class _ReadContext:
    """The file being read. `optional`: media without a caption are yielded too."""

    report: SourceReport
    name: str
    optional: bool

    def skip(self, reason: str, position: str = "") -> None:
        """Count an object that is left out."""
        self.report.skip(reason, f"{self.name} {position}".rstrip())


def _list_objects(document: Any, split: str, context: _ReadContext) -> Objects:
    """(object, split) of each in a list, in COCO's two lists, in `{medium: captions}`, or one."""
    if isinstance(document, dict):
        yield from _objects_in_document(document, split, context)
        return
    for line in document if isinstance(document, list) else [document]:
        if isinstance(line, dict):
            yield line, split
        elif context.optional and isinstance(line, str) and is_medium(line):
            yield {"media": line}, split
        else:
            context.skip(NO_OBJECT)


def _objects_in_document(document: Mapping[str, Any], split: str, context: _ReadContext) -> Objects:
    names = {normalize_name(key): value for key, value in document.items()}
    split = _split_of_file(names) or split
    parts = {key: value for key, value in names.items() if key in SPLITS and _has_entries(value)}
    media, captions = (_first_list_key(names, keys) for keys in (MEDIA_LISTS, CAPTION_LISTS))
    if parts and not _has_medium(names):
        for key, value in parts.items():
            yield from _list_objects(value, split_name(key), context)
    elif media and captions and media != captions:
        yield from _join_captions(names[media], names[captions], split, context)
    elif _has_medium(names) and not _is_mapping(names):
        yield document, split
    elif lists := [key for key in LISTS if _has_entries(names.get(key))]:
        if len(lists) > 1:
            context.report.note(OTHER_LISTS, f"{context.name}: {', '.join(lists[1:])}")
        yield from _list_objects(names[lists[0]], split, context)
    elif any(is_caption(key) and not isinstance(value, dict) for key, value in names.items()):
        yield document, split
    else:
        yield from _objects_in_mapping(document, split, context)


def _has_entries(value: Any) -> bool:
    """A list, or a mapping of objects."""
    if isinstance(value, dict):
        return bool(value) and all(isinstance(inner, dict | list | str) for inner in value.values())
    return isinstance(value, list) and bool(value)


def _split_of_file(names: Mapping[str, Any]) -> str:
    """The split of a whole file: `split: train`, or TextCaps' `dataset_type: train`."""
    for key in (*SPLIT, "dataset_type"):
        value = scalar_text(names.get(key))
        if normalize_name(value) in SPLITS:
            return split_name(value)
    return ""


def _has_medium(names: Mapping[str, Any]) -> bool:
    """The object itself, or an object in it, names a medium."""
    inner = [value for key, value in names.items() if isinstance(value, dict) and key not in BLOCKS]
    return any(
        scalar_text(level.get(key))
        for level in (names, *inner)
        for key in level
        if normalize_name(key) in MEDIA
    )


def _is_mapping(names: Mapping[str, Any]) -> bool:
    """Every value is an object with a medium of its own, under names that mean none."""
    objects = {key: value for key, value in names.items() if key not in BLOCKS}
    return len(objects) > 1 and all(
        isinstance(value, dict)
        and key not in MEDIA
        and any(normalize_name(k) in MEDIA for k in value)
        for key, value in objects.items()
    )


def _first_list_key(names: Mapping[str, Any], keys: Sequence[str]) -> str:
    lists = (key for key in keys if isinstance(names.get(key), list))
    return next((key for key in lists if any(isinstance(item, dict) for item in names[key])), "")


def _objects_in_mapping(document: Mapping[str, Any], split: str, context: _ReadContext) -> Objects:
    """`{medium: captions}` or `{medium: {sentences: …}}`."""
    entries = {key: value for key, value in document.items() if normalize_name(key) not in BLOCKS}
    has_endings = any(is_medium(key) for key in entries)
    for key, value in entries.items():
        if has_endings and not is_medium(key):
            context.skip("entry names no medium", key[:40])
        elif isinstance(value, dict):
            names_medium = any(
                normalize_name(k) in MEDIA and is_medium(scalar_text(v)) for k, v in value.items()
            )
            fields = {k: v for k, v in value.items() if normalize_name(k) not in MEDIA}
            yield (
                (value if names_medium and not is_medium(key) else {**fields, "media": key}),
                split,
            )
        else:
            yield {"media": key, "captions": value}, split


def _join_captions(
    media: Sequence[Any], captions: Sequence[Any], split: str, context: _ReadContext
) -> Objects:
    """Each caption with its medium; media without a caption are counted, or handed on too."""
    files = [item for item in media if isinstance(item, dict)]
    for _ in range(len(media) - len(files)):
        context.skip(NO_OBJECT)
    tables: dict[str, dict[str, Mapping[str, Any]]] = {}
    captioned: set[int] = set()
    for line in captions:
        if not isinstance(line, dict):
            context.skip(NO_OBJECT)
            continue
        reference = next((key for key in REFERENCES if scalar_text(line.get(key))), "")
        if reference not in tables:
            tables[reference] = _media_by_id(files, reference, context)
        file = tables[reference].get(scalar_text(line.get(reference)) if reference else "", {})
        if not reference and len(files) == 1:
            file = files[0]
        captioned.add(id(file))
        yield {**file, **{k: v for k, v in line.items() if k != "id"}}, split
    for file in files:
        if id(file) in captioned:
            continue
        if context.optional or any(is_caption(normalize_name(key)) for key in file):
            yield file, split
        else:
            context.skip(NO_CAPTION, scalar_text(file.get("id")))


def _media_by_id(
    files: Sequence[Mapping[str, Any]], reference: str, context: _ReadContext
) -> dict[str, Mapping[str, Any]]:
    """Key of a reference -> medium: by the same key where media have it, else by `id`."""
    key = reference if any(reference in file for file in files) else "id"
    media: dict[str, Mapping[str, Any]] = {}
    for file in files:
        media_id = scalar_text(file.get(key))
        if media_id and media.setdefault(media_id, file) is not file:
            context.report.note(SAME_ID, f"{context.name} {media_id}")
    return media
