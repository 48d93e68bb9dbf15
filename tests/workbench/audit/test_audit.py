"""The audit of presets and suites, refusals before a start, texts and document of the rules."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from results.records import published_runs
from results.records.schema import RunRecord
from tests.results.conftest import record
from workbench.audit import audit, collect, document
from workbench.audit.rules import RULES, audit_runs, read_texts
from workbench.memory_estimate import gpus, plan_estimate
from workbench.planning import plan

SAMPLES = Path(__file__).parents[2] / "results/records/samples/results-v1.jsonl"
ROOT = Path(__file__).parents[3]


def preset_faults(name: str, cache: Path) -> dict[str, str]:
    """Codes of a preset's faults -> severity, without data and weights."""
    preset = plan.load_preset(name)
    specs = plan_estimate.expand_runs(preset, cache, cache)
    rows = audit.audit_plan(preset, specs)
    return {row.code: row.severity for row in rows if row.standing == "fault"}


def test_the_studys_plan_has_the_faults_that_can_be_seen_before_it_runs(tmp_path: Path) -> None:
    assert preset_faults("siglip-study", tmp_path).keys() >= {
        "generation-too-short", "judge-context", "generation-time", "reported-split",
        "monitor-alone", "final-not-best", "one-seed",
    }  # fmt: skip


def test_the_studys_published_results_have_the_faults_that_can_be_seen_after_it(
    tmp_path: Path,
) -> None:
    """Its reports state sizes of 8M and 134M; what they do not say is not called impossible."""
    records = published_runs.read_published("siglip-study").records
    runs = collect.collect_from_records(
        [(r.identity, r) for r in records], tmp_path, tmp_path, {},
        {records[2].identity.run_id: ["Perceiver 134M"]},
    )  # fmt: skip
    rows = [row for row in audit_runs(runs) if row.standing == "fault"]
    found = {(row.code, name): row.evidence["en"] for row in rows for name in row.runs or ("",)}
    for (code, name), figure in {
        ("generation-too-short", "E5-v2"): "up to 768 tokens are learnt, and 128 are generated",
        ("judge-context", "E5-v2"): "reads 64 tokens",
        ("padding", "E5-v2"): "padded to 768 tokens",
        ("generation-time", "E5-v2"): "about 84.2 % of the time: 49,664 decoding passes",
        ("mode-collapse", "E5-v3"): "6 of 97 captions are unique",
        ("reported-split", "E5-v3"): "siglip_study_val chooses the epoch by siglip",
        ("monitor-alone", "E5-v3"): "without a condition on diversity",
        ("final-not-best", "E5-v2"): "best after epoch 2 (stage 2) (0.1375)",
        ("final-not-best", "E5-v3"): "best after epoch 3 (stage 2) (0.3383); the kept weights are "
        "those of epoch 6 (stage 2) (0.0032)",
        ("meteor-tokenizer", "E5-v2"): "METEOR (as published, split at blanks)",
        ("stated-size", "E7-v2"): "134.0 M stated; counted: 541,495,296",
        ("one-seed", ""): "3 experiments, all with seed 42",
    }.items():
        assert figure in found.pop((code, name)), code
    assert {code for code, _ in found} <= {
        "generation-too-short", "judge-context", "padding", "generation-time", "mode-collapse",
        "meteor-tokenizer", "final-not-best",
    }, "of the other experiments"  # fmt: skip
    silent = {row.code: row.standing for row in audit_runs(runs) if row.standing != "fault"}
    assert {silent[code] for code in ("rate-ends-high", "no-end-token", "weights-missing")} == {
        "unjudged"
    }


@pytest.mark.parametrize("name", ["demo", "demo-captioning", "demo-vqa"])
def test_the_demos_have_no_fault(name: str, tmp_path: Path) -> None:
    assert set(preset_faults(name, tmp_path).values()) <= {"note"}


def test_a_plan_refuses_the_faults_that_it_names(tmp_path: Path) -> None:
    preset = plan.load_preset("siglip-study")
    specs = plan_estimate.expand_runs(preset, tmp_path, tmp_path)
    lines = audit.check_start(preset, specs, None)
    assert any("judge-context" in line for line in lines)
    assert not any("one-seed" in line for line in lines)  # a note
    for codes, sentence in {
        ("one-seed",): "refused by refuse_on: audit, note one-seed: Experiments are compared",
        ("judge-contxt",): "no audit rule 'judge-contxt'; did you mean 'judge-context'?",
    }.items():
        refusing = preset.model_copy(update={"refuse_on": codes})
        with pytest.raises(plan.PlanError, match=re.escape(sentence)):
            audit.check_start(refusing, specs, None)
    unjudged = preset.model_copy(update={"refuse_on": ("media-equal",)})
    assert "could not be judged: media-equal" in audit.check_start(unjudged, specs, None)[-1]


