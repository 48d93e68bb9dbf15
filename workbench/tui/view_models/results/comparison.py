"""Rows of the Compare screen from the JSON of `workbench results compare --json --cases`. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from results.comparison.predictions import answer_text
from results.text import formats
from results.text.sanitize import clean_line
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.view_models.results.cases import CaseSide, format_rank

CASES_PER_KIND: Final = 20
METRICS: Final = (
    GridColumn("metric", "metric", 12, grow=20, middle_cut=True),
    GridColumn("split", "split", 8, grow=12, rank=3, middle_cut=True),
    GridColumn("a", "A", 8, right=True, rank=4),
    GridColumn("b", "B", 8, right=True, rank=1),
    GridColumn("delta", "B − A", 8, right=True),
    GridColumn("interval", "95 %", 16, rank=2),
    GridColumn("verdict", "verdict", 12),
)
DIFFERENCES: Final = (
    GridColumn("name", "differs", 12, grow=12),
    GridColumn("a", "A", 8, grow=22),
    GridColumn("b", "B", 8, grow=22),
)
CASES: Final = (
    GridColumn("kind", "case", 8),
    GridColumn("item", "item", 16, grow=30, middle_cut=True),
    GridColumn("a", "A", 6, right=True),
    GridColumn("b", "B", 6, right=True),
    GridColumn("text_a", "A answers", 14, grow=24, rank=1, middle_cut=True),
    GridColumn("text_b", "B answers", 14, grow=24, rank=1, middle_cut=True),
)
COST_NAMES: Final = {
    "epoch": ("training of 1 epoch", q.wall), "step": ("step, median", q.duration),
    "wall": ("wall-clock", q.wall), "rss": ("max RSS", q.size), "vram": ("VRAM", q.size),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PairComparison:
    """The first run and another one."""

    letter: str
    """Of the other one: B, C, D."""
    metrics: tuple[Mapping[str, Any], ...]
    costs: tuple[Mapping[str, Any], ...]
    differences: tuple[Mapping[str, Any], ...]
    cases: Mapping[str, Any] | None

    @property
    def metric_keys(self) -> list[str]:
        """`name@split` of the metric rows."""
        return [f"{row['metric']}@{row['split']}" for row in self.metrics]


def parse_comparisons(text: str) -> tuple[PairComparison, ...]:
    """The comparisons that the command printed, one a line."""
    pairs = []
    lines = filter(None, text.split("\n"))  # texts may hold U+2028, a line to splitlines
    for letter, line in zip("BCDEFG", lines, strict=False):
        row = json.loads(line)
        metrics, costs = tuple(row["metrics"]), tuple(row["costs"])
        differences = tuple(row["differences"])
        pairs.append(PairComparison(letter, metrics, costs, differences, row.get("cases")))
    return tuple(pairs)


def metric_rows(pair: PairComparison) -> list[GridRow]:
    """Metrics, then costs: values, difference, interval and verdict."""
    rows: list[GridRow] = []
    for row in pair.metrics:
        interval = "" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        rows.append((
            clean_line(row["metric"]), clean_line(row["split"]), q.score(row["a"]),
            q.score(row["b"]), f"{row['delta']:+.4f}", GridCell(interval, "dim"),
            _verdict(row["verdict"], pair.letter),
        ))  # fmt: skip
    for row in pair.costs:
        name, write = COST_NAMES[row["name"]]
        ratio = f"×{row['b'] / row['a']:.2f}" if row["a"] else ""
        rows.append((
            GridCell(name, "dim"), "", write(row["a"]), write(row["b"]), ratio, "",
            _verdict(row["verdict"], pair.letter),
        ))  # fmt: skip
    return rows


def _verdict(verdict: str, letter: str) -> GridCell:
    """`A better`, `C less`; what cannot be told apart is dim."""
    side, _, word = verdict.partition(" ")
    if word in ("better", "less"):
        return GridCell(f"{letter if side == 'b' else 'A'} {word}", "accent")
    short = {"not distinguishable": "not distinct", "no interval": "no interval"}
    return GridCell(short.get(verdict, verdict), "dim")


def difference_rows(pair: PairComparison) -> list[GridRow]:
    """Settings and surroundings that are not equal."""
    return [
        (GridCell(clean_line(row["name"]), "dim"), _join(row["a"]), _join(row["b"]))
        for row in pair.differences
    ]


def _join(values: Sequence[Any]) -> str:
    return clean_line(", ".join(map(_plain, values)), 200)


def _plain(value: Any) -> str:
    if value is None:
        return q.UNKNOWN
    return f"{value:g}" if isinstance(value, float) else str(value)


def case_rows(pair: PairComparison) -> list[GridRow]:
    """Items by which run is better: scores (ranks where there are), and what each answered."""
    if pair.cases is None:
        return []
    rows: list[GridRow] = []
    for case in pair.cases["cases"]:
        lines = (case["a_line"], case["b_line"])
        numbers = [
            format_rank(line) if "rank" in line else q.score(case[side])
            for side, line in zip("ab", lines, strict=True)
        ]
        rows.append((
            _verdict(case["kind"], pair.letter), clean_line(case["id"]), *numbers,
            *(GridCell(clean_line(answer_text(line)), "dim") for line in lines),
        ))  # fmt: skip
    return rows


def case_summary(pair: PairComparison) -> str:
    """`recall@1 on emoji_val: B better 357, A better 7, both 0 342, equal 42`."""
    if pair.cases is None:
        return "a run has no scores of single items"
    counts = pair.cases["counts"]
    words = {"b better": f"{pair.letter} better", "a better": "A better"}
    parts = (f"{words.get(kind, kind)} {formats.count(n)}" for kind, n in counts.items())
    return clean_line(f"{pair.cases['metric']} on {pair.cases['split']}: {', '.join(parts)}")


def describe_kind(pair: PairComparison, index: int) -> str:
    """`B better`, `A better`, `both 0`."""
    return _verdict((pair.cases or {})["cases"][index]["kind"], pair.letter).text


def case_sides(pair: PairComparison, index: int) -> tuple[CaseSide, CaseSide]:
    """What both runs wrote about an item."""
    case = (pair.cases or {})["cases"][index]
    lines = ({**case["a_line"], "id": case["id"]}, {**case["b_line"], "id": case["id"]})
    return CaseSide("A", case["a"], lines[0]), CaseSide(pair.letter, case["b"], lines[1])
