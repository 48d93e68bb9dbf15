"""The `[search]` table: what may be asked, and one sentence for everything that may not."""

from __future__ import annotations

import importlib.util
import math
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines.retrieval.params import Params
from workbench.cli import main
from workbench.planning import expand, plan, search_space
from workbench.planning.plan import PlanError
from workbench.planning.search_space import SearchPlan, SearchRange

TABLE = {"subsets": "emoji_train", "models": "clip-nano", "name": "c"}
LR = {"low": 1e-5, "high": 1e-2, "log": True}


def asked(search: dict[str, object], **more: object) -> plan.SuitePlan:
    return plan.parse({**TABLE, "search": {"metric": "recall@10", **search}, **more})


def refusals(tmp_path: Path, search: dict[str, object], **more: object) -> list[str]:
    try:
        expand.expand(asked(search, **more), tmp_path)
    except PlanError as error:
        return error.problems
    return []


def test_a_search_is_one_run_that_its_trials_vary(tmp_path: Path) -> None:
    (spec,) = expand.expand(asked({"ranges": {"lr": LR, "batch": [8, 16, 32]}}), tmp_path)
    assert spec.trial is None
    assert spec.task == "train"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lrr": LR}, "search.ranges: unknown setting 'lrr'; did you mean 'lr'?"),
        ({"lr": {"low": 0.0, "high": 5}}, "search.ranges.lr.high: 'lr' = 5 is wrong: input should"),
        ({"batch": [8, 0]}, "search.ranges.batch[1]: 'batch' = 0 is wrong: input should be gre"),
        ({"batch": {"low": 8, "high": 16.5}}, "search.ranges.batch.high: 'batch' = 16.5 is wron"),
        (
            {"num_workers": {"low": 1, "high": 65}},
            "'num_workers' = 65 is wrong: input should be less",
        ),
        (
            {"num_workers": ["many"]},
            "search.ranges.num_workers[0]: 'num_workers' = 'many' is wrong: input",
        ),
        ({"precision": ["bf16", "fp8"]}, "search.ranges.precision[1]: 'precision' = 'fp8' is wr"),
        ({"save_model": {"low": 0, "high": 1}}, "'save_model' is no number; give a list of values"),
        ({"batch": {"low": 8, "high": 16, "step": 0.5}}, "batch.step: 'batch' takes whole numbers"),
        ({"lr": [date(2026, 1, 1)]}, "search.ranges.lr[0]: 'lr' = "),
        ({"lr": LR, "batch": [8, 16], "temperature": {"low": 0, "high": 2}}, "temperature.low"),
    ],
)
def test_a_range_outside_what_the_engine_takes_is_one_sentence(
    tmp_path: Path, values: dict[str, object], said: str
) -> None:
    found = refusals(tmp_path, {"ranges": values})
    assert any(said in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lr": {"low": 1e-3, "high": 1e-5}}, "low must be a number below high"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "a logarithmic range needs low above 0"),
        ({"lr": {"low": 1e-5}}, "or a list of values such as [8, 16, 32]"),
        ({"lr": {"low": 1e-5, "hihg": 1}}, "unknown key 'search.ranges.lr.hihg'"),
        ({"lr": [1e-3, 1e-3]}, "a value stands twice in the list"),
        ({"lr": []}, "give { low = 1e-5, high = 1e-3 } or a list"),
        ({"lr": {"low": 1, "high": 2, "log": True, "step": 1}}, "give log or step, not both"),
        ({"lr": {"low": 1, "high": 2, "choices": [1, 2]}}, "or low and high, not both"),
        ({"lr": {"low": 1, "high": 2, "step": math.inf}}, "step must be at most high - low"),
        ({}, "should have at least 1 item"),
    ],
)
def test_a_range_that_is_none_is_one_sentence(values: dict[str, object], said: str) -> None:
    with pytest.raises(PlanError) as error:
        asked({"ranges": values})
    assert len(error.value.problems) == 1
    assert said in error.value.problems[0]


