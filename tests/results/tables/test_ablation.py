"""What switching one optimization off changed, on hand-written records."""

import importlib.util
import json
from pathlib import Path

import pytest

from results import report
from results.records.schema import EpochRecord, Exit, MetricRecord, Reading
from results.records.suite_view import SuiteView
from results.tables import ablation
from results.text.table import render_markdown
from tests.results.conftest import GIB, record, unknown_memory, untimed

ON = {"quantize": "nf4", "feature_cache": True, "fused": True, "odd": 1}


def run(label, changes, *, step, memory, loss, low=None, high=None):
    spread = {"low": loss - 0.1, "high": loss + 0.1} if low is None else {"low": low, "high": high}
    return record(
        run_id=f"r-{label.replace(' ', '_')}",
        identity={"label": label, "params": {**ON, **changes}, "engine": "captioning"},
        timing=untimed(
            end_to_end_seconds=Reading(value=60 * step),
            step_median=Reading(value=step, low=step * 0.99, high=step * 1.01),
        ),
        memory=unknown_memory(rss_main_peak=Reading(value=memory * GIB)),
        metrics=(
            MetricRecord(name="loss", value=1.0, split="train", n=8, higher_is_better=False),
            MetricRecord(name="loss", value=loss, split="heldout", n=8, **spread),
            MetricRecord(name="diversity", value=0.75, split="heldout", n=8),
        ),
    )


@pytest.fixture
def records():
    return [
        run("all on", {}, step=0.5, memory=2, loss=3.0),
        run("no 4-bit weights", {"quantize": "none"}, step=0.4, memory=8, loss=2.5),
        run("no odd", {"odd": 2}, step=0.501, memory=2, loss=3.05),
    ]


def test_each_row_is_one_switch_with_its_effect(records):
    table = ablation.table(records)
    first, second = table.rows
    assert [cell.text for cell in first[:2]] == ["4-bit weights (no 4-bit weights)", "memory"]
    # (0.4 - 0.5) / 0.5; limits by hand: sqrt(0.004^2 + 0.005^2) / 0.5 = 1.28 %
    assert first[2].text == "-20.0 % [-21.3 %, -18.7 %]"
    assert first[2].kind == "strong"
    assert first[3].text == "-20.0 %"
    assert first[4].text == "+300.0 %"
    # sqrt(0.1^2 + 0.1^2) = 0.141 around -0.5
    assert first[5].text == "-0.500 [-0.641, -0.359]"
    assert first[5].kind == "strong"
    assert first[6].text == "+0.000"
    assert len(first) == 7, "no experiment beside the comparison: no column of where it is applied"
    assert not any(cell.flags for cell in first), "flags are bold, and bold is for sure changes"
    assert second[0].text == "no odd", "a setting the study does not name goes by its label"
    assert second[2].kind == second[5].kind == "value", "within the intervals"


def test_a_switch_that_takes_another_along_goes_by_its_own_name(records):
    changes = {"early_stopping": False, "validate_every_epochs": 0}
    off = run("no diversity monitoring", changes, step=0.5, memory=2, loss=3.0)
    shown = ablation.table([records[0], off]).rows[0][0].text
    assert shown == "Diversity monitoring (no diversity monitoring)"


def study_run(label, **params):
    return record(
        run_id=f"r-{label}",
        identity={"label": label, "engine": "captioning", "params": params},
        facts={"precision": "bf16 autocast" if label.endswith("v3") else "fp32"},
    )


def test_where_an_optimization_is_applied_comes_from_the_labels_and_settings(records):
    common = {"siglip": "hub:google/siglip2-so400m-patch14-384", "precision": "auto",
              "double_quant": True, "quantize": "none",
              "gradient_accumulation_steps": 1}  # fmt: skip
    study = [
        study_run("E1-v2", early_stopping=False, num_workers=4, **common),
        study_run("E5-v2", early_stopping=False, num_workers=0, **common),
        study_run("E5-v3", stages=[{"early_stopping": True}], num_workers=4, **common),
    ]
    shown = {row[0].text: row[4].text for row in ablation.applied(study).rows}
    assert shown == {
        "SigLIP2": "v2, v3", "Early stopping": "v3", "Mixed precision": "v3",
        "Loader threads, pinned memory": "E1-v2, v3",
    }  # fmt: skip
    switches = {row[0].text: row[3].text for row in ablation.applied(study).rows}
    assert switches["Early stopping"] == "`early_stopping`: `false` → `true`"
    assert switches["Loader threads, pinned memory"] == "`num_workers`: `0` → `4`"
    assert switches["Mixed precision"] == "`precision`: `fp32` → `auto`"
    assert ablation.applied([record()]) is None, "no label, no version"
    staged = study_run("E7-v3", stages=[{"epochs": 2}, {"early_stopping": True}])
    (row,) = [r for r in ablation.applied([staged], "en", {"early_stopping": "6 of 10"}).rows
              if r[0].text == "Early stopping"]  # fmt: skip
    assert row[2].text == "no needless epochs (report: 6 of 10)", "one stage has it on"
    together = ablation.table([*records, *study])
    assert together.rows[0][7].text == "", "4-bit weights are off in all three"
    korean = ablation.applied(study, "ko")
    assert [cell.text for cell in korean.rows[0][:2]] == ["SigLIP2", "품질"]


