"""Each audit rule on a planted fault and on a clean case; the study's figures where it has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from datasets_mm.profile.subset_facts import SubsetFacts, TextLengths
from results.records.schema import MetricRecord, Reading, RunRecord
from tests.results.conftest import record, untimed
from workbench.audit.finding import Fault, Impossible, Sound, SuiteRule, Unjudged, Verdict
from workbench.audit.rules import RULES, audit_runs
from workbench.audit.run_facts import RunFacts
from workbench.memory_estimate.plan_estimate import count_stage_steps, count_steps

STUDY = {
    "epochs": 5, "batch": 16, "gradient_accumulation_steps": 2, "lr": 5e-5, "warmup_ratio": 0.1,
    "schedule": "cosine", "max_length": 768, "max_new_tokens": 128, "eval_batch_size": 1,
    "evaluate_sample": 97, "validate_every_epochs": 1, "validate_on": "study_val",
    "validation_share": 0.05, "early_stopping": False, "load_best": "auto", "patience": 3,
    "monitor": "loss", "scorers": ["meteor", "siglip"], "siglip": "hub:google/siglip2-so400m",
}  # fmt: skip
KOREAN = TextLengths(tokenizer="Qwen3-8B", counts={300: 400, 430: 465})
SHORT = TextLengths(tokenizer="Qwen3-8B", counts={12: 865})
RULE = {rule.code: rule for rule in RULES}


def run(name: str = "E5-v2", **changes: Any) -> RunFacts:
    """A planned captioning run of the study; `params` change its settings."""
    params = {**STUDY, **changes.pop("params", {})}
    identity = {
        "engine": "captioning", "subset": "study_train", "label": name, "params": params,
        "model": "qwen3-8b-clip-l14", **changes.pop("identity", {}),
    }  # fmt: skip
    facts = RunFacts(
        record(f"01-{name.lower()}", identity=identity).identity,
        steps=tuple(count_stage_steps(params, 865).values()) or (count_steps(params, 865),),
        evaluate_on=("study_val",), evaluation_rows={"study_val": 97}, judge_context=64,
        statements=(name,),
    )  # fmt: skip
    return replace(facts, **changes)


def done(name: str = "E5-v2", *, parts: dict[str, Any] | None = None, **changes: Any) -> RunFacts:
    """The same run, completed; `parts` of its record."""
    planned = run(name, **changes)
    identity = planned.identity.model_dump()
    steps = {"steps": 140, "planned_steps": 140, "samples": 865}
    return replace(planned, record=record(**{**steps, **(parts or {})}, identity=identity))


def metric(name: str, value: float, split: str = "study_val", **fields: Any) -> MetricRecord:
    return MetricRecord(name=name, value=value, split=split, n=97, **fields)


def scored(name: str, *metrics: MetricRecord, **changes: Any) -> RunFacts:
    return done(name, parts={"metrics": metrics}, **changes)


def timed(**phases: float) -> dict[str, Any]:
    return {"timing": untimed(phases=phases)}


def data(captions: TextLengths = SHORT, **facts: Any) -> SubsetFacts:
    return SubsetFacts(rows=865, captions=captions, judged=captions, languages=("ko",), **facts)


def vqa(**changes: Any) -> RunFacts:
    identity = {"engine": "vqa", "subset": "challenge", "model": "qwen2.5-vl-3b"}
    return run(identity=identity, **changes)


def again(loss: float) -> RunFacts:
    """An evaluation of E5-v2's model, whose loss was 1.5."""
    parent = scored("E5-v2", metric("loss", 1.5)).record
    identity = {"task": "evaluate", "model": "run:suite/01-e5-v2"}
    return scored("again", metric("loss", loss), identity=identity, parent=parent)


STOPPING = {"early_stopping": True, "load_best": "auto", "monitor": "siglip"}
SIGLIP = (("2.3", {"siglip": 0.3383}), ("2.6", {"siglip": 0.0032}))
WHITESPACE, MORPHEMES = "METEOR (exact, ko split at blanks)", "METEOR (exact, kiwi morphemes)"
WIDE = {"low": 0.09, "high": 0.17}

