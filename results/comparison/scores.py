"""Scores per item (query, question, medium) of a metric, from the file that its run left."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from results.records.schema import MetricRecord, RunRecord
from results.text.metric_names import split_name

CLUSTER_KEYS: Final = ("cluster", "medium")
"""Keys of a line that name what several items share: a passage, a picture, a video."""


class ItemScores(NamedTuple):
    """Score and cluster of each item, by its id; an item alone is its own cluster."""

    values: dict[str, float]
    clusters: dict[str, str]


def read_scores(log_root: Path, record: RunRecord, metric: MetricRecord) -> ItemScores:
    """Scores of a metric; none where there is no file. See `read_items`."""
    scores = ItemScores({}, {})
    for item, (score, line) in read_items(log_root, record, metric).items():
        scores.values[item] = score
        cluster = next((line[key] for key in CLUSTER_KEYS if line.get(key)), item)
        scores.clusters[item] = str(cluster)
    return scores


def read_items(
    log_root: Path, record: RunRecord, metric: MetricRecord
) -> dict[str, tuple[float, dict[str, Any]]]:
    """Score and line of each item, by its id; empty where there is no file.

    A line is `{"id": …, "recall@1": …, "cluster": …}`; in the file of a variant its scores go by
    the plain name. A file outside of the log root is not read, whatever the record says.
    """
    if not metric.scores_file or not record.folder:
        return {}
    root = log_root.resolve()
    path = (root / record.folder / metric.scores_file).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        return {}
    names = (metric.name, split_name(metric.name).base)
    items: dict[str, tuple[float, dict[str, Any]]] = {}
    status = path.stat()
    for data in _read_lines(path, status.st_mtime_ns, status.st_size):
        value = next((data[name] for name in names if name in data), None)
        if "id" in data and isinstance(value, int | float):
            items[str(data["id"])] = (float(value), data)
    return items


@functools.lru_cache(maxsize=2)
def _read_lines(path: Path, _modified: int, _size: int) -> tuple[dict[str, Any], ...]:
    """All lines of a file; kept, as a comparison reads both of its sides once a metric."""
    with path.open("rb") as file:
        return tuple(map(_parse_object, file))


def _parse_object(line: bytes) -> dict[str, Any]:
    """The line's JSON object; empty for a torn line, whose item then stays unpaired."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
