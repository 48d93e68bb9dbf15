"""Reads captions of pictures or videos: JSON, JSON lines or tables of (media, captions).

Lines about one medium become one record with several captions, so one line a caption (as Flickr's
and COCO's tables are) and one line a medium mean the same. A record has no passages: `answer` holds
the captions and `dataset_id` their language. One JSON file for each video, as AI-Hub hands them
out, is read through a pattern in `uri`. Several splits or languages are never mixed in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from datasets_mm import store
from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.caption_files import read
from datasets_mm.adapters.caption_keys import AmbiguousError, Keys, Label, expand, label
from datasets_mm.adapters.fields import LineError
from datasets_mm.adapters.languages import language_code, split_name
from datasets_mm.location import Location
from datasets_mm.recipe import Source
from datasets_mm.source import SourceError

REVISION = 2
ALIKE: Final = "media all have the same caption: is its key the right one?"

Say = Callable[[int, int, str], None]


def write(found: Location, folder: Path, progress: Say) -> SourceReport:
    """Write one record for each medium and language.

    Raises:
        SourceError: a file is no table of captions at all, or several keys, splits or languages
            may be meant and the recipe names none.
    """
    report = SourceReport()
    labels = _chosen(list(_labels(found, report, progress)), found.source, report)
    media: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for one in labels:
        media.setdefault((one.media, one.language), (one.id, []))[1].extend(one.captions)
    store.corpus_writer(folder).close()
    records = store.record_writer(folder)
    for (path, language), (name, captions) in media.items():
        data_id = name or f"{path}.{language}".rstrip(".")
        records.add(record(data_id, path, list(dict.fromkeys(captions)), language))
    records.close()
    store.sort_by(folder / "records.arrow", "data_id")
    report.content = store.content_digest(folder / "records.arrow")
    report.facts = {"captions": str(sum(len(captions) for _, captions in media.values()))}
    distinct = {caption for _, captions in media.values() for caption in captions}
    if len(media) > 2 and len(distinct) == 1:
        report.note(f"{len(media)} {ALIKE}", next(iter(distinct))[:80])
    return report


def record(data_id: str, media: str, captions: list[str], language: str) -> dict[str, Any]:
    """The nine fields of a medium with its captions."""
    nothing: dict[str, Any] = {"instruction": "", "question": ""}
    lists = ("passage_id", "passage_image_path", "passage_text")
    return nothing | {name: [] for name in lists} | {
        "answer": captions, "data_id": data_id, "dataset_id": language, "image_path": media,
    }  # fmt: skip


Placed = tuple[str, Label]
"""Where an object stands, and what it says."""


def _labels(found: Location, report: SourceReport, progress: Say) -> Iterator[Placed]:
    source = found.source
    keys = Keys(source.caption, source.media, source.split_key, source.dataset)
    for number, path in enumerate(found.records, 1):
        for item in read(path, found.name(path), keys, source.encoding, report):
            for content in expand(item.content):
                try:
                    one = label(content, keys, item.split)
                except AmbiguousError as error:
                    raise SourceError(f"{item.where}: {error}") from None
                except LineError as reason:
                    report.skip(str(reason), item.where)
                    continue
                for note in dict.fromkeys(one.notes):
                    report.note(note, item.where)
                yield item.where, one
        progress(number, len(found.records), "files")


def _chosen(labels: Sequence[Placed], source: Source, report: SourceReport) -> list[Label]:
    """The labels of the splits and languages that are meant; the others are counted."""
    splits = [split_name(name) for name in source.split]
    labels = _of_one(labels, "split", splits, report)
    languages = [language_code(name) for name in source.languages]
    if not languages and source.dataset in {one.language for _, one in labels}:
        languages = [source.dataset]
    return [one for _, one in _of_one(labels, "language", languages, report)]


def _of_one(
    labels: Sequence[Placed], name: str, wanted: Sequence[str], report: SourceReport
) -> list[Placed]:
    """The labels with a wanted value.

    Raises:
        SourceError: there are several values, and none is wanted in particular.
    """
    counts = Counter(str(getattr(one, name)) for _, one in labels)
    if not wanted and len(counts) > 1:
        sizes = ", ".join(f"{value or 'none named'} {n:,}" for value, n in counts.most_common())
        key = "split" if name == "split" else "languages"
        first = next(filter(None, counts))
        raise SourceError(
            f"the labels are of several {name}s ({sizes}); choose with "
            f'{key} = ["{first}"] in [source]'
        )
    kept = []
    for where, one in labels:
        value = str(getattr(one, name))
        if wanted and value not in wanted:
            report.skip(f"{name} {value or 'none'}: the recipe chooses another", where)
        else:
            kept.append((where, one))
    return kept
