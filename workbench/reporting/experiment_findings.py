"""What an experiment found: one sentence from the records of its suite, noted on its run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from datasets_mm.atomic_files import write_atomic
from results.records.schema import MetricRecord, Reading, RunRecord
from results.text import formats
from results.text.metric_names import headline_metric, with_variant
from workbench.audit import experiments
from workbench.reporting import note_writer, suite_view
from workbench.suites.curves import NO_CURVE
from workbench.suites.suite import SuiteError
from workbench.suites.suite_reader import SuiteReader

FILE: Final = "experiment.json"
SHUFFLED: Final = "shuffled images"
"""Variant of a metric: with the images of other records."""
LAST_LOSSES: Final = 10
"""Windows at the end of a side whose mean loss is compared."""
LEAST_WAIT: Final = 0.05
"""Of a step's time: less waiting than this explains no shorter step."""


class ExperimentLink(BaseModel):
    """What a suite is an experiment of; `experiment.json` in its folder."""

    model_config = ConfigDict(frozen=True)

    code: str
    suite: str
    """Suite of the run that it is about."""
    run_id: str

    @property
    def key(self) -> tuple[str, str]:
        """Suite and run id, for notes."""
        return self.suite, self.run_id


class Side(NamedTuple):
    """One run of an experiment: its record, and its mean loss at the end."""

    record: RunRecord
    loss: float | None

    @property
    def failure(self) -> str:
        """Cause and detail of its end; empty: it completed."""
        ending = self.record.exit
        words = ": ".join(part for part in (ending.cause, ending.detail) if part)
        return "" if ending.cause == "completed" else words


def write_link(folder: Path, link: ExperimentLink) -> None:
    """Store what the suite in `folder` is an experiment of.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomic(folder / FILE, link.model_dump_json())


def read_link(folder: Path) -> ExperimentLink | None:
    """What the suite in `folder` is an experiment of; None: it is none."""
    try:
        return ExperimentLink.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def note_finding(folder: Path) -> str:
    """Note the finding of an ended experiment on its run, once; returns the finding.

    Raises:
        SuiteError: the suite in `folder` is no experiment, or none of its runs has a record.
        OSError: the note cannot be written.
    """
    link = read_link(folder)
    if link is None or experiments.find_experiment(link.code) is None:
        raise SuiteError(f"{folder.name} is no experiment: it has no {FILE} of a known one")
    losses = {
        run.spec.run_id: _mean_loss(run.state.curves.get("loss", NO_CURVE).values())
        for run in SuiteReader(folder).poll().runs
    }
    sides = [
        Side(record, losses.get(record.identity.run_id))
        for record in suite_view.read_suite_records(folder)
    ]
    if not sides:
        raise SuiteError(f"{folder.name}: no run of it has a record yet; `workbench ps` shows it")
    if any(side.record.exit.cause == "stopped" for side in sides):
        resumed = f"`workbench resume {folder.name}`, then `workbench experiment {folder.name}`"
        raise SuiteError(f"{folder.name} was stopped, so there is no finding yet; {resumed}")
    finding = f"experiment {link.code}: {describe_finding(link.code, sides)} ({folder.name})"
    if finding not in note_writer.read_standing(folder.parent, link.key).findings:
        note_writer.add_note(folder.parent, link.key, "finding", finding)
    return finding


def _mean_loss(values: Sequence[float]) -> float | None:
    return statistics.fmean(values[-LAST_LOSSES:]) if values else None


def describe_finding(code: str, sides: Sequence[Side]) -> str:
    """One sentence: what was changed, both numbers, and what follows."""
    if code == experiments.SHUFFLED_IMAGES:  # one evaluation has both numbers
        return _describe_images(sides[0])
    by_label = {side.record.identity.label: side for side in sides}
    was = by_label.pop(experiments.AS_IT_WAS, None)
    if was is None or not by_label:
        return "not measured: one of its two runs left no record"
    return _COMPARISONS[code](was, next(iter(by_label.values())))


def _describe_threads(was: Side, changed: Side) -> str:
    if failure := was.failure or changed.failure:
        return f"not measured: {failure}"
    first, second = was.record, changed.record
    step, other = first.timing.step_median, second.timing.step_median
    if step.value is None or other.value is None:
        return f"not measured: {step.reason or other.reason}"
    verdict = "no difference that these steps can tell"
    before, after = _wait_share(first), _wait_share(second)
    if _is_below(other, step):
        verdict = "a step is shorter: it waited for data"
        if before is None or after is None or before - after < LEAST_WAIT:
            verdict = "a step is shorter, but hardly waited for data: look at what else was at work"
    elif _is_below(step, other):
        verdict = "a step is longer: more threads do harm here"
    return (
        f"num_workers {first.identity.params['num_workers']} → "
        f"{second.identity.params['num_workers']}: step "
        f"{formats.step_time_interval(step.value, step.low, step.high)} → "
        f"{formats.step_time_interval(other.value, other.low, other.high)}, waiting for data "
        f"{_percent(before)} → {_percent(after)} of it; {verdict}"
    )


def _is_below(first: Reading | MetricRecord, second: Reading | MetricRecord) -> bool:
    """Whether the first interval lies wholly below the second."""
    return first.high is not None and second.low is not None and first.high < second.low


def _wait_share(record: RunRecord) -> float | None:
    stall, wait = record.timing.data_stall_share.value, record.timing.data_wait_share.value
    return wait if stall is None else stall


def _percent(share: float | None) -> str:
    return "n/a" if share is None else formats.percent(share)


def _describe_rates(was: Side, changed: Side) -> str:
    rates = [f"{side.record.identity.params['lr']:g}" for side in (was, changed)]
    ends = [side.failure or _loss_text(side) for side in (was, changed)]
    if changed.failure or changed.loss is None or not math.isfinite(changed.loss):
        verdict = "a lower rate does not help"
    elif was.failure or was.loss is None or not math.isfinite(was.loss):
        verdict = "the rate was too high"
    elif changed.loss < was.loss:
        verdict = "the lower rate learns faster at first: the rate was too high"
    else:
        verdict = "the rate was not too high for these steps"
    return f"lr {rates[0]} → {rates[1]}: {ends[0]} → {ends[1]}; {verdict}"


_COMPARISONS: Final = {
    experiments.LOADER_THREADS: _describe_threads, experiments.TENTH_RATE: _describe_rates,
}  # fmt: skip


def _loss_text(side: Side) -> str:
    loss = "n/a" if side.loss is None else formats.number(side.loss)
    return f"loss {loss} after {side.record.steps} steps"


def _describe_images(side: Side) -> str:
    if side.failure:
        return f"not measured: {side.failure}"
    metrics = {(m.name, m.split): m for m in side.record.metrics}
    compared = [m for m in metrics.values() if (with_variant(m.name, SHUFFLED), m.split) in metrics]
    chosen = headline_metric(compared)
    if chosen is None:
        return "not measured: no split was evaluated with other images"
    other = metrics[with_variant(chosen.name, SHUFFLED), chosen.split]
    verdict = f"the images make no difference that {chosen.n:,} items can tell"
    if _is_below(other, chosen):
        verdict = "the images are used"
    return (
        f"{chosen.name} on {chosen.split} {formats.interval(chosen.value, chosen.low, chosen.high)}"
        f", with the images of other records "
        f"{formats.interval(other.value, other.low, other.high)}; {verdict}"
    )
