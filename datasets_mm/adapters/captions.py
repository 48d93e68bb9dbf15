"""Reads captions of pictures or videos: JSON, JSON lines or CSV of (media, captions[, language]).

Lines about one medium become one record with several captions, so one line a caption (as Flickr's
and COCO's tables are) and one line a medium mean the same. A record has no passages: `answer` holds
the captions and `dataset_id` their language. One JSON file for each video, as AI-Hub hands them
out, is read through a pattern in `uri`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from datasets_mm import store
from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.fields import LineError, items, text
from datasets_mm.adapters.textfile import delimiter_of, read_text
from datasets_mm.location import Location
from datasets_mm.paths import clean
from datasets_mm.source import SourceError

REVISION = 1

MEDIA: Final = (
    "media", "image_path", "video_path", "image", "video", "img_path", "file_name", "filename",
    "file", "path", "video_name", "video_id",
)  # fmt: skip
"""What the medium's path is called, the first that holds text."""
CAPTIONS: Final = (
    "captions", "caption", "caption_ko", "caption_kor", "sentences", "sentence", "descriptions",
    "description", "answer", "answers", "text", "raw",
)  # fmt: skip
LANGUAGE: Final = ("language", "lang")
NAMES: Final = ("data_id", "id", "annotation_id")
LISTS: Final = ("data", "annotations", "items", "records", "videos", "images", "samples")
"""Where a JSON file keeps its list of objects, if it is not one itself."""

Say = Callable[[int, int, str], None]


def write(found: Location, folder: Path, progress: Say) -> SourceReport:
    """Write one record for each medium and language.

    Raises:
        SourceError: a file is no table of captions at all.
    """
    report = SourceReport()
    known: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for number, path in enumerate(found.records, 1):
        for where, line in _lines(path, found.name(path), report):
            try:
                media, language, name, captions = _parts(line, found.source.dataset)
            except LineError as reason:
                report.skip(str(reason), where)
                continue
            known.setdefault((media, language), (name, []))[1].extend(captions)
        progress(number, len(found.records), "files")
    store.corpus_writer(folder).close()
    records = store.record_writer(folder)
    for (media, language), (name, captions) in known.items():
        data_id = name or f"{media}.{language}".rstrip(".")
        records.add(record(data_id, media, list(dict.fromkeys(captions)), language))
    records.close()
    store.sort_by(folder / "records.arrow", "data_id")
    report.content = store.content_digest(folder / "records.arrow")
    report.facts = {"captions": str(sum(len(said) for _, said in known.values()))}
    return report


def record(data_id: str, media: str, captions: list[str], language: str) -> dict[str, Any]:
    """The nine fields of a medium with its captions."""
    nothing: dict[str, Any] = {"instruction": "", "question": ""}
    lists = ("passage_id", "passage_image_path", "passage_text")
    return nothing | {name: [] for name in lists} | {
        "answer": captions, "data_id": data_id, "dataset_id": language, "image_path": media,
    }  # fmt: skip


def _parts(line: Mapping[str, Any], language: str) -> tuple[str, str, str, list[str]]:
    """(medium, language, name, captions) of one object."""
    flat = _flat(line)
    media = clean(_first(flat, MEDIA))
    if not media:
        raise LineError(f"no medium under any of {', '.join(MEDIA[:5])}, …")
    captions = [said for key, value in flat.items() if _is_caption(key) for said in _said(value)]
    if not captions:
        raise LineError("no caption")
    # Of one line a caption the ids are the captions', and any of them would name the medium.
    name = _first(flat, NAMES) if "captions" in flat else ""
    return media, _first(flat, LANGUAGE) or language, name, captions


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """Lower-case keys; those one level deeper (`video: {file_name: …}`) join, after its own."""
    flat = {str(key).strip().lower(): value for key, value in line.items()}
    for value in list(flat.values()):
        if isinstance(value, dict):
            for key, inner in value.items():
                flat.setdefault(str(key).strip().lower(), inner)
    return flat


def _first(flat: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((said for name in names if (said := text(flat.get(name)))), "")


def _is_caption(key: str) -> bool:
    """`caption_1` to `caption_5` are captions too."""
    return key in CAPTIONS or key.rstrip("0123456789").rstrip("_") in {"caption", "sentence"}


def _said(value: Any) -> list[str]:
    """Captions of a scalar, a list, or a list of objects (`sentences: [{raw: …}]`)."""
    found = []
    for item in items(value):
        if isinstance(item, dict):
            found += [text(inner) for key, inner in item.items() if _is_caption(str(key).lower())]
        else:
            found.append(text(item))
    return [" ".join(said.split()) for said in found if said]


def _lines(path: Path, name: str, report: SourceReport) -> Iterator[tuple[str, Mapping[str, Any]]]:
    said = read_text(path, name, report)
    match path.suffix.lower():
        case ".csv" | ".tsv":
            yield from _table(said, name, report)
        case ".jsonl" | ".ndjson":
            for number, line in enumerate(said.split("\n"), 1):
                if line.strip():
                    yield from _json_line(line, f"{name} line {number}", report)
        case _:
            yield from _document(said, name)


def _table(said: str, name: str, report: SourceReport) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of a CSV or TSV with a heading."""
    reader = csv.DictReader(io.StringIO(said, newline=""), delimiter=delimiter_of(said), restkey="")
    names = [str(column).strip().lower() for column in reader.fieldnames or ()]
    if not set(names) & set(MEDIA) or not any(map(_is_caption, names)):
        raise SourceError(
            f"{name} has no column of media or none of captions (it has {', '.join(names)}); "
            "name them `media` and `caption` in its first line"
        )
    try:
        for row in reader:
            yield f"{name} line {reader.line_num}", row
    except csv.Error as error:
        report.skip("rest of a damaged CSV", f"{name} line {reader.line_num} ({error})")


def _json_line(
    line: str, where: str, report: SourceReport
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        report.skip("line is not JSON", where)
        return
    if isinstance(value, dict):
        yield where, value
    else:
        report.skip("line is not an object", where)


def _document(said: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A JSON file: a list of objects, `{medium: captions}`, COCO's two lists, or one object."""
    try:
        whole = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} is not JSON ({error}); mend it or leave it out") from None
    for number, line in enumerate(_objects(whole), 1):
        yield f"{name} item {number}", line


def _objects(whole: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(whole, list):
        yield from (line if isinstance(line, dict) else {} for line in whole)
        return
    if not isinstance(whole, dict):
        yield {}
        return
    lists = [key for key in LISTS if isinstance(whole.get(key), list)]
    if {"images", "annotations"} <= set(lists):
        files = {image.get("id"): image for image in whole["images"] if isinstance(image, dict)}
        for line in whole["annotations"]:
            if isinstance(line, dict):
                yield {**files.get(line.get("image_id"), {}), **line}
    elif lists and not _first(_flat(whole), MEDIA):
        yield from _objects(whole[lists[0]])
    elif _first(_flat(whole), MEDIA):
        yield whole
    else:
        yield from ({"media": media, "captions": said} for media, said in whole.items())
