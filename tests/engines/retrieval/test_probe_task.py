"""A cost probe of the retrieval engine: the first steps of the run, and nothing else of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import model_catalog
from engines.emitter import Emitter
from engines.protocol import Probe, RunSpec
from engines.retrieval import Params, run
from engines.torchkit.training import loop


def go(tiny: Path, run_dir: Path, losses: list[float], monkeypatch, **changes) -> list:
    """All messages of a run; `losses` gets the loss of every step."""
    inner = loop.train

    def spied(job, *rest):
        forward = job.forward

        def spy(batch):
            outcome = forward(batch)
            losses.append(outcome.loss.item())
            return outcome

        job.forward = spy
        inner(job, *rest)

    monkeypatch.setattr(loop, "train", spied)
    settings = dict(model_catalog.load("pico").settings) | {
        "data_root": str(tiny / "data"), "threads": 1, "timing_warmup_steps": 2, "epochs": 3,
        "batch": 4, "modality_dropout": 0.3,
    }  # fmt: skip
    spec = RunSpec(
        suite="s", run_id="01-tiny", engine="retrieval", subset="tiny_train", model="pico",
        cache_root=str(tiny / "cache"), params=Params(**settings).model_dump(mode="json"),
        **changes,
    )  # fmt: skip
    emit = Emitter()
    run_dir.mkdir()
    run(spec, emit, run_dir)
    emit.close()
    monkeypatch.undo()
    return emit.sent


@pytest.fixture
def probed(tiny, tmp_path, monkeypatch):
    losses: list[float] = []
    sent = go(tiny, tmp_path / "probe", losses, monkeypatch, task="probe", probe=Probe(steps=10))
    return sent, losses, tmp_path


def test_its_losses_are_the_first_of_the_full_run(probed, tiny, monkeypatch):
    _, losses, tmp_path = probed
    whole: list[float] = []
    go(tiny, tmp_path / "whole", whole, monkeypatch)
    assert (len(losses), len(whole)) == (12, 45)
    assert losses == whole[:12], "the same schedule, batches and draws"


def test_it_plans_the_whole_run_and_ends_where_it_says(probed):
    sent, _, _ = probed
    plan = next(m for m in sent if m.kind == "plan")
    assert (plan.steps, plan.stop_at) == (45, 12)
    forecast = next(m for m in sent if m.kind == "forecast")
    assert forecast.run_steps == 45
    assert (forecast.steps, forecast.samples) == (10, 48)
    assert forecast.run_seconds > forecast.start_seconds > 0
    assert forecast.disk["image cache"] > 0
    assert forecast.disk["weights kept"] > 10_000


def test_it_neither_evaluates_nor_keeps_anything(probed):
    sent, _, tmp_path = probed
    kinds = {m.kind for m in sent}
    assert not kinds & {"metric", "artifact"}
    phases = {m.name for m in sent if m.kind == "phase"}
    assert not phases & {"eval", "encode", "search", "save"}
    assert [p for p in (tmp_path / "probe").rglob("*") if p.is_file()] == []
