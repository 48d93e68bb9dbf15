"""The filter language: what each term selects, and what a wrong one is told."""

from __future__ import annotations

import pytest

from results.listing.run_filter import FilterError, ListedRun, parse_filter, select_runs
from results.listing.summary import summarize_record
from results.records.notes import RunNotes
from results.records.schema import MetricRecord

NOW = 1_795_000_000.0
DAY = 86_400.0


@pytest.fixture
def runs(make):
    metric = MetricRecord(name="recall@1", value=0.4, split="emoji_val", n=9)
    base = summarize_record(make.record(metrics=(metric,)))._replace(
        suite="20261121-000001-weekly-1a2b", run_id="a", label="E5 v2", subset="emoji_train",
        model="clip-nano", started=NOW - DAY, steps=100, seed=42,
        numbers={"wall": 500.0, "step": 0.5, "rss": 3.0 * 2**30}, params={"lr": 1e-3, "tf32": True},
    )  # fmt: skip
    other = base._replace(
        run_id="b", label="", subset="okvqa_mm_train", model="effnet-minilm", cause="oom-cuda",
        detail="CUDA out of memory", started=NOW - 30 * DAY, numbers={}, metrics=(), headline=-1,
        params={"lr": 2e-5, "tf32": False, "layers": [3, 7]}, seed=7,
    )  # fmt: skip
    never = base._replace(
        run_id="c", cause="stopped", started=None, steps=0, numbers={}, metrics=(), headline=-1
    )
    noted = RunNotes(findings=("mode collapse",), tags=frozenset({"best"}), state="기존 실험")
    return [ListedRun(base, noted), ListedRun(other), ListedRun(never, RunNotes(trashed="test"))]


SELECTED = {
    "": "ab", "clip": "a", "clip emoji": "a", "clip okvqa": "", "-clip": "b", '"E5 v2"': "a",
    "model:clip": "a", "model:clip,eff": "ab", "model:*nano": "a", "model=clip": "",
    "model=CLIP-nano": "a", "model!=clip-nano": "b", "label:E5": "a", "-label:E5": "b",
    'label:"E5 v2"': "a", "end:ok": "a", "end:failed": "b", "end:oom": "b",
    "end:never in:trash": "c", "end!=ok": "b", "end!=failed": "a", "end:ok,failed": "ab",
    "end=failed,completed": "ab", "end:never,oom in:trash": "c", "end:FAILED": "b",
    "why:memory": "b", "since:7d": "a", "since:48h": "a", "until:7d": "b", "since:2026-11-01": "a",
    "score>.3": "a", "score>30%": "a", "score>.5": "", "score>=.4": "a", "score:.3...5": "a",
    "score:.41..": "", "recall@1>.3": "a", "recall@1@emoji_val<1": "a", "wall<10m": "a",
    "wall<400": "", "step<600ms": "a", "rss<4GiB": "a", "rss>4GiB": "", "lr>1e-4": "a",
    "lr=2e-5": "b", "lr=0.00002,1e-3": "ab", "lr!=1e-3": "b", "lr:..1e-4": "b", "tf32=true": "a",
    'layers="3 7"': "b", "seed=7": "b", "tag:best": "a", "note:collapse": "a", "state:기존": "a",
    "in:trash": "c", "collapse": "a",
}  # fmt: skip


@pytest.mark.parametrize("text", SELECTED)
def test_a_term_selects(runs, text):
    names = ["lr", "tf32", "layers", "recall@1", "recall@1@emoji_val"]
    chosen = select_runs(runs, parse_filter(text, names, now=NOW))
    assert "".join(run.summary.run_id for run in chosen) == SELECTED[text]


WRONG = {
    "modle:clip": "no field 'modle'; did you mean model?",
    "learning:1": "there are suite, run, label",
    "score>high": "'high' is no number; write score>.3",
    "wall<10min": "'min' is no unit of wall; it has us, ms, s",
    "score>3GiB": "'GiB' is no unit of score; it has %",
    "since:yesterday": "'since:yesterday' is no time; write since:7d",
    "since>7d": "write since:7d",
    "model>clip": "model is a text; write model:clip",
    "model:": "'model:' has nothing behind ':'",
    "in:bin": "write in:trash",
    'label:"E5': "has no partner",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_term_is_told_what_is_wrong(text):
    with pytest.raises(FilterError) as raised:
        parse_filter(f"end:ok {text}", ["lr"])
    assert WRONG[text] in str(raised.value)


def test_score_means_the_chosen_metric(runs):
    chosen = parse_filter("score>.3", metric="mrr@10@emoji_val")
    assert select_runs(runs, chosen) == []