CASES: dict[str, tuple[list[RunFacts], list[RunFacts], str]] = {
    "rate-ends-high": (
        [done(rates=[0.0, 5e-5, 2.95e-5])], [done(rates=[0.0, 5e-5, 1e-8])], "59.0 %",
    ),
    "warmup-too-long": ([run(params={"warmup_steps": 120})], [run()], "120 of 140"),
    "few-steps": ([run(params={"batch": 64, "gradient_accumulation_steps": 8, "epochs": 1})],
                  [run()], "512"),
    "rows-not-covered": ([run(params={"max_steps": 20})], [run()], "640 of 865"),
    "patience-too-long": (
        [run(params={**STOPPING, "patience": 5})], [run(params=STOPPING)], "patience 5",
    ),
    "generation-too-short": ([run(data=data(KOREAN))], [run(data=data())], "100.0 % of 865"),
    "captions-truncated": (
        [run(data=data(KOREAN), params={"max_length": 400})], [run(data=data(KOREAN))], "53.8 %",
    ),
    "judge-context": ([run(data=data(KOREAN))], [run(data=data())], "the 64 tokens"),
    "padding": (
        [run(identity={"engine": "notebook"}, params={"padding": "max_length", "max_length": 768})],
        [run()], "768",
    ),
    "generation-time": ([run()], [run(params={"eval_batch_size": 97, "epochs": 2})], "74,496"),
    "meteor-tokenizer": (
        [scored("E5-v2", metric(WHITESPACE, 0.0661))],
        [scored("E5-v2", metric(MORPHEMES, 0.2), metric(WHITESPACE, 0.0661))], "split at blanks",
    ),
    "meteor-rules-mixed": (
        [scored("E5-v2", metric(WHITESPACE, 0.0661)), scored("E7-v2", metric(MORPHEMES, 0.2))],
        [scored("E5-v2", metric(MORPHEMES, 0.1), metric(WHITESPACE, 0.0661)),
         scored("E7-v2", metric(MORPHEMES, 0.2))],
        "kiwi morphemes",
    ),
    "mode-collapse": (
        [scored("E5-v3", metric("diversity", 0.04))], [scored("E1-v2", metric("diversity", 1.0))],
        "4 of 97",
    ),
    "reported-split": (
        [run(params=STOPPING)], [run(params={**STOPPING, "validate_on": "other"})], "study_val",
    ),
    "monitor-alone": (
        [run(params=STOPPING)], [run(params={**STOPPING, "monitor_where": "diversity > 0.5"})],
        "siglip",
    ),
    "final-not-best": (
        [done("E5-v3", params={"monitor": "siglip"}, validations=SIGLIP)],
        [done(params={"monitor": "siglip", "monitor_where": "siglip < 0.004"}, validations=SIGLIP)],
        "epoch 2.3 (0.3383)",
    ),
    "one-seed": (
        [run("E5-v2"), run("E7-v2")],
        [run("E5-v2"), run("E7-v2"), run("E7-v2", identity={"seed": 1})], "seed 42",
    ),
    "ranking-uncertain": (
        [scored("E5-v2", metric("SigLIP probability (so400m)", 0.1375, **WIDE)),
         scored("E7-v2", metric("SigLIP probability (so400m)", 0.1133, low=0.07, high=0.15))],
        [scored("E5-v2", metric("SigLIP probability (so400m)", 0.1375, **WIDE)),
         scored("E7-v2", metric("SigLIP probability (so400m)", 0.01, low=0.0, high=0.02))],
        "E7-v2 0.1133",
    ),
    "bf16-unsupported": (
        [run(params={"precision": "bf16"}, capability=(7, 5), gpu="T4")],
        [run(params={"precision": "bf16"}, capability=(8, 0), gpu="A100")], "T4",
    ),
    "weights-missing": (
        [done(parts={"trainable_parameters": 249_487_360},
              saved_parameters={"projector.weight": 205_840_384})],
        [done(parts={"trainable_parameters": 249_487_360},
              saved_parameters={"projector.weight": 205_840_384, "q.lora_A": 43_646_976})],
        "249,487,360 were trained",
    ),
    "stated-size": (
        [done("MLP-2L 8M", parts={"facts": {"projector": "mlp2x, 20,979,712 parameters"}})],
        [done("MLP-2L 21M", parts={"facts": {"projector": "mlp2x, 20,979,712 parameters"}})],
        "20,979,712",
    ),
    "evaluation-mode": (
        [again(1.62)], [again(1.5001)], "1.6200",
    ),
    "media-equal": (
        [vqa(data=data(media=200, equal=40, blank=40, blank_example="a.jpg"))],
        [vqa(data=data(media=200, equal=2))], "40",
    ),
    "rows-unanswered": (
        [scored("clips", metric("coverage", 95 / 97), identity={"task": "infer"})],
        [scored("clips", metric("coverage", 1.0), identity={"task": "infer"})], "2 of 97",
    ),
    "data-bound": (
        [done(parts={"timing": untimed(data_stall_share=Reading(value=0.6))})],
        [done(parts={"timing": untimed(data_stall_share=Reading(value=0.01))})], "60.0 %",
    ),
}  # fmt: skip
"""Code -> (runs with the fault, runs without it, a figure of its evidence)."""
IMPOSSIBLE = {"no-end-token": run(), "label-alignment": vqa(), "padding": run(),
              "rate-ends-high": run()}  # fmt: skip


