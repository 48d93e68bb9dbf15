"""Success criteria: what is one, and how it is judged."""

from __future__ import annotations

import pytest

from results.comparison import criteria
from results.records.schema import MetricRecord, Reading


@pytest.fixture
def run(make):
    values = {"diversity": 0.11, "SigLIP probability (x)": 0.113, "METEOR (kiwi)": 0.066}
    metrics = [
        MetricRecord(name=name, value=value, split="val", n=97, low=value - 0.05, high=value + 0.05)
        for name, value in values.items()
    ]
    other = MetricRecord(name="diversity", value=0.9, split="train", n=97)
    return make.record(metrics=(other, *metrics), train={"loss": 1.5, "epoch_loss": 1.6})


@pytest.mark.parametrize(("text", "verdict", "certain"), [
    ("diversity > 0.5", "not met", True),
    ("siglip >= 0.1", "met", False),
    ("SigLIP > 0.01", "met", True),
    ("METEOR >= previous", "met", False),
    ("loss < 1.7", "met", True),
    ("diversity > 0.5 on train", "met", True),
    ("wall <= 500", "met", True),
    ("rss < 1e9", "not met", True),
    ("vram < 1e9", "not measured", False),
    ("accuracy > 0.9", "not measured", False),
])  # fmt: skip
def test_judgements(make, run, text, verdict, certain) -> None:
    judged = criteria.judge(text, run, run)
    assert (judged.verdict, judged.certain) == (verdict, certain)


def test_without_an_earlier_run_nothing_is_kept(run, make) -> None:
    assert criteria.judge("METEOR >= previous", run, None).verdict == "not measured"
    better = make.record(metrics=(run.metrics[3].model_copy(update={"value": 0.2}),))
    judged = criteria.judge("METEOR >= previous", run, better)
    assert (judged.verdict, judged.bound) == ("not met", 0.2)
    assert judged.reading == Reading(value=0.066, low=run.metrics[3].low, high=run.metrics[3].high)


@pytest.mark.parametrize(
    "text", ["", "diversity", "diversity > high", "> 0.5", "a = 3", "a < 1 on"]
)
def test_no_criterion(text) -> None:
    with pytest.raises(ValueError, match="is no criterion; write METRIC SIGN NUMBER"):
        criteria.parse_criterion(text)
