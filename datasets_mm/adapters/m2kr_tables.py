"""Takes records and passages from a reader of any layout and writes the two tables.

One meaning for both layouts: which passages are the corpus, what a positive without text is given,
what happens to ids with two texts. What is written does not depend on the order of reading: of
several texts one is chosen by content, and both tables are put into the order of their ids.
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
from datasets_mm.adapters.m2kr_fields import PASSAGE_FIELDS, LineError, passages, record
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.sources.location import Location
from datasets_mm.storage import arrow_store
from datasets_mm.storage.corpus import map_table

NOT_IN_POOL = "positives are not among the passages of the corpus and can never be found"
OTHER_TEXT = "positives have another text than the corpus has under their id"
SEVERAL = "passage ids have several texts or pictures; one of each was kept"


class Intake:
    """Passages first, then `settle`, then records, then `close`."""

    def __init__(self, found: Location, folder: Path, report: SourceReport) -> None:
        self.report = report
        self._folder = folder
        self._found = found
        self._pool = Pool(folder)
        self._records = arrow_store.record_writer(folder)
        self._given = bool(found.passages)
        """There is a passage file; otherwise the positives are the corpus."""
        self._closed = self._given and found.source.pool == "passages"
        self._texts: pa.ChunkedArray | None = None

    def add_passage(self, where: str, line: Mapping[str, Any]) -> None:
        """One line of a passage file."""
        with self._counted(where):
            rows, oddities = passages(line)
            if not rows:
                raise LineError("passage without id")
            self._note(oddities, where)
            for row in rows:
                self._pool.add(*row)

    def settle(self) -> None:
        """The passage files are read. A corpus without passages is refused."""
        if self._given and not self._pool.known:
            names = ", ".join(map(self._found.name, self._found.passages))
            lost = ", ".join(f"{n} {reason}" for reason, n in self.report.skipped.items())
            raise SourceError(
                f"the corpus is empty: {names} holds no usable passage ({lost or 'it is empty'}); "
                "copy or download the file again"
            )
        self._pool.fixed = self._given
        if self._closed:
            self._pool.close(self.report)
            self._texts = map_table(self._folder / "corpus.arrow")["passage_text"]

    def add_record(self, where: str, line: Mapping[str, Any]) -> None:
        """One record."""
        with self._counted(where):
            fields, oddities = record(line)
            self._note(oddities, where)
            positives = zip(*(fields[name] for name in PASSAGE_FIELDS), strict=True)
            rows = [self._positive(where, *row) for row in positives]
            columns = zip(PASSAGE_FIELDS, zip(*rows, strict=True), strict=True)
            fields |= {name: list(column) for name, column in columns}
            self._records.add({**fields, "data_id": fields["data_id"] or _id_of(fields)})

    def _note(self, oddities: list[str], where: str) -> None:
        for oddity in dict.fromkeys(oddities):
            self.report.note(oddity, where)

    def _positive(self, where: str, name: str, said: str, shown: str) -> tuple[str, str, str]:
        """A positive as it is written: its text taken from the corpus where the record has none."""
        if not self._closed:
            if self._pool.add(name, said, shown):
                self.report.note(OTHER_TEXT, f"{where}: {name}")
            return name, said, shown
        row = self._pool.rows.get(name)
        if row is None:
            self.report.note(NOT_IN_POOL, f"{where}: {name}")
        elif not said and self._texts is not None:
            said = self._texts[row].as_py()
        elif self._pool.known[name][0] != _mark(said):
            self.report.note(OTHER_TEXT, f"{where}: {name}")
        return name, said, shown

    def close(self) -> None:
        """Finish both tables, in the order of their ids."""
        self._records.close()
        if not self._closed:
            self._pool.close(self.report)
        arrow_store.sort_by(self._folder / "records.arrow", "data_id")
        names = ("records.arrow", "corpus.arrow")
        self.report.content = "-".join(
            arrow_store.content_digest(self._folder / name) for name in names
        )

    @contextmanager
    def _counted(self, where: str) -> Iterator[None]:
        try:
            yield
        except LineError as reason:
            self.report.skip(str(reason), where)


class Pool:
    """The corpus while it is written: each id once in the end, whatever came first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = arrow_store.corpus_writer(folder)
        self.known: dict[str, tuple[bytes, bytes]] = {}
        """Id -> marks of the text and the picture that came first."""
        self._others: dict[str, set[tuple[bytes, bytes]]] = {}
        self.fixed = False
        """What the passage files said about an id stands; positives only add other ids."""
        self.rows: dict[str, int] = {}
        """Id -> row of the finished corpus."""

    def add(self, name: str, said: str, shown: str) -> bool:
        """Write the passage unless it is known as it is; True: it contradicts a passage file."""
        marks = (_mark(said), _mark(shown))
        first = self.known.setdefault(name, marks)
        if first is marks:
            self._write(name, said, shown)
        elif first != marks:
            if self.fixed:
                return bool(said) and first[0] != marks[0]
            others = self._others.setdefault(name, set())
            if marks not in others:
                others.add(marks)
                self._write(name, said, shown)
        return False

    def _write(self, name: str, said: str, shown: str) -> None:
        self._writer.add(dict(zip(PASSAGE_FIELDS, (name, said, shown), strict=True)))

    def close(self, report: SourceReport) -> None:
        """Keep one row of each id, in the order of the ids."""
        self._writer.close()
        path = self._folder / "corpus.arrow"
        if self._others:
            for name in sorted(self._others):
                report.note(SEVERAL, name)
            arrow_store.keep_rows(path, _one_of_each(map_table(path), self._others.keys()))
        arrow_store.sort_by(path, "passage_id")
        ids = map_table(path)["passage_id"].to_pylist()
        self.rows = {name: row for row, name in enumerate(ids)}


def _one_of_each(table: pa.Table, doubtful: Any) -> list[int]:
    """All rows; of doubtful ids the best one: with a text, with a picture, then by alphabet."""
    best: dict[str, tuple[tuple[bool, bool, str, str], int]] = {}
    kept = []
    for row, name in enumerate(table["passage_id"].to_pylist()):
        if name not in doubtful:
            kept.append(row)
            continue
        said, shown = (table[column][row].as_py() for column in PASSAGE_FIELDS[1:])
        place = ((not said, not shown, said, shown), row)
        best[name] = min(best.get(name, place), place)
    return sorted([*kept, *(row for _, row in best.values())])


def _mark(said: str) -> bytes:
    """8 bytes for a text; none for none."""
    return hashlib.blake2b(said.encode(), digest_size=8).digest() if said else b""


def _id_of(record: Mapping[str, Any]) -> str:
    """A name for a record that has none: by content, so that its place in the file is no matter."""
    content = json.dumps(record, sort_keys=True)
    return f"unnamed-{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"
