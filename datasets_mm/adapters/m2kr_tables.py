"""Writes the record and corpus tables of an M2KR source, whatever its layout.

Decides which passages form the corpus, where positives without text get it, and which text an id
with several texts keeps. The result does not depend on the order of reading: texts are chosen by
content, and both tables are sorted by id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from datasets_mm.adapters import SourceReport
from datasets_mm.adapters.m2kr_fields import PASSAGE_FIELDS, LineError, parse_passages, parse_record
from datasets_mm.adapters.written_fields import WrittenFields
from datasets_mm.atomic_files import atomic_path
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location
from datasets_mm.storage import arrow_store
from datasets_mm.storage.corpus import map_table

NOT_IN_POOL = "positives are not among the passages of the corpus and can never be found"
OTHER_TEXT = "positives have another text than the corpus has under their id"
SEVERAL_TEXTS = "passage ids have several texts or pictures; one of each was kept"


class M2KRWriter:
    """Writer of both tables: passages first, then `finish_passages`, then records, then `close`."""

    def __init__(self, location: Location, folder: Path, report: SourceReport) -> None:
        self.report = report
        self._folder = folder
        self._location = location
        self._pool = CorpusBuilder(folder)
        self._records = arrow_store.record_writer(folder)
        self._written = WrittenFields()
        self._has_passage_files = bool(location.passages)
        """There is a passage file; otherwise the positives are the corpus."""
        self._is_fixed_corpus = self._has_passage_files and location.source.pool == "passages"
        self._texts: pa.ChunkedArray | None = None
        self._lacks_texts = False
        """A positive has no text; the corpus, which is not whole yet, may have it."""

    def add_passage(self, position: str, line: Mapping[str, Any]) -> None:
        """One line of a passage file."""
        with self._count_errors(position):
            rows, oddities = parse_passages(line)
            if not rows:
                raise LineError("passage without id")
            self._note(oddities, position)
            for row in rows:
                self._pool.add(*row)

    def finish_passages(self) -> None:
        """End of the passage files; an empty corpus raises SourceError."""
        if self._has_passage_files and not self._pool.digests:
            names = ", ".join(map(self._location.name, self._location.passages))
            skipped = ", ".join(f"{n} {reason}" for reason, n in self.report.skipped.items())
            raise SourceError(
                f"the corpus is empty: {names} holds no usable passage "
                f"({skipped or 'it is empty'}); copy or download the file again"
            )
        self._pool.is_fixed = self._has_passage_files
        if self._is_fixed_corpus:
            self._pool.close(self.report)
            self._texts = map_table(self._folder / "corpus.arrow")["passage_text"]

    def add_record(self, position: str, line: Mapping[str, Any]) -> None:
        """One record."""
        self._written.add(line, position)
        with self._count_errors(position):
            fields, oddities = parse_record(line)
            self._note(oddities, position)
            positives = zip(*(fields[name] for name in PASSAGE_FIELDS), strict=True)
            rows = [self._complete_positive(position, *row) for row in positives]
            columns = zip(PASSAGE_FIELDS, zip(*rows, strict=True), strict=True)
            fields |= {name: list(column) for name, column in columns}
            self._records.add({**fields, "data_id": fields["data_id"] or _make_id(fields)})

    def _note(self, oddities: list[str], position: str) -> None:
        for oddity in dict.fromkeys(oddities):
            self.report.note(oddity, position)

    def _complete_positive(
        self, position: str, name: str, text: str, image: str
    ) -> tuple[str, str, str]:
        """A positive with the corpus' text where the record has none."""
        if not self._is_fixed_corpus:
            self._lacks_texts |= not text
            if self._pool.add(name, text, image):
                self.report.note(OTHER_TEXT, f"{position}: {name}")
            return name, text, image
        row = self._pool.rows.get(name)
        if row is None:
            self.report.note(NOT_IN_POOL, f"{position}: {name}")
        elif not text and self._texts is not None:
            text = self._texts[row].as_py()
        elif self._pool.digests[name][0] != _text_digest(text):
            self.report.note(OTHER_TEXT, f"{position}: {name}")
        return name, text, image

    def close(self) -> None:
        """Finish both tables, in the order of their ids."""
        self._records.close()
        self.report.written = self._written.content()
        if not self._is_fixed_corpus:
            self._pool.close(self.report)
            if self._lacks_texts:
                self._fill_texts()
        arrow_store.sort_by(self._folder / "records.arrow", "data_id")
        names = ("records.arrow", "corpus.arrow")
        self.report.content = "-".join(
            arrow_store.content_digest(self._folder / name) for name in names
        )

    def _fill_texts(self) -> None:
        """Give positives without a text that of the corpus."""
        path = self._folder / "records.arrow"
        texts, rows = map_table(self._folder / "corpus.arrow")["passage_text"], self._pool.rows
        with atomic_path(path) as draft:
            records = arrow_store.TableWriter(draft, arrow_store.RECORD_SCHEMA)
            for batch in map_table(path).to_batches():
                for record in batch.to_pylist():
                    pairs = zip(record["passage_id"], record["passage_text"], strict=True)
                    filled = [text or texts[rows[name]].as_py() for name, text in pairs]
                    records.add({**record, "passage_text": filled})
            records.close()

    @contextmanager
    def _count_errors(self, position: str) -> Iterator[None]:
        try:
            yield
        except LineError as reason:
            self.report.skip(str(reason), position)