def test_refusals_are_part_of_a_plan_and_leave_old_hashes_alone() -> None:
    table = {"subsets": ["a"], "models": ["m"]}
    refusing = plan.parse({**table, "refuse_on": ["one-seed"]})
    assert plan.parse(table).hash() != refusing.hash()
    assert "refuse_on" in plan.ADDED_FIELDS


def test_records_of_version_0_1_are_judged(tmp_path: Path) -> None:
    records = [RunRecord.model_validate_json(line) for line in SAMPLES.read_text().splitlines()]
    runs = [(r.identity, r) for r in records]
    rows = audit_runs(collect.collect_from_records(runs, tmp_path, tmp_path, {}, {}))
    assert {row.code for row in rows} >= {"data-bound", "weights-missing", "one-seed"}


def test_files_of_a_run_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "suite/runs/01/checkpoints"
    (folder / "last").mkdir(parents=True)
    header = b'{"p":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"__metadata__":{"a":"b"}}'
    content = struct.pack("<Q", len(header)) + header + bytes(24)
    (folder / "last/model.safetensors").write_bytes(content)
    (folder / "epochs.json").write_text('[{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 3.5}]')
    identity = {"engine": "vqa", "params": {"monitor": "loss"}}
    done = record(folder="suite/runs/01", trainable_parameters=12, identity=identity)
    [facts] = collect.collect_from_records([(done.identity, done)], tmp_path, tmp_path, {}, {})
    assert facts.saved_parameters == {"p": 6}
    faults = [row for row in audit_runs([facts]) if row.standing == "fault"]
    assert {"weights-missing", "final-not-best"} <= {row.code for row in faults}
    assert "6 parameters" in next(r.evidence["en"] for r in faults if r.code == "weights-missing")


def test_a_plan_is_judged_for_its_gpu(tmp_path: Path) -> None:
    table = {"engine": "vqa", "subsets": ["vqa_challenge_train"], "models": ["qwen2.5-vl-3b"]}
    request = plan.parse({**table, "settings": {"precision": "bf16"}})
    specs = plan_estimate.expand_runs(request, tmp_path, tmp_path)
    for gpu, standing in {"T4": "fault", "A10G": "clean"}.items():
        rows = audit.audit_plan(request, specs, gpus.find_gpu(gpu), rows=3887)
        row = next(row for row in rows if row.code == "bf16-unsupported")
        assert (row.standing, gpu in row.evidence["ko"]) == (standing, True)
    steps = next(row for row in rows if row.code == "few-steps")
    assert "3,498 rows" in steps.evidence["en"]  # the memory audit's, of 3,887


def test_a_judge_says_how_much_it_reads_by_its_folder_or_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 32}}')
    contexts = {
        f"path:{tmp_path}": 32, "hub:google/siglip2-so400m": 64, "hub:openai/clip-vit-b": 77,
        "hub:some/judge": None,
    }  # fmt: skip
    assert {name: collect.read_context(name) for name in contexts} == contexts


def test_the_training_of_an_evaluated_model_is_its_parent(tmp_path: Path) -> None:
    trained = record("01-e5")
    name = f"run:{trained.identity.suite}/01-e5"
    again = record("01-again", identity={"suite": "later", "model": name, "task": "evaluate"})
    runs = [(again.identity, again)]
    for log_records, parent in (([trained, again], trained), ([again], None)):
        [facts] = collect.collect_from_records(runs, tmp_path, tmp_path, {}, {}, log_records)
        assert facts.parent == parent


def test_texts_are_whole_in_both_languages() -> None:
    texts = read_texts()
    assert texts.keys() == {rule.code for rule in RULES} | {"reason"}
    for code, parts in texts.items():
        for name, text in parts.items():
            assert set(text) == {"en", "ko"}, (code, name)
            fields = [sorted(set(re.findall(r"{(\w+)}", text[lang]))) for lang in ("en", "ko")]
            assert fields[0] == fields[1], (code, name)


def test_the_document_lists_the_rules() -> None:
    written = (ROOT / "docs/audit.md").read_text("utf-8")
    assert written == document.render_document()
