"""What the VQA notebook expects, shown beside runs of its recipes and beside no others."""

import pytest

from results.records import published
from results.records.schema import Environment, Exit, MetricRecord, Reading
from results.text.table import render_markdown
from results.text.translations import LANGS
from tests.results.conftest import untimed

QUICK, SINGLE, THREE = published.expectations()[:3]


def runs(make, recipe, *, samples=None, **changes):
    """Records of all runs of a recipe: its folds, and their ensemble."""
    params = {**recipe.settings, "data_root": "/data", "num_workers": 3, "max_steps": None}
    params |= changes.pop("params", {})
    identity = {"engine": "vqa", "subset": recipe.subset, "model": recipe.model}
    identity |= changes.pop("identity", {})
    samples = round(recipe.train_rows) if samples is None else samples
    held_out = MetricRecord(
        name="accuracy", value=0.55, split="validation", n=80, low=0.44, high=0.66
    )
    folds = [
        make.record(
            f"0{fold}", identity={**identity, "params": {**params, "fold": fold}},
            samples=samples, metrics=(held_out,),
            timing=untimed(end_to_end_seconds=Reading(value=600.0)),
            environment=Environment(device="Tesla T4"), **changes,
        )
        for fold in range(recipe.runs)
    ]  # fmt: skip
    if recipe.runs == 1:
        return folds
    joined = held_out.model_copy(update={"value": 0.6, "split": "out-of-fold"})
    last = {**identity, "task": "ensemble", "params": params}
    brief = untimed(end_to_end_seconds=Reading(value=60.0))
    voted = make.record("ensemble", identity=last, samples=0, metrics=(joined,), timing=brief)
    return [*folds, voted]


def shown(records, lang="en"):
    table = published.table(records, lang)
    return render_markdown(table) if table else ""


def test_every_expectation_has_its_preset():
    from workbench.memory_estimate import plan_estimate
    from workbench.planning import plan

    for recipe in published.expectations():
        (spec,) = plan_estimate.expand_runs(plan.load_preset(recipe.preset), plan.PRESETS)
        assert (
            published.find_expectation(spec.engine, spec.subset, spec.model, spec.params) is recipe
        )
        low, high = recipe.accuracy or (0.3, 0.4)
        assert 0.25 < low < high < 1


@pytest.mark.parametrize("lang", LANGS)
def test_a_recipe_that_was_run_shows_both(make, lang):
    text = shown(runs(make, QUICK), lang)
    assert "0.60–0.65" in text
    assert "0.550 [0.440, 0.660] (n = 80)" in text
    assert "10:00.00 (Tesla T4)" in text
    assert "| 0.760 |" in text, "the public score of the same recipe"
    folded = shown(runs(make, THREE), lang)
    assert "0.79–0.82" in folded
    assert "0.600 [" in folded, "the ensemble's accuracy on all held-out rows"
    assert "31:00.00 (Tesla T4)" in folded, "all runs together"


def test_a_toy_under_a_presets_name_shows_no_expectation(make):
    """Three steps of a toy model on a CPU are no test of what a 7B model is expected to reach."""
    named = {"suite": "20261121-104605-vqa-3fold-7b-tta-3d5e"}
    assert not shown(runs(make, THREE, identity={**named, "model": "nano-qwen-vl"}))
    assert not shown(runs(make, THREE, identity=named, params={"max_steps": 3}))
    assert not shown([make.record(identity={**named, "engine": "vqa"})])


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"epochs": 2.0}},
        {"params": {"long_side": 512}},
        {"params": {"swa": True}},
        {"params": {"tta_options": True}},
        {"params": {"a_later_switch": True}},
        {"identity": {"model": "qwen2.5-vl-7b"}},
        {"identity": {"subset": "easy_vqa_train"}},
        {"identity": {"engine": "captioning"}},
        {"identity": {"task": "probe"}},
        {"samples": 3000},
        {"samples": 400},
    ],
)
def test_another_model_setting_or_number_of_rows_has_no_expectation(make, changes):
    assert shown(runs(make, SINGLE))
    assert not shown(runs(make, SINGLE, **changes))


def test_an_unfinished_recipe_has_no_figure_of_its_own(make):
    whole = runs(make, THREE)
    failed = make.record(identity=whole[0].identity.model_dump(), samples=whole[0].samples,
                         exit=Exit(cause="failed", code=1))  # fmt: skip
    for part in (whole[:3], [whole[0], whole[3]], [failed, *whole[1:]]):
        text = shown(part)
        assert text.count("not all runs completed") == 2
        assert "0.79–0.82" in text


def test_folds_may_differ_by_a_picture_and_not_by_more(make):
    assert THREE.train_rows == pytest.approx(2591.3, abs=0.1)
    assert (QUICK.train_rows, SINGLE.train_rows) == pytest.approx((180, 3498.3))
    assert shown(runs(make, THREE, samples=2600))
    assert not shown(runs(make, THREE, samples=2700))


def test_words_name_machine_and_rows():
    assert QUICK.describe() == (
        "20:00 (T4), accuracy 0.60–0.65, public score 0.760, 200 of 3,887 rows"
    )
    assert SINGLE.describe() == "2:00:00 (T4), accuracy 0.75–0.78, 3,887 rows"
