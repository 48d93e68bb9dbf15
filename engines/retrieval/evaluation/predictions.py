"""Prediction files: JSON lines of scores per query, and a TREC run with its qrels.

Comparisons pair the JSON lines of two runs; trec_eval, ir_measures and pytrec_eval read run and
qrels and get the same metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from engines.retrieval.data.dataset import EvaluationSplit
from engines.retrieval.data.items import Rows
from engines.retrieval.evaluation.metrics import Scores

NAMED_PASSAGES = 10
"""Passages in a query's JSON line; the TREC run has all."""


def write_scores(
    run_dir: Path,
    name: str,
    split: EvaluationSplit,
    ranked: Rows,
    hits: npt.NDArray[np.bool_],
    scores: Mapping[str, Scores],
) -> str:
    """One JSON line per query: `id`, `cluster`, every score under its metric's name, `rank`, `top`.

    `cluster`: the first positive, as queries of one passage are not independent. `rank`: of the
    first positive among the searched depth, from 1, or null. A score that the query does not have
    (no answer for pseudo-recall) is absent.

    Returns:
        The file, relative to the run folder.
    """
    path = _folder(run_dir) / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for query, query_id in enumerate(split.ids):
            ranks = np.flatnonzero(hits[query])
            values = {n: float(v[query]) for n, v in scores.items() if not np.isnan(v[query])}
            line = {
                "id": query_id,
                "cluster": next(iter(split.positive_ids[query]), query_id),
                **values,
                "rank": int(ranks[0]) + 1 if len(ranks) else None,
                "top": [split.corpus.ids[row] for row in ranked[query, :NAMED_PASSAGES]],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return str(path.relative_to(run_dir))


def write_trec(
    run_dir: Path, split: EvaluationSplit, ranked: Rows, scores: npt.NDArray[np.float32]
) -> None:
    """The ranking as a TREC run file, `<split>.trec`: `query Q0 passage rank score tag`."""
    queries, depth = ranked.shape
    table = {
        "query": _column(split.ids, np.repeat(np.arange(queries), depth)),
        "Q0": _column(["Q0"], np.zeros(ranked.size, np.int64)),
        "passage": _column(split.corpus.ids, ranked.ravel()),
        "rank": pa.array(np.tile(np.arange(1, depth + 1), queries)),
        "score": pa.array(make_strictly_falling(scores).ravel()),
        "tag": _column(["workbench"], np.zeros(ranked.size, np.int64)),
    }
    _write(table, _folder(run_dir) / f"{split.name}.trec")


def write_qrels(run_dir: Path, split: EvaluationSplit) -> None:
    """The positives, in the corpus or not, as `<split>.qrels`: `query 0 passage 1`."""
    positive_ids = split.positive_ids
    counts = np.asarray([len(ids) for ids in positive_ids], np.int64)
    flat = [name for ids in positive_ids for name in ids]
    table = {
        "query": _column(split.ids, np.repeat(np.arange(len(positive_ids)), counts)),
        "iteration": pa.array(np.zeros(len(flat), np.int64)),
        "passage": _column(flat, np.arange(len(flat))),
        "relevance": pa.array(np.ones(len(flat), np.int64)),
    }
    _write(table, _folder(run_dir) / f"{split.name}.qrels")


def escape_trec_id(name: str) -> str:
    """An id as one word: blanks, quotes and % as %XX, so that two ids never become one.

    Readers of these files split lines at any white space; an empty id is a bare %.
    """
    if name and not any(letter in '%"' or letter.isspace() for letter in name):
        return name
    marked = (
        "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))
        if letter in '%"' or letter.isspace()
        else letter
        for letter in name
    )
    return "".join(marked) or "%"


def make_strictly_falling(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores [Q, K], best first, with each at least one step of float32 below the one before.

    trec_eval ignores the rank column, sorts by score and breaks ties by id; with equal scores its
    order, and so its numbers, would not be ours.
    """
    bits = np.ascontiguousarray(scores, np.float32).view(np.int32).astype(np.int64)
    sign = np.int64(1 << 31)  # floats are sign and magnitude: -0.0 and 0.0 become one number
    ascending = np.where(bits < 0, -(bits + sign), bits)
    steps = np.arange(scores.shape[1])
    fallen = np.minimum.accumulate(ascending + steps, axis=1) - steps
    back = np.where(fallen < 0, -fallen - sign, fallen)
    return back.astype(np.int32).view(np.float32)


def _folder(run_dir: Path) -> Path:
    folder = run_dir / "predictions"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def _column(names: Iterable[str], rows: Rows) -> pa.Array:
    """Escaped names of these rows, as text."""
    words = pa.array([escape_trec_id(name) for name in names], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(rows), words).cast(pa.string())


def _write(columns: Mapping[str, pa.Array], path: Path) -> None:
    """Write columns separated by blanks: 2.5 million lines take pyarrow 1 s, Python 4 s."""
    options = csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    csv.write_csv(pa.table(dict(columns)), path, options)