def test_effects_that_follow_from_the_runs_own_numbers_are_counted():
    ended = EpochRecord(stage=2, epoch=6, stopped=True)
    done = study_run(
        "E5-v3", batch=16, gradient_accumulation_steps=2, frames=8, feature_cache=True,
        stages=[{"epochs": 5}, {"epochs": 10, "early_stopping": True}],
    ).model_copy(update={"samples": 865, "epochs": 5.0, "training_epochs": (ended,)})  # fmt: skip
    effects = {row[0].text: row[2].text for row in ablation.applied([done]).rows}
    assert effects["Vision caching"].endswith(", E5-v3: 6,920 images encoded instead of 34,600")
    assert effects["Gradient accumulation"].endswith(", E5-v3: 16 × 2 = 32")
    assert effects["Early stopping"].endswith(", E5-v3: ended after 6 of 10 epochs")


def test_without_a_baseline_there_is_no_table(records):
    assert ablation.table(records[1:]) is None
    other = record(identity={"label": "no 4-bit weights", "seed": 1})
    assert ablation.table([records[0], other]) is None, "another seed is no partner"


def test_a_run_that_failed_says_so(records):
    failed = records[1].model_copy(update={"exit": Exit(cause="oom-cuda")})
    table = ablation.table([records[0], failed])
    assert table.rows[0][2].text == "oom-cuda"


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_report_has_the_table(records, lang):
    view = SuiteView(suite="s", name="s", records=tuple(records))
    text = report.render(view, lang)
    assert render_markdown(ablation.table(records, lang)) in text
    assert "4-bit weights" in text


def test_every_switch_of_the_preset_is_known_and_off_exactly_once():
    import tomllib

    root = Path(importlib.util.find_spec("workbench").origin).parent
    preset = tomllib.loads((root / "planning/presets/ablation-captioning.toml").read_text())
    from engines.captioning import Params

    settings = {name for v in preset["variant"] for name in v.get("settings", {})}
    assert settings <= Params.model_fields.keys()
    assert set(ablation.load_optimizations()) <= Params.model_fields.keys()
    on = Params.model_validate(preset["settings"]).model_dump()
    for variant in preset["variant"]:
        off = variant.get("settings", {})
        assert (variant["label"] == "all on") == (not off)
        assert all(on[name] != value for name, value in off.items())
        if off:
            assert set(off) & set(ablation.load_optimizations()), variant["label"]
    named = [set(v["settings"]) & set(ablation.load_optimizations()) for v in preset["variant"][1:]]
    switches = {"schedule", "max_grad_norm", "validate_every_epochs", "early_stopping",
                "feature_cache", "precision", "quantize", "double_quant", "gradient_checkpointing",
                "num_workers", "gradient_accumulation_steps"}  # fmt: skip
    assert set().union(*named) == switches


def test_changes_are_paired_over_captions_where_both_runs_kept_theirs(records, tmp_path):
    on, off = records[0], records[1]
    kept = []
    for number, run_ in enumerate((on, off)):
        folder = tmp_path / f"r{number}" / "predictions"
        folder.mkdir(parents=True)
        lines = [
            {"id": str(i), "loss": 3.0 + i % 7 - 0.4 * number + 0.01 * (i % 3) * number}
            for i in range(60)
        ]
        (folder / "heldout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        update = {"scores_file": "predictions/heldout.jsonl"}
        metrics = tuple(
            m.model_copy(update=update) if m.name == "loss" and m.split == "heldout" else m
            for m in run_.metrics
        )
        kept.append(run_.model_copy(update={"metrics": metrics, "folder": f"r{number}"}))
    found = ablation.compute_changes(kept, tmp_path)
    change = found[off.identity.run_id]["loss"]
    assert change.delta == pytest.approx(-0.39)
    assert -0.395 < change.low < change.delta < change.high < -0.385, "narrow: captions are paired"
    assert found[off.identity.run_id]["diversity"].low is None
    table = ablation.table(kept, "en", found)
    assert table.rows[0][5].text.startswith("-0.390 [")
    assert table.rows[0][5].kind == "strong"
    assert ablation.table(kept).rows[0][5].text == "-0.500 [-0.641, -0.359]", "without files"