def test_all_that_is_wrong_with_a_search_comes_at_once(tmp_path: Path) -> None:
    found = refusals(
        tmp_path, {"ranges": {"lr": LR, "lrr": LR}}, seeds=[1, 2], repeats=3, cost_probe=50,
        settings={"lr": 1e-4},
    )  # fmt: skip
    assert found == [
        "search: 2 seeds; a search compares trials of one kind, so give one",
        "search: 3 repeats; a search compares trials of one kind, so give one",
        "search.ranges.lr: 'lr' is among the settings of the plan, too; leave one out",
        "search.ranges: unknown setting 'lrr'; did you mean 'lr'?",
        "search: a cost probe measures no metric; leave out cost_probe",
    ]


def test_more_trials_than_there_are_choices_are_refused(tmp_path: Path) -> None:
    few = {"batch": [8, 16, 32], "gradient_accumulation_steps": {"low": 1, "high": 2}}
    assert refusals(tmp_path, {"trials": 6, "ranges": few}) == []
    assert refusals(tmp_path, {"trials": 7, "ranges": few}) == [
        "search.trials: 7 are asked for, but the ranges allow only 6; ask for 6 at most"
    ]
    assert refusals(tmp_path, {"trials": 700, "ranges": {**few, "lr": LR}}) == []


def test_without_optuna_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else true(name, *a)
    )
    assert refusals(tmp_path, {"ranges": {"lr": LR}}) == [
        "search: Optuna is not installed; install the `search` extra: "
        "pip install 'workbench-mm[search]'"
    ]


def test_the_plan_that_is_kept_asks_the_same(tmp_path: Path) -> None:
    one = asked({"ranges": {"lr": LR, "batch": [8, 16], "layers": [[3, 7], [5]]}})
    (tmp_path / "plan.toml").write_text(plan.dump(one))
    again = plan.load(tmp_path / "plan.toml")
    assert again == one
    assert again.hash() == one.hash() != plan.parse(TABLE).hash()
    assert plan.parse(TABLE).hash() == plan.parse({**TABLE, "name": "c"}).hash() == "e84bad09f418"


def test_every_choice_is_counted_where_it_can_be() -> None:
    from engines.retrieval import Params

    search = SearchPlan.model_validate(
        {
            "metric": "m",
            "ranges": {
                "batch": [8, 16],
                "gradient_accumulation_steps": {"low": 1, "high": 5, "step": 2},
            },
        }
    )
    found = search_space.enumerate_choices(search, Params)
    assert found is not None
    assert [tuple(one.values()) for one in found] == [
        (8, 1), (8, 3), (8, 5), (16, 1), (16, 3), (16, 5),
    ]  # fmt: skip
    whole = SearchRange(low=8.0, high=10.0).values(whole=True)
    assert [type(value) for value in whole or ()] == [int] * 3, "equal to those that are drawn"
    real = SearchPlan.model_validate({"metric": "m", "ranges": {"lr": LR}})
    assert search_space.enumerate_choices(real, Params) is None


def test_ranges_in_words() -> None:
    assert SearchRange.model_validate(LR).describe() == "1e-05 … 0.01 (log)"
    assert SearchRange.model_validate([8, 16]).describe() == "8, 16"
    assert (
        SearchRange.model_validate({"low": 0, "high": 1, "step": 0.25}).describe()
        == "0 … 1, step 0.25"
    )


def test_threads_are_whole_numbers_beside_their_auto() -> None:
    table = {"num_workers": {"low": 0, "high": 3}, "lr": {"low": 1e-5, "high": 1e-4}}
    search = asked({"ranges": table}).search
    assert search is not None
    assert search_space.whole_settings(search, Params) == {"num_workers"}


def test_zero_trials_are_refused_and_not_twenty() -> None:
    words = "search -d emoji_train -m clip-nano --metric loss --range lr=1e-5..1e-3 --trials 0"
    answer = CliRunner().invoke(main.app, [*words.split(), "--dry-run"])
    assert isinstance(answer.exception, PlanError)
    assert "'search.trials' = 0 is wrong" in str(answer.exception)
