"""A setting `folds` becomes runs and their ensemble; everything else stays as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, ConfigDict

from engines import catalog
from results.listing import run_filter, summary
from workbench.planning import expand, fold_runs, plan
from workbench.suites import record, state
from workbench.suites import run_summary as lines_of
from workbench.tui.view_models.live import rows as live_rows
from workbench.tui.view_models.results import rows

BASE = {"engine": "folded", "subsets": "s", "models": "m", "settings": {"folds": 3}}


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folds: int = 0
    fold: int = 0
    lr: float = 0.1


@pytest.fixture(autouse=True)
def folded(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    module = SimpleNamespace(TASKS=("train", "evaluate", "ensemble"), NEEDS=(), Params=Params)
    load = catalog.load
    monkeypatch.setattr(catalog, "names", lambda: ["folded", "probe"])
    monkeypatch.setattr(catalog, "load", lambda name: module if name == "folded" else load(name))
    return module


def expand_runs(tmp_path: Path, **changes: object) -> list[plan.RunSpec]:
    return expand.expand(plan.parse({**BASE, **changes}), tmp_path)


def test_three_folds_are_three_runs_and_an_ensemble_that_needs_them(tmp_path: Path) -> None:
    runs = expand_runs(tmp_path)
    assert [r.run_id for r in runs] == [
        "01-folded-s-m-f1", "02-folded-s-m-f2", "03-folded-s-m-f3", "04-folded-s-m-ensemble",
    ]  # fmt: skip
    assert [r.task for r in runs] == ["train"] * 3 + ["ensemble"]
    assert [r.params["fold"] for r in runs] == [0, 1, 2, 0]
    assert runs[-1].needs == tuple(r.run_id for r in runs[:3])
    assert all(not r.needs for r in runs[:3])


def test_front_ends_tell_the_runs_apart(tmp_path: Path) -> None:
    runs = expand_runs(tmp_path)
    said = [fold_runs.fold_label(run) for run in runs]
    assert said == ["fold 1/3", "fold 2/3", "fold 3/3", "ensemble"]
    assert fold_runs.fold_label(expand_runs(tmp_path, settings={})[0]) == ""
    views = [state.RunView(run, run.run_id) for run in runs]
    lines = [lines_of.progress_line(view, 1, 4) for view in views]
    assert lines[1] == "[1/4] s m fold 2/3 · queued"
    queue, keys = live_rows.queue_rows(state.SuiteState("s", runs=tuple(views)))
    assert len(set(keys)) == 4
    assert [row[1].text for row in queue] == [f"{word} s" for word in said]
    assert "ensemble · seed 42" in live_rows.format_title(views[3])
    summaries = [
        summary.summarize_record(record.build_record(run, state.RunState(), run.run_id))
        for run in runs
    ]
    labels = rows.distinguishing_labels([run_filter.ListedRun(s) for s in summaries])
    assert [labels[s.key] for s in summaries] == said


def test_every_cell_has_its_own_ensemble(tmp_path: Path) -> None:
    runs = expand_runs(tmp_path, seeds=[1, 2], variant=[{"label": "a"}, {"label": "b"}])
    assert len(runs) == 2 * 2 * 4
    assert len({r.run_id for r in runs}) == 16
    assert [r.run_id.split("-")[0] for r in runs] == [f"{n:02d}" for n in range(1, 17)]
    by_id = {r.run_id: r for r in runs}
    for run in runs:
        if run.task == "ensemble":
            needed = [by_id[name] for name in run.needs]
            assert {(n.seed, n.label) for n in needed} == {(run.seed, run.label)}


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"folds": 3, "fold": 0}},
        {"settings": {"folds": 0}},
        {"settings": {}},
        {"settings": {"folds": 3}, "task": "evaluate"},
        {"settings": {"folds": 3}, "override": [{"model": "m", "settings": {"fold": 2}}]},
    ],
)
def test_one_fold_none_or_another_task_is_one_run(changes: dict, tmp_path: Path) -> None:
    runs = expand_runs(tmp_path, **changes)
    assert [r.run_id for r in runs] == ["01-folded-s-m"]
    assert runs[0].needs == ()


def test_a_costing_run_is_not_done_for_every_fold(folded: SimpleNamespace, tmp_path: Path) -> None:
    folded.TASKS = ("train", "probe", "ensemble")
    runs = expand_runs(tmp_path, cost_probe=50)
    assert [(r.run_id, r.task) for r in runs] == [("01-folded-s-m-probe", "probe")]


def test_an_engine_without_ensembles_has_folds_alone(
    folded: SimpleNamespace, tmp_path: Path
) -> None:
    folded.TASKS = ("train",)
    assert [r.task for r in expand_runs(tmp_path)] == ["train"] * 3


def test_variants_may_differ_in_their_folds(tmp_path: Path) -> None:
    runs = expand_runs(
        tmp_path,
        settings={},
        variant=[{"label": "one"}, {"label": "two", "settings": {"folds": 2}}],
    )
    assert [r.run_id for r in runs] == [
        "01-folded-s-m-one", "02-folded-s-m-two-f1", "03-folded-s-m-two-f2",
        "04-folded-s-m-two-ensemble",
    ]  # fmt: skip


def test_long_names_keep_what_tells_them_apart(tmp_path: Path) -> None:
    runs = expand_runs(tmp_path, subsets="x" * 200)
    assert len({r.run_id for r in runs}) == 4
    assert all(len(r.run_id) <= 96 for r in runs)
    assert runs[-1].run_id.endswith("-ensemble")


def test_old_plans_keep_their_hashes() -> None:
    asked = plan.parse({"engine": "retrieval", "subsets": "emoji_train", "models": "clip-nano"})
    assert asked.hash() == "eed346370a1a"
