"""Small copies of M2KR in both of its layouts, made from OpenMoji-KB, for trying things out.

File names, fields and kinds of dirt are those of M2KR; the questions are OpenMoji-KB's. The command
also writes a VQA challenge (vqa_challenge_copy.py) and AI-Hub's captions (aihub_copy.py).
`python -m datasets_mm.demo.m2kr_copy --layout ret-jsonl --out DIR` prints JSON lines, as a build
does.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from datasets_mm.building.build import BuildError, Subset, build
from datasets_mm.child_messages import Progress, emit_message, percent_progress
from datasets_mm.demo import aihub_copy, vqa_challenge_copy
from datasets_mm.recipes.steps import rank

LAYOUTS: Final = ("ret-jsonl", "m2kr-parquet")
DISTRACTORS: Final = 3
"""Passages of a corpus that answer nothing, for each record."""


@dataclass(frozen=True)
class SplitFiles:
    """One split of a data set: file names in both layouts, share of `rows`."""

    dataset: str
    records: str
    passages: str
    config: str
    split: str
    share: float


INFOSEEK: Final = SplitFiles(
    "infoseek", "infoseek_train", "infoseek_passages_train", "Infoseek", "train", 1.0
)
BALANCED: Final = SplitFiles("infoseek", "infoseek_balanced_76K_train", "", "", "", 0.5)
"""The weekly report's own choice of InfoSeek's records; JSON lines only."""

PARTS: Final = (
    SplitFiles("oven", "oven_train", "oven_passages_train", "OVEN", "train", 1.0),
    SplitFiles("oven", "oven_val", "oven_passages_val", "OVEN", "valid", 0.25),
    SplitFiles("oven", "oven_test", "oven_passages_test", "OVEN", "test", 0.25),
    INFOSEEK,
    BALANCED,
    SplitFiles("infoseek", "infoseek_test", "infoseek_passages_test", "Infoseek", "test", 0.25),
    SplitFiles("evqa", "evqa_train", "evqa_passages_train", "EVQA", "train", 1.0),
    SplitFiles("evqa", "evqa_val_m2kr", "evqa_passages_val", "EVQA", "valid", 0.25),
    SplitFiles("evqa", "evqa_test_m2kr", "evqa_passages_test", "EVQA", "test", 0.25),
    SplitFiles("okvqa", "okvqa_train", "", "OKVQA", "train", 0.5),
    SplitFiles("okvqa", "okvqa_val", "", "OKVQA", "valid", 0.25),
    SplitFiles("okvqa", "okvqa_test", "okvqa_passages_test", "OKVQA", "test", 0.25),
)
"""Files of test splits as ReT's scripts call them; of the others after the same pattern."""

NUMBERS: Final = frozenset({"area", "population"})
"""Kinds of question whose answer is a number: InfoSeek writes those as objects."""


class KnowledgeBase:
    """OpenMoji-KB in pseudo-random order, and its passages by number."""

    def __init__(self, kb: Subset) -> None:
        self.kb = kb
        ids = kb.records["data_id"].to_pylist()
        self._order = sorted(range(len(ids)), key=lambda row: (rank(11, ids[row]), ids[row]))
        passages = kb.corpus.ids
        self._distractors = sorted(range(len(passages)), key=lambda row: rank(12, passages[row]))
        self._position = 0

    def next_records(self, count: int) -> list[dict[str, Any]]:
        """The next records; after the last one the first again."""
        rows = [self._order[(self._position + n) % len(self._order)] for n in range(count)]
        self._position += count
        records: list[dict[str, Any]] = self.kb.records.take(pa.array(rows, pa.int64())).to_pylist()
        return records

    def build_corpus(self, records: Sequence[dict[str, Any]]) -> list[tuple[int, str, str]]:
        """(number, text, image) of all positives and of some distractors."""
        rows = {self.kb.corpus.row(name) for record in records for name in record["passage_id"]}
        rows |= set(self._distractors[: len(records) * DISTRACTORS])
        corpus = self.kb.corpus
        return [(row, corpus.texts[row], corpus.image_paths[row]) for row in sorted(rows)]