def judge(code: str, runs: list[RunFacts]) -> list[Verdict]:
    rule = RULE[code]
    if isinstance(rule, SuiteRule):
        return [rule.judge(runs)]
    return [rule.judge(facts) for facts in runs]


def test_every_rule_is_tested() -> None:
    assert {rule.code for rule in RULES} == CASES.keys() | IMPOSSIBLE.keys()
    assert len({rule.code for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("code", CASES)
def test_a_rule_finds_the_planted_fault_alone(code: str) -> None:
    planted, clean, figure = CASES[code]
    assert all(isinstance(verdict, Fault) for verdict in judge(code, planted))
    assert not any(isinstance(verdict, Fault) for verdict in judge(code, clean))
    rows = [row for row in audit_runs(planted) if (row.code, row.standing) == (code, "fault")]
    assert any(figure in row.evidence["en"] for row in rows)
    assert all(set(text) == {"en", "ko"} for row in rows for text in (row.evidence, row.remedy))


@pytest.mark.parametrize("code", IMPOSSIBLE)
def test_an_engine_that_cannot_have_a_fault_is_not_said_to_be_clean(code: str) -> None:
    assert isinstance(judge(code, [IMPOSSIBLE[code]])[0], Impossible)
    imported = replace(
        IMPOSSIBLE[code],
        identity=IMPOSSIBLE[code].identity.model_copy(update={"engine": "notebook"}),
    )
    assert isinstance(judge(code, [imported])[0], Unjudged)


def test_before_a_run_the_plan_alone_is_judged() -> None:
    for code, figure in {
        "generation-too-short": "768 tokens are learnt",
        "judge-context": "reads 64 tokens",
        "final-not-best": "5 validations on study_val",
    }.items():
        assert figure in evidence(code, run()), code
    assert "study" not in evidence("generation-too-short", run(params={"max_length": 256}))


def evidence(code: str, facts: RunFacts) -> str:
    from workbench.audit.rules import audit_runs

    return next(row.evidence["en"] for row in audit_runs([facts]) if row.code == code)


def test_measured_generation_replaces_the_planned() -> None:
    half = done(parts=timed(train=5000.0, generate=6000.0, eval=100.0))
    assert "55.0 %" in evidence("generation-time", half)
    short = done(parts=timed(train=6000.0, generate=600.0))
    assert "9.1 %" in evidence("generation-time", short)
    assert not isinstance(judge("generation-time", [short])[0], Fault)


def test_a_failed_run_is_no_evidence() -> None:
    broken: RunRecord = record(exit={"cause": "failed"}, metrics=(metric("diversity", 0.04),))
    assert isinstance(judge("mode-collapse", [replace(run(), record=broken)])[0], Unjudged)


def test_one_cut_caption_in_a_hundred_is_no_fault() -> None:
    rare = TextLengths(counts={12: 99, 900: 1})
    assert isinstance(judge("generation-too-short", [run(data=data(rare))])[0], Sound)


def test_a_stage_is_judged_as_a_training() -> None:
    stages = [{"epochs": 2, "lr": 1e-3}, {"epochs": 5, "batch": 64, "early_stopping": True,
              "patience": 6, "monitor": "loss"}]  # fmt: skip
    staged = run(params={"stages": stages, "warmup_ratio": 0.0, "warmup_steps": 50})
    assert "35 of 35" in evidence("warmup-too-long", staged)
    assert "5 validations, patience 6" in evidence("patience-too-long", staged)
    assert "study_val chooses" in evidence("reported-split", staged)
    assert "in 5 epochs" in evidence("few-steps", staged)
    ended = replace(done(params={"stages": stages}), rates=[1e-3, 0.0, 5e-5, 4e-5])
    assert "80.0 % of the peak 5.00e-05" in evidence("rate-ends-high", ended)


def test_folds_are_no_rivals() -> None:
    accuracies = [metric("accuracy", value, "validation", **WIDE) for value in (0.13, 0.12)]
    folds = [
        scored(f"fold {fold}", metric, params={"folds": 3, "fold": fold})
        for fold, metric in enumerate(accuracies)
    ]
    assert isinstance(judge("ranking-uncertain", folds)[0], Unjudged)


def test_rules_for_other_engines_are_not_listed() -> None:
    from workbench.audit.rules import audit_runs

    codes = {row.code for row in audit_runs([vqa()])}
    assert "label-alignment" in codes
    assert not codes & {"judge-context", "mode-collapse", "rows-unanswered"}


def test_a_plan_that_trains_no_row_is_judged() -> None:
    empty = run(steps=(count_steps({**STUDY, "folds": 2}, 1),), evaluation_rows={})
    faults = [row.code for row in audit_runs([empty]) if row.standing == "fault"]
    assert "few-steps" in faults
