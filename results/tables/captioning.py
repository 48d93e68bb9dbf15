"""Tables of captioning runs: the study's experiment list, and all scores of a split.

Apart from `evaluation`, whose tables have a column for each metric: captions get a dozen scores, so
here a score is a row and a run is a column, and the train split is shown beside the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from results.records.schema import Identity, Metric, RunRecord
from results.tables import run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import cause, say

ENGINE: Final = "captioning"
COLLAPSED: Final = 0.5
"""Share of unique captions below which the SigLIP study speaks of mode collapse."""

STUDY: Final = (
    ("Diversity", ("diversity",)),
    ("SigLIP", ("SigLIP cosine", "cosine (local")),
    ("METEOR", ("METEOR",)),
)
"""The study's columns, and how the names of the metrics begin that fill them."""

PROJECTORS: Final = {
    "linear": "Linear", "mlp2x": "MLP-2L", "c_abstractor": "C-Abstractor", "perceiver": "Perceiver",
}  # fmt: skip
"""What the study calls the projectors, by the setting."""

_PARAMETERS: Final = re.compile(r"^([\w-]+), ([\d,]+) parameters")


def of(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The captioning runs."""
    return [r for r in records if r.identity.engine == ENGINE]


def projector_title(kind: object) -> str:
    """`C-Abstractor` of `c_abstractor`; another name stays itself, none is a dash."""
    return PROJECTORS.get(str(kind), str(kind)) if kind else "–"


def splits(records: Sequence[RunRecord]) -> list[str]:
    """Every split with captions, in the order of evaluation."""
    return list(dict.fromkeys(m.split for r in of(records) for m in r.metrics if m.split))


def experiments(
    records: Sequence[RunRecord],
    planned: Sequence[Identity] = (),
    states: Mapping[str, str] | None = None,
    notes: Mapping[str, tuple[str, ...]] | None = None,
    lang: str = "en",
) -> Table:
    """`experiment · projector · params · diversity · SigLIP · METEOR · state · finding`.

    A row is a run, evaluated on the last of its splits (the held-out one, where there is one);
    runs that have not ended stand below with what is known of them.
    """
    found = of(records)
    waiting = [i for i in planned if i.engine == ENGINE]
    columns = (
        Column(say("captions.id", lang)),
        Column(say("captions.projector", lang)),
        Column(say("captions.params", lang), right=True),
        Column(say("captions.on", lang)),
        *(Column(title, right=True) for title, _ in STUDY),
        Column(say("captions.state", lang)),
        Column(say("captions.finding", lang)),
    )

    def ends(identity: Identity, default: str) -> tuple[Cell, Cell]:
        run = identity.run_id
        state = (states or {}).get(run) or default
        said = (notes or {}).get(run, ())
        known = state in {"waiting", "running", "done", "stopped"}
        shown = Cell(say(f"captions.{state}", lang), "value") if known else Cell(cause(state, lang))
        return shown, Cell("; ".join(said), "prose")

    body = [
        (
            _name(r.identity, run_cells.flags(r, lang)), *_projector(r, lang), *_study(r, lang),
            *ends(r.identity, "done" if r.exit.cause == "completed" else r.exit.cause),
        )
        for r in found
    ]  # fmt: skip
    nothing = Cell("–", "value")
    body += [
        (
            _name(i, ()), Cell(projector_title(i.params.get("projector"))),
            *[nothing] * (2 + len(STUDY)),
            *ends(i, "waiting"),
        )
        for i in waiting
    ]  # fmt: skip
    return Table(columns, tuple(body), tuple(_full_names(found, lang)) if body else ())


def scores(records: Sequence[RunRecord], split: str, lang: str = "en") -> Table:
    """One row a metric, one column a run: `0.412 [0.389, 0.436]`."""
    shown = [r for r in of(records) if any(m.split == split for m in r.metrics)]
    known = {r.identity.run_id: {m.name: m for m in r.metrics if m.split == split} for r in shown}
    names = list(dict.fromkeys(name for found in known.values() for name in found))
    columns = (
        Column(say("metric", lang)),
        Column(say("n", lang), right=True),
        *(Column(_title(r.identity), right=True) for r in shown),
    )
    body = []
    for name in names:
        cells = [_value(known[r.identity.run_id].get(name)) for r in shown]
        counts = {found[name].n for found in known.values() if name in found}
        n = Cell(" / ".join(map(formats.count, sorted(counts))), "value")
        body.append((Cell(name), n, *cells))
    return Table(columns, tuple(body), tuple(_methods(known.values())))


def collapsed(record: RunRecord, split: str) -> bool:
    """Whether the captions of a split are a mode collapse by the study's rule."""
    return any(
        m.split == split and m.name == "diversity" and m.value < COLLAPSED for m in record.metrics
    )


def _name(identity: Identity, flags: tuple[str, ...]) -> Cell:
    return Cell(identity.label or identity.run_id, "text" if identity.label else "code", flags)


def _title(identity: Identity) -> str:
    """A heading is not escaped by the table, and a label is a person's text."""
    said = identity.label or identity.run_id
    return re.sub(r"[^\w .+·-]", "?", said)


def _projector(record: RunRecord, lang: str) -> tuple[Cell, Cell]:
    """Kind and measured number of parameters, from what the engine said of its model."""
    found = _PARAMETERS.match(record.facts.get("projector", ""))
    if found is None:
        kind = projector_title(record.identity.params.get("projector"))
        return Cell(kind), Cell(say("not reached", lang), "unknown")
    return Cell(projector_title(found[1])), Cell(
        formats.parameters(int(found[2].replace(",", ""))), "value"
    )


def _study(record: RunRecord, lang: str) -> tuple[Cell, ...]:
    others = [split for split in splits([record]) if split != "train"] or splits([record])
    if not others:
        return (Cell("–", "value"), *[Cell(say("not reached", lang), "unknown")] * len(STUDY))
    split = others[-1]
    own = [m for m in record.metrics if m.split == split]
    flags = (say("captions.collapse", lang),) if collapsed(record, split) else ()
    cells = []
    for title, beginnings in STUDY:
        metric = next((m for m in own if m.name.startswith(beginnings)), None)
        cells.append(_value(metric, flags if title == "Diversity" else ()))
    return (Cell(split, "code"), *cells)


def _value(metric: Metric | None, flags: tuple[str, ...] = ()) -> Cell:
    if metric is None:
        return Cell("–", "value")
    return Cell(formats.interval(metric.value, metric.low, metric.high), "value", flags)


def _full_names(records: Sequence[RunRecord], lang: str) -> list[Cell]:
    """Which variant stands in each column: METEOR by another tokenizer is another number."""
    said = []
    for title, beginnings in STUDY:
        names = dict.fromkeys(
            m.name for r in records for m in r.metrics if m.name.startswith(beginnings)
        )
        if names and title != "Diversity":
            said.append(Cell(say("captions.names", lang).format(title, "; ".join(names))))
    return said


def _methods(known: Iterable[Mapping[str, Metric]]) -> list[Cell]:
    """Each way of making an interval once, with the metrics that it made."""
    found: dict[str, dict[str, None]] = {}
    for metrics in known:
        for metric in metrics.values():
            if metric.method:
                found.setdefault(metric.method, {})[metric.name] = None
    return [Cell(f"{', '.join(names)}: {method}.") for method, names in found.items()]