class CorpusBuilder:
    """Builder of the corpus table with one row per id, independent of the reading order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = arrow_store.corpus_writer(folder)
        self.digests: dict[str, tuple[bytes, bytes]] = {}
        """Id -> digests of the first text and image."""
        self._others: dict[str, set[tuple[bytes, bytes]]] = {}
        self.is_fixed = False
        """Texts of the passage files are final; positives only add other ids."""
        self.rows: dict[str, int] = {}
        """Id -> row of the finished corpus."""

    def add(self, name: str, text: str, image: str) -> bool:
        """Add a passage unless an equal one is there. True: it contradicts a passage file."""
        digests = (_text_digest(text), _text_digest(image))
        first = self.digests.setdefault(name, digests)
        if first is digests:
            self._write(name, text, image)
        elif first != digests:
            if self.is_fixed:
                return bool(text) and first[0] != digests[0]
            others = self._others.setdefault(name, set())
            if digests not in others:
                others.add(digests)
                self._write(name, text, image)
        return False

    def _write(self, name: str, text: str, image: str) -> None:
        self._writer.add(dict(zip(PASSAGE_FIELDS, (name, text, image), strict=True)))

    def close(self, report: SourceReport) -> None:
        """Keep one row of each id, in the order of the ids."""
        self._writer.close()
        path = self._folder / "corpus.arrow"
        if self._others:
            for name in sorted(self._others):
                report.note(SEVERAL_TEXTS, name)
            arrow_store.keep_rows(path, _select_rows(map_table(path), self._others.keys()))
        arrow_store.sort_by(path, "passage_id")
        ids = map_table(path)["passage_id"].to_pylist()
        self.rows = {name: row for row, name in enumerate(ids)}


def _select_rows(table: pa.Table, ambiguous_ids: Any) -> list[int]:
    """All rows; of ambiguous ids the best one: with a text, with an image, then by alphabet."""
    best: dict[str, tuple[tuple[bool, bool, str, str], int]] = {}
    rows = []
    for row, name in enumerate(table["passage_id"].to_pylist()):
        if name not in ambiguous_ids:
            rows.append(row)
            continue
        text, image = (table[column][row].as_py() for column in PASSAGE_FIELDS[1:])
        entry = ((not text, not image, text, image), row)
        best[name] = min(best.get(name, entry), entry)
    return sorted([*rows, *(row for _, row in best.values())])


def _text_digest(text: str) -> bytes:
    """8 bytes for a text; none for none."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest() if text else b""


def _make_id(record: Mapping[str, Any]) -> str:
    """Id for a record without one: a digest of its content, independent of its position."""
    content = json.dumps(record, sort_keys=True)
    return f"unnamed-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"