class ImageCopier:
    """Copies images as JPEG under file names in the style of each data set."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = source, target
        self._numbers: dict[str, int] = {}
        self._encoded: dict[str, bytes] = {}

    def copy_query_image(self, dataset: str, path: str) -> str:
        """Relative path of a query picture, as M2KR's documents show them."""
        number = self._numbers.setdefault(path, len(self._numbers))
        match dataset:
            case "oven":
                name = f"{number % 6:02}/oven_{number:08}.jpg"
            case "infoseek":
                name = f"oven_{number:08}.jpg"
            case "evqa":
                name = f"{('inat', 'google-landmark')[number % 2]}/train/{number:05}.jpg"
            case _:
                year = ("train2014", "val2014")[number % 2]
                name = f"{year}/COCO_{year}_{number:012}.jpg"
        return self._copy(path, name)

    def copy_passage_image(self, path: str) -> str:
        """Relative path of a passage picture; "" for none."""
        number = self._numbers.setdefault(path, len(self._numbers))
        return self._copy(path, f"wiki/{number:06}.jpg") if path else ""

    def _copy(self, path: str, name: str) -> str:
        target = self._target / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._encode(path))
        return name

    def _encode(self, path: str) -> bytes:
        if path not in self._encoded:
            data = io.BytesIO()
            with Image.open(self._source / path) as image:
                image.convert("RGB").save(data, "JPEG", quality=90)
            self._encoded[path] = data.getvalue()
        return self._encoded[path]


def write_copy(layout: str, out: Path, rows: int, kb: Subset, progress: Progress) -> None:
    """Write the copy into an empty or new folder."""
    knowledge = KnowledgeBase(kb)
    pictures = ImageCopier(kb.image_root, out / "images")
    write = _write_jsonl if layout == "ret-jsonl" else _write_parquet
    records_of_split = {
        part: knowledge.next_records(max(4, round(rows * part.share))) for part in PARTS
    }
    records_of_split[BALANCED] = records_of_split[INFOSEEK][:: round(1 / BALANCED.share)]
    for done, (part, records) in enumerate(records_of_split.items(), start=1):
        # OK-VQA has one corpus for all of its splits.
        okvqa_records = [
            r for p, rs in records_of_split.items() if p.dataset == "okvqa" for r in rs
        ]
        pool = knowledge.build_corpus(okvqa_records if part.dataset == "okvqa" else records)
        write(out, part, records, pool, pictures)
        progress(done, len(PARTS), "files")
    licences = "\n".join(kb.manifest["licences"])
    (out / "README.txt").write_text(
        "A small copy in the layout of M2KR, made from OpenMoji-KB: for trying things out. Its\n"
        f"questions, passages and pictures are not M2KR's. Licences:\n{licences}\n",
        "utf-8",
    )


def _write_jsonl(
    out: Path,
    part: SplitFiles,
    records: Sequence[dict[str, Any]],
    pool: Sequence[tuple[int, str, str]],
    pictures: ImageCopier,
) -> None:
    """aimagelab/ReT-M2KR: `jsonl/m2kr/*.jsonl`, every path under one `images/`."""
    folder = out / "jsonl" / "m2kr"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {text: row for row, text, _ in pool}
    lines = [_ret_record(part, at, r, numbers, pictures) for at, r in enumerate(records)]
    _write_json_lines(folder / f"{part.records}.jsonl", lines)
    if part.passages:
        passages = (
            {
                "passage_id": str(row),
                "passage_text": text,
                "passage_image_path": pictures.copy_passage_image(image) or math.nan,
            }
            for row, text, image in pool
        )
        _write_json_lines(folder / f"{part.passages}.jsonl", passages)


def _ret_record(
    part: SplitFiles,
    index: int,
    record: dict[str, Any],
    numbers: dict[str, int],
    pictures: ImageCopier,
) -> dict[str, Any]:
    """One JSON line: scalars for single positives; NaN, null and "NA" for absent values."""
    ids: list[Any] = [str(numbers[text]) for text in record["passage_text"]]
    if part.dataset == "okvqa":
        ids = [int(name) for name in ids]  # compared as text with the passage file's strings
    has_no_images = part.dataset == "okvqa" and index % 12 == 11
    absent = ("NA", None, math.nan)[index % 3]
    images = [
        absent if has_no_images else pictures.copy_passage_image(path) or absent
        for path in record["passage_image_path"]
    ]
    single = len(ids) == 1 and index % 2 == 0
    kind = record["dataset_id"].partition(".")[2]
    return {
        "answer": _answers(part, kind, record["answer"]),
        "data_id": f"{part.dataset}_{index}",
        "dataset_id": part.dataset,
        "image_path": pictures.copy_query_image(part.dataset, record["image_path"]),
        "instruction": record["instruction"],
        "passage_id": ids[0] if single else ids,
        "passage_image_path": images[0] if single else images,
        "passage_text": record["passage_text"][0] if single else record["passage_text"],
        "question": math.nan if part.dataset == "evqa" and index % 23 == 22 else record["question"],
    }


