"""Presets that carry a document's name have the settings that the document states."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from engines import catalog
from engines.protocol import RunSpec
from results.records import published
from workbench.memory_estimate import automatic_settings, expectations, gpus, plan_estimate
from workbench.planning import plan

DOCUMENTS: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[2] / "fixtures" / "documents.toml").read_text("utf-8")
)
VQA: tuple[str, ...] = tuple(DOCUMENTS["vqa"]["presets"])
PUBLIC: tuple[str, ...] = tuple(DOCUMENTS["vqa"]["public"])
WHOLE = ("weekly-m2kr", "audit-vqa")


def specs(name: str) -> dict[str, RunSpec]:
    """The runs of a preset by label, with every default filled in."""
    return {
        spec.label: spec
        for spec in plan_estimate.expand_runs(plan.load_preset(name), Path("no-cache"))
    }


def differing(spec: RunSpec, stated: dict[str, Any]) -> dict[str, Any]:
    """Stated settings that a run has otherwise."""
    return {name: spec.params[name] for name in stated if spec.params[name] != stated[name]}


@pytest.mark.parametrize("name", WHOLE)
def test_settings_of_the_weekly_report_and_the_audit(name: str) -> None:
    document = DOCUMENTS[name]
    for spec in specs(name).values():
        assert differing(spec, document["settings"]) == {}


@pytest.mark.parametrize("name", ["weekly-m2kr", "siglip-study", "audit-vqa", *VQA])
def test_models_seeds_and_devices(name: str) -> None:
    preset, document = plan.load_preset(name), DOCUMENTS[name]
    assert list(preset.models) == document["models"]
    assert list(preset.seeds) == document.get("seeds", [42])
    assert list(preset.devices) == document.get("devices", [])


@pytest.mark.parametrize("name", ["weekly-m2kr", "siglip-study"])
def test_subsets_have_the_documents_sizes(name: str, tmp_path: Path) -> None:
    document = DOCUMENTS[name]
    preset = plan.load_preset(name)
    assert {s: plan_estimate.count_rows(s, tmp_path) for s in preset.subsets} == document["rows"]
    for subset, rows in document.get("validation", {}).items():
        assert preset.settings["validate_on"] == subset
        assert plan_estimate.count_rows(subset, tmp_path) == rows


def test_the_studys_experiments() -> None:
    document, made = DOCUMENTS["siglip-study"], specs("siglip-study")
    assert made.keys() == document["variants"].keys()
    for label, spec in made.items():
        assert differing(spec, document["settings"] | document["variants"][label]) == {}, label
        stages = spec.params["stages"]
        for stage, stated in zip(stages, document["stages"][label], strict=True):
            assert {name: stage[name] for name in stated} == stated, label
            assert stage["early_stopping"] in (None, stated.get("early_stopping"))
        trained = [params["trainable"] for params in catalog.stage_params(spec.params)]
        assert trained == [["projector"], ["projector", "lora"]]


@pytest.mark.parametrize("name", VQA)
def test_recipes_of_the_vqa_notebook(name: str) -> None:
    stated = DOCUMENTS["vqa"]["settings"] | DOCUMENTS[name]["settings"]
    (spec,) = specs(name).values()
    assert differing(spec, stated) == {}
    assert spec.params["ema"] > 0, "EMA is on in the notebook's configuration"
    assert not (spec.params["ema"] and spec.params["swa"]), "one average answers"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_steps_have_their_settings_and_their_score(name: str, tmp_path: Path) -> None:
    (spec,) = specs(name).values()
    assert spec.model == DOCUMENTS[name]["models"][0]
    assert differing(spec, DOCUMENTS[name]["settings"]) == {}
    (recipe,) = expectations.plan_expectations(plan.load_preset(name), tmp_path)
    assert recipe.public_score == DOCUMENTS[name]["public_score"]
    assert f"public score {recipe.public_score:.3f}" in recipe.describe()
    assert recipe.brief().endswith(f"public {recipe.public_score:.3f}")


@pytest.mark.parametrize("name", VQA)
def test_expectations_are_the_notebooks(name: str, tmp_path: Path) -> None:
    stated = DOCUMENTS[name]["expected"]
    (recipe,) = expectations.plan_expectations(plan.load_preset(name), tmp_path)
    assert (recipe.seconds, list(recipe.accuracy)) == (stated["minutes"] * 60, stated["accuracy"])
    assert recipe.rows == DOCUMENTS["audit-vqa"]["steps"]["rows"]


def test_an_expectation_goes_with_what_runs_and_not_with_a_name(tmp_path: Path) -> None:
    preset = plan.load_preset("vqa-3fold-7b-tta")
    assert expectations.describe_expectations(preset, tmp_path).startswith(
        "published, not measured here"
    )
    renamed = preset.model_copy(update={"name": "mine"})
    assert expectations.plan_expectations(renamed, tmp_path)
    for change in (
        {"models": ("nano-qwen-vl",)},
        {"settings": preset.settings | {"max_steps": 3}},
        {"settings": preset.settings | {"swa": True}},
        {"task": "evaluate"},
        {"cost_probe": 200},
        {"overrides": (plan.Override(seed=42, settings={"epochs": 1}),)},
    ):
        assert (
            expectations.describe_expectations(preset.model_copy(update=change), tmp_path) == ""
        ), change
    placed = preset.settings | {"data_root": "/data", "num_workers": 2}
    assert expectations.plan_expectations(preset.model_copy(update={"settings": placed}), tmp_path)


def test_a_subset_built_with_other_rows_has_no_expectation(tmp_path: Path, monkeypatch) -> None:
    for rows, shown in ((3887, True), (3880, True), (100, False), (None, True)):
        monkeypatch.setattr(plan_estimate, "count_rows", lambda *_, rows=rows: rows)
        assert (
            bool(expectations.plan_expectations(plan.load_preset("vqa-quick"), tmp_path)) == shown
        )


def test_the_audits_steps_on_an_a10g() -> None:
    stated = DOCUMENTS["audit-vqa"]["steps"]
    gpu = gpus.find_gpu("A10G")
    asked = automatic_settings.apply_automatic_settings(plan.load_preset("audit-vqa"), (), gpu, {})
    (spec,) = plan_estimate.expand_runs(asked, Path("no-cache"))
    steps = plan_estimate.count_steps(spec.params, stated["rows"])._asdict()
    steps["eval_batch_size"] = spec.params["eval_batch_size"]
    assert {name: steps[name] for name in stated} == stated


def test_each_run_of_the_ablation_switches_something_off() -> None:
    runs = specs("ablation-captioning")
    everything = runs.pop("all on").params
    assert len(runs) == 11
    assert [label for label, spec in runs.items() if not differing(spec, everything)] == []


def test_every_expectation_is_in_the_documents() -> None:
    assert {recipe.preset for recipe in published.expectations()} == {*VQA, *PUBLIC}
