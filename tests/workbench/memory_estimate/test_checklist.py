"""The audit's checklist, its remedies and its own estimate, as `workbench plan` prints them."""

from __future__ import annotations

import pytest

from engines.memory_query import MemoryEstimate
from engines.protocol import RunSpec
from workbench.memory_estimate import (
    audited_prediction,
    automatic_settings,
    checklist,
    gpus,
    plan_estimate,
)
from workbench.memory_estimate.gpus import GIB
from workbench.memory_estimate.policy import GB
from workbench.planning import plan

A10G = gpus.find_gpu("A10G")


@pytest.fixture
def audit(tmp_path) -> list[RunSpec]:
    asked = automatic_settings.apply_automatic_settings(plan.load_preset("audit-vqa"), (), A10G, {})
    return plan_estimate.expand_runs(asked, tmp_path)


def test_the_audits_variables_come_back_as_they_were_exported(audit):
    lines = checklist.checklist_lines(audit, ["workbench", "run", "-p", "audit-vqa"])
    assert [line.partition(".")[0] for line in lines] == [str(n + 1) for n in range(len(lines))]
    text = "\n".join(lines)
    for said in (
        "PER_DEVICE_BATCH=2 EFFECTIVE_BATCH_SIZE=16 LORA_R=32 LORA_ALPHA=64 LORA_DROPOUT=0.08",
        "PRED_BATCH_SIZE=6 MAX_NEW_TOKENS=16", "pip install '.[vqa]'",
        "`workbench run -p audit-vqa`", "`CUDA out of memory`", "results show RUN",
        "runs/RUN/checkpoints/adapter/",
    ):  # fmt: skip
        assert said in text


def test_the_weekly_variables_are_those_of_its_log(tmp_path):
    specs = plan_estimate.expand_runs(plan.load_preset("weekly-m2kr"), tmp_path)
    text = "\n".join(checklist.checklist_lines(specs, ["workbench", "run"]))
    assert "NUM_EPOCHS=1 WARMUP_STEPS=20 PER_DEVICE_TRAIN_BS=64 GRAD_ACCUM=1" in text
    assert "NUM_WORKERS=12 PIN_MEMORY=False BF16=True TF32=True" in text
    assert "EFFECTIVE_BATCH_SIZE" not in text


@pytest.mark.parametrize(
    ("preset", "changes", "target"),
    [
        ("weekly-m2kr", {}, "."),
        ("weekly-m2kr", {"search": "faiss-flat"}, "'.[retrieval]'"),
        ("demo", {}, "'.[demo]'"),
        ("demo-captioning", {}, "'.[captioning,demo]'"),
    ],
)
def test_what_is_to_be_installed_is_what_the_runs_need(preset, changes, target, tmp_path):
    specs = plan_estimate.expand_runs(plan.load_preset(preset), tmp_path)
    specs = [s.model_copy(update={"params": {**s.params, **changes}}) for s in specs]
    first = checklist.checklist_lines(specs, ["workbench", "run"])[0]
    assert f"`pip install {target}` in the repository" in first


def test_a_run_without_data_or_model_needs_no_extra(tmp_path):
    probe = plan.parse({"engine": "probe", "subsets": "none", "models": "none"}, "plan.toml")
    specs = plan_estimate.expand_runs(probe, tmp_path)
    assert "`pip install .` in" in checklist.checklist_lines(specs, ["workbench", "run"])[0]


def test_remedies_are_the_audits_even_where_it_fits(audit):
    text = "\n".join(checklist.remedy_lines(audit[0], "train"))
    assert "batch = 1, gradient_accumulation_steps = 16" in text
    assert "lora_rank = 24" in text
    for variable in ("PER_DEVICE_BATCH=1", "EFFECTIVE_BATCH_SIZE=12", "LORA_R=24"):
        assert variable in text


def test_the_audits_estimate_stands_beside_ours_where_settings_are_its_own(audit):
    need = MemoryEstimate(phases={"train": {"all": 5 * GIB}, "predict": {"all": 4 * GIB}})
    assert audited_prediction.is_audited(audit[0], need, A10G)
    said = audited_prediction.describe(need, A10G)
    assert "15 to 17 GB in prediction" in said
    assert "ours: 5.1 GB" in said  # 4 GiB and 6 % of slack, context and workspace
    more = audit[0].model_copy(update={"params": {**audit[0].params, "eval_batch_size": 12}})
    assert not audited_prediction.is_audited(more, need, A10G)
    assert not audited_prediction.is_audited(audit[0], need, gpus.find_gpu("T4"))


def test_what_lies_between_the_two_figures_is_added_part_by_part():
    ours = MemoryEstimate(
        phases={"predict": {"LoRA": GIB, "language model, 4-bit": 2 * GIB, "activations": GIB}},
        weights=("language model, 4-bit", "LoRA", "vision tower"),
        avoided={"logits of every position": 5 * GB},
    )
    uncached = MemoryEstimate(phases={"predict": {"LoRA": GIB, "vision tower": 6 * GIB}})
    rows = [
        [c.text for c in row] for row in audited_prediction.gap_table(ours, uncached, A10G).rows
    ]
    assert [row[1] for row in rows] == [
        "3.2 GB",
        "4.3 GB",
        "5.1 GB",
        "8.5 GB",
        "13.5 GB",
        "15 – 17 GB",
    ]
    assert rows[0][0] == "weights alone: LoRA; language model, 4-bit"
    failed = MemoryEstimate(problem="no memory")
    assert len(audited_prediction.gap_table(ours, failed, A10G).rows) == 5


def test_no_more_than_the_limit_is_looked_at(audit):
    found = plan_estimate.count_steps(audit[0].params, 3887)
    assert (found.train, found.held_out, found.looked_at) == (3498, 389, 256)
    small = plan_estimate.count_steps(audit[0].params, 100)
    assert (small.held_out, small.looked_at) == (10, 10)