def _answers(part: SplitFiles, kind: str, answers: list[str]) -> list[Any]:
    plain = answers[0].replace(",", "").split(" ")[0] if answers else ""
    if part.dataset == "infoseek" and kind in NUMBERS and plain.replace(".", "", 1).isdigit():
        value = float(plain)
        return [{"wikidata": value, "range": [0.9 * value, 1.1 * value]}]
    return list(answers)


def _write_json_lines(path: Path, lines: Any) -> None:
    """JSON as pandas and datasets write it: NaN unquoted, Korean as it is."""
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_parquet(
    out: Path,
    part: SplitFiles,
    records: Sequence[dict[str, Any]],
    pool: Sequence[tuple[int, str, str]],
    pictures: ImageCopier,
) -> None:
    """BByrneLab/M2KR: `<CONFIG>_data` and `<CONFIG>_passages`; passages have no pictures."""
    if not part.config:
        return
    numbers = {text: row for row, text, _ in pool}
    rows = [_m2kr_row(part, at, r, numbers, pictures) for at, r in enumerate(records)]
    shards = 2 if part.config == "OVEN" and part.split == "train" else 1
    _write_shards(out / f"{part.config}_data", part.split, rows, shards)
    if part.passages or part.dataset == "okvqa":
        passages = [
            {"language": "en", "passage_id": f"{part.config}_{row}", "passage_content": text}
            for row, text, _ in pool
        ]
        _write_shards(out / f"{part.config}_passages", f"{part.split}_passages", passages, 1)


def _m2kr_row(
    part: SplitFiles,
    index: int,
    record: dict[str, Any],
    numbers: dict[str, int],
    pictures: ImageCopier,
) -> dict[str, Any]:
    image = pictures.copy_query_image(part.dataset, record["image_path"])
    return {
        "pos_item_ids": [f"{part.config}_{numbers[text]}" for text in record["passage_text"]],
        "pos_item_contents": record["passage_text"] if part.config != "Infoseek" else [],
        "img_id": str(index),
        "img_path": image,
        "image_id": Path(image).stem,
        "question_id": f"{part.config}_{part.split}_{index}",
        "question": None if part.dataset == "evqa" and index % 23 == 22 else record["question"],
        "answers": record["answer"],
        "gold_answer": record["answer"][0],
        "question_type": "automatic",
        "instruction": record["instruction"],
    }


def _write_shards(folder: Path, stem: str, rows: Sequence[dict[str, Any]], shards: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // shards)
    for number in range(shards):
        table = pa.Table.from_pylist(list(rows[number * size : (number + 1) * size]))
        pq.write_table(table, folder / f"{stem}-{number:05}-of-{shards:05}.parquet")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one copy and print JSON lines on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.demo.m2kr_copy", description=__doc__
    )
    parser.add_argument(
        "--layout", choices=(*LAYOUTS, vqa_challenge_copy.LAYOUT, aihub_copy.LAYOUT), required=True
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--cache-root", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        if options.out.exists() and any(options.out.iterdir()):
            raise BuildError(f"{options.out} is not empty; name a new folder with --out")
        progress = percent_progress()
        if options.layout == vqa_challenge_copy.LAYOUT:
            # The rows on which models from scratch were trained come last.
            parts = [build(f"easy_vqa_{n}", options.cache_root) for n in ("train", "base", "test")]
            vqa_challenge_copy.write_copy(options.out, options.rows, parts[:2], parts[2:], progress)
        elif options.layout == aihub_copy.LAYOUT:
            korean = [build(name, options.cache_root) for name in aihub_copy.SUBSETS]
            english = [
                build(name.replace("_ko_", "_en_"), options.cache_root)
                for name in aihub_copy.SUBSETS
            ]
            aihub_copy.write_copy(options.out, options.rows, korean, english, progress)
        else:
            write_copy(
                options.layout,
                options.out,
                options.rows,
                build("emoji_kb", options.cache_root),
                progress,
            )
    except (BuildError, OSError) as error:
        emit_message(kind="failed", error=str(error))
        return 1
    emit_message(kind="done", folder=str(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
