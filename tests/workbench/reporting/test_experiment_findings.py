"""Findings of experiments: a sentence from the records of both sides, noted once."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from results.records.schema import Exit, MetricRecord, Reading
from tests.workbench.tui import sample_suites
from workbench.audit.experiments import AS_IT_WAS
from workbench.reporting import experiment_findings, note_writer
from workbench.reporting.experiment_findings import ExperimentLink, Side
from workbench.suites import suite


def side(label: str, loss: float | None = None, **changes: Any) -> Side:
    record = sample_suites.record("s", 1, random.Random(1))
    params = changes.pop("params", {})
    identity = record.identity.model_copy(update={"label": label, "params": params})
    step = changes.pop("step", None)
    timing = record.timing.model_copy(update={"step_median": step} if step else {})
    return Side(record.model_copy(update={"identity": identity, "timing": timing, **changes}), loss)


def threads(count: int, seconds: float, label: str) -> Side:
    step = Reading(value=seconds, low=seconds - 0.01, high=seconds + 0.01)
    return side(label, params={"num_workers": count}, step=step)


@pytest.mark.parametrize(
    ("after", "wait", "verdict"),
    [
        (0.05, 0.4, "shorter: it waited"),
        (0.05, 0.031, "hardly waited"),
        (0.2, 0.4, "longer"),
        (0.105, 0.4, "no difference"),
    ],
)
def test_threads_are_judged_by_the_intervals_of_a_step_and_its_waiting(
    after: float, wait: float, verdict: str
) -> None:
    was = threads(2, 0.1, AS_IT_WAS)
    timing = was.record.timing.model_copy(update={"data_wait_share": Reading(value=wait)})
    was = was._replace(record=was.record.model_copy(update={"timing": timing}))
    sides = [threads(4, after, "twice the loader threads"), was]
    finding = experiment_findings.describe_finding("loader-threads", sides)
    assert finding.startswith("num_workers 2 → 4: step 100.0 ms [90.0, 110.0] → ")
    assert f"{wait:.1%}".replace("%", " %") + " → 3.1 %" in finding
    assert verdict in finding


def test_a_lower_rate_is_judged_by_the_loss_at_the_end() -> None:
    def find(before: float, after: float, **changes: Any) -> str:
        was = side(AS_IT_WAS, before, params={"lr": 0.1}, **changes)
        slower = side("a tenth of the learning rate", after, params={"lr": 0.01})
        return experiment_findings.describe_finding("tenth-rate", [was, slower])

    assert "lr 0.1 → 0.01: loss 2.0000 after" in find(2.0, 1.0)
    assert find(2.0, 1.0).endswith("the rate was too high")
    assert find(1.0, 2.0).endswith("the rate was not too high for these steps")
    assert find(math.nan, 2.0).endswith("the rate was too high")
    assert find(1.0, math.nan).endswith("a lower rate does not help")
    failed = find(1.0, 2.0, exit=Exit(cause="failed", detail="loss is NaN"))
    assert "0.01: failed: loss is NaN → loss 2.0000" in failed


def test_images_are_judged_by_the_headline_with_those_of_others() -> None:
    def find(other: float) -> str:
        metrics = tuple(
            MetricRecord(name=name, split="emoji_val", value=value, n=748, low=value - 0.03,
                         high=value + 0.03)
            for name, value in (("recall@1", 0.67), ("recall@1[shuffled images]", other))
        )  # fmt: skip
        return experiment_findings.describe_finding("shuffled-images", [side("x", metrics=metrics)])

    assert find(0.02).startswith("recall@1 on emoji_val 0.670 [0.640, 0.700], with the images of")
    assert find(0.02).endswith("the images are used")
    assert find(0.66).endswith("no difference that 748 items can tell")
    lone = experiment_findings.describe_finding("shuffled-images", [side("x")])
    assert lone.startswith("not measured")


def test_a_finding_is_noted_once_on_the_run(tmp_path: Path) -> None:
    folder = sample_suites.make_suite(tmp_path, [("emoji_train", "clip-nano")])
    with pytest.raises(suite.SuiteError, match="is no experiment"):
        experiment_findings.note_finding(folder)
    link = ExperimentLink(code="shuffled-images", suite="earlier", run_id="01-a")
    experiment_findings.write_link(folder, link)
    with pytest.raises(suite.SuiteError, match="no run of it has a record"):
        experiment_findings.note_finding(folder)
    _, spec = suite.read_runs(folder)[0]
    record = sample_suites.record(folder.name, 1, random.Random(1))
    identity = record.identity.model_copy(update={"run_id": spec.run_id})
    sample_suites.append_record(tmp_path, record.model_copy(update={"identity": identity}))
    finding = experiment_findings.note_finding(folder)
    assert experiment_findings.note_finding(folder) == finding
    assert note_writer.read_standing(tmp_path, ("earlier", "01-a")).findings == (finding,)
    assert finding.endswith(f"({folder.name})")
