"""Records of a subset by their ids, and passages of its corpus, with thumbnails of their images.

`python -m datasets_mm.profile.find_records NAME --id ID --passage ID`

A child process of the screen, as `sample_records` is. Prints JSON lines: one `record` for each id
that the subset has, one `passage` for each passage, then `done`, or one `failed`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasets_mm.child_messages import emit_message, ignore_progress
from datasets_mm.profile.sample_records import describe_record, make_thumbnail
from datasets_mm.profile.target import Target, TargetError, resolve_target, run_sending
from datasets_mm.storage.corpus import map_table

if TYPE_CHECKING:
    import pyarrow as pa

REPEATED: Final = re.compile(r"^(?P<id>.*)#(?P<number>[0-9]+)$", re.DOTALL)
"""Id of a score file for the second and later records of one id: `17#2`."""


def find_records(target: Target, ids: Sequence[str], cache_root: Path) -> Iterator[dict[str, Any]]:
    """The records of these ids of a score file, in their order; ids without one are left out.

    Raises:
        TargetError: the target is no subset.
    """
    if target.kind != "subset":
        raise TargetError(f"{target.name} is no subset; records of subsets can be browsed")
    table = map_table(target.path)
    for name in ids:
        row = _find_row(table, name)
        if row is not None:
            yield {"id": name, **describe_record(target, table, row, cache_root)}


def find_passages(target: Target, ids: Sequence[str], cache_root: Path) -> Iterator[dict[str, Any]]:
    """Text and picture of these passages of the subset's corpus, in their order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    file = target.path.parent / "corpus.arrow"
    if not ids or not file.is_file():
        return
    corpus = map_table(file)
    rows = pc.index_in(pa.array(ids, pa.string()), corpus["passage_id"].combine_chunks())
    for name, row in zip(ids, rows.to_pylist(), strict=True):
        if row is None:
            continue
        fields = corpus.slice(row, 1).to_pylist()[0]
        path = fields["passage_image_path"]
        picture = make_thumbnail(target.images, path, cache_root) if path else {}
        yield {"id": name, "text": fields["passage_text"], "path": path, "picture": picture}


def _find_row(table: pa.Table, name: str) -> int | None:
    """Row of an id; of `ID#3` the third one with that id, if no record is called so itself."""
    rows = _rows_of(table, name)
    if rows:
        return rows[0]
    match = REPEATED.match(name)
    if match is None:
        return None
    rows, number = _rows_of(table, match["id"]), int(match["number"])
    return rows[number - 1] if 1 <= number <= len(rows) else None


def _rows_of(table: pa.Table, name: str) -> list[int]:
    import pyarrow.compute as pc

    return list(pc.indices_nonzero(pc.equal(table["data_id"], name)).to_pylist())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print records and passages of one subset as JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.profile.find_records", description=__doc__
    )
    parser.add_argument("name")
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--id", action="append", default=[], dest="ids")
    parser.add_argument("--passage", action="append", default=[], dest="passages")
    options = parser.parse_args(arguments)

    def send() -> None:
        target = resolve_target(options.name, options.cache_root, None, "", ignore_progress)
        for record in find_records(target, options.ids, options.cache_root):
            emit_message(kind="record", **record)
        for passage in find_passages(target, options.passages, options.cache_root):
            emit_message(kind="passage", **passage)

    return run_sending(send)


if __name__ == "__main__":
    sys.exit(main())
