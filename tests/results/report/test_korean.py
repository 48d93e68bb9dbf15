"""A Korean report is Korean: no English sentence in it but for names, and no phrase is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from engines.messages import Cause
from results import report
from results.records import message_translations
from results.records.schema import MemoryEstimateRecord, Reading, StageRecord
from results.records.suite_view import RecipeWords, SuiteView
from results.text.table import Table, render_markdown
from results.text.translations import cause
from tests.results.report.korean_sources import HANGUL, english, text_of
from tests.results.tables import test_ablation as switches
from tests.results.tables import test_captioning as spoken
from tests.results.tables import test_vqa as asked
from workbench.audit import experiments

ROOT = Path(__file__).parents[3]
FACTS = {
    "layers": "3,7,11 -> text 2,5,8; vision 3,7,11",
    "fusion": "sum of unit text and image vectors, at unit length",
    "scoring": "one vector per item",
    "truncated_texts": "1.2% of 8253 distinct texts",
    "negatives": "in the micro-batch of 64; chance of r@1 is 1/64; accumulation does not add any",
    "duplicates": "other positives of a query are no negatives",
    "corpus": "114810 passages",
    "schedule": "linear warm-up, then cosine to 0",
    "gradient_checkpointing": "non-reentrant",
    "precision": "fp32, products in TF32, with float32 master weights",
    "towers": "frozen, not among the parameters; features cached as float16",
    "tokenizer": "49408 entries, CLIP's",
    "grad_cache": "chunks of 16; every forward pass is computed twice",
    "parameters": "61,000,000: text 29,000,000, image 32,000,000; 61,000,000 trained",
    "feature_cache": "12.5 MiB; 400 frames computed in 3.2 s",
    "longest_sample": "512 tokens with its picture",
    "answering_weights": "EMA of the trained ones",
    "llm": "ef7aeed1, trained here on 3,328 texts: 200 steps, 690 s (cached), last loss 3.99; "
    "21 linear layers in NF4, 2.9 MiB",
    "folds": "fold 1 of 2: 60 to train, 60 held out, 60 of them looked at; by answer, pictures "
    "together; 579b876986773574",
    "stage": "stage 2 (projector + LoRA) of 2",
}
NOTICES = (
    "records-skipped: oven_train: 12 records: no positive passage",
    "texts-truncated: 12 of 8253 distinct texts were cut at 77 tokens",
    "resumed: goes on after step 10 of 30",
    "stopped-early: the validation loss has not fallen for 3 looks; the weights of epoch 6 "
    "(loss 1.258) are kept",
    "mode-collapse: v, epoch 1: 0.10 of 10 captions are unique, 100% are '': the model says the "
    "same of different pictures, and other scores mean little",
    "subset: siglip_study_train: 90 records; the recipe expects 865",
)


def test_the_detector_knows_a_sentence_from_names() -> None:
    assert english("12 queries, 77 tokens") == []
    assert english("x 12 of the queries were cut") == ["of the queries were cut"]
    assert english("그리고 the weights of epoch six") == ["the weights of epoch six"]
    assert english("Vision encoder, Gradient Checkpointing, Mixed Precision, LR Scheduler") == []
    assert english("`the weights of epoch six`") == []


FINDING = (
    "experiment shuffled-images: recall@1 on val 0.412 [0.388, 0.436], with the images of other "
    "records 0.101 [0.080, 0.122]; the images are used (20261127-120000-images-1a2b)"
)


def _told(record, **more):
    return record.model_copy(update={"facts": FACTS, "notices": NOTICES, **more})


def pages(make, mixed, weekly) -> Iterator[tuple[str, str]]:
    recipes = {
        "oven_train": RecipeWords(
            title="OVEN of M2KR, train",
            notes="The names of the training files of ReT-M2KR are not documented; the first of "
            "`uri` that is there is read.",
        )
    }
    yield "weekly", report.render(weekly.model_copy(update={"recipes": recipes}), "ko")
    fit = MemoryEstimateRecord(gpu="A10G", tensors={"train": 5 << 30}, total={"train": 6 << 30},
              measured=Reading(reason="the run ended before the first sample"))  # fmt: skip
    first = _told(mixed.records[0], fit=fit)
    bare = mixed.model_copy(update={"records": (first, *mixed.records[1:]), "notes": {}})
    failed = bare.records[2].exit.model_copy(update={"detail": ""})
    last = bare.records[2].model_copy(update={"exit": failed})
    bare = bare.model_copy(update={"records": (*bare.records[:2], last)})
    yield "mixed", report.render(bare, "ko", appendix=True)
    study = [spoken.caption_run(make, "01-c", "E5-v2"), spoken.caption_run(make, "02-c", "E5-v3")]
    notes = {"01-c": (FINDING,)}
    yield "captions", report.render(SuiteView(name="s", records=tuple(study), notes=notes), "ko")
    quiz = [asked.fold(make, n, 0.5) for n in (1, 2)] + [asked.together(make)]
    yield "answers", report.render(SuiteView(name="s", records=tuple(quiz)), "ko")
    switched = [
        switches.run("all on", {}, step=0.5, memory=2, loss=3.0),
        switches.run("no 4-bit", {"quantize": "none"}, step=0.4, memory=8, loss=2.5),
    ]
    yield "switches", report.render(SuiteView(name="s", records=tuple(switched)), "ko")


def test_no_english_sentence_stands_in_a_korean_report(make, mixed, weekly) -> None:
    found = {name: english(page) for name, page in pages(make, mixed, weekly)}
    assert not any(found.values()), found


def test_one_style_of_ending(make, mixed, weekly) -> None:
    files = ("tables.ko.toml", "report_kinds.ko.toml", "messages.ko.toml")
    words = "".join((ROOT / "results/text/lang" / name).read_text() for name in files)
    for page in (words, *(page for _, page in pages(make, mixed, weekly))):
        assert not re.findall(r"[가-힣]*(?:습니다|입니다|됩니다|합니다|어요|해요)", page)
    assert not re.findall("그림|보류 (?:질문|손실)|가지치기", words), "field words: 이미지, 검증셋"


def verdicts() -> Iterator[tuple[str, str]]:
    """Every sentence that `exit_cause.decide_cause` gives, and what is wrong with files."""
    for node in ast.walk(
        ast.parse((ROOT / "workbench/supervisor/exit_cause.py").read_text("utf-8"))
    ):
        if isinstance(node, ast.Return) and node.value is not None:
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            yield from (("verdict.py", text) for value in values if (text := text_of(value)))


def test_every_way_to_fail_has_its_korean() -> None:
    found = [text for _, text in verdicts() if english(text)]
    assert len(found) > 12
    missing = [
        text for text in found if not HANGUL.search(message_translations.localize(text, "ko"))
    ]
    assert not missing, "add them to results/text/lang/errors.ko.toml:\n" + "\n".join(missing)
    for name in get_args(Cause):
        assert HANGUL.search(cause(name, "ko")) or name == "oom-cuda", name
        assert cause(name) == name


def test_why_a_run_failed_is_korean_in_the_report(mixed) -> None:
    detail = "subset 'a': 3 of 90 questions have no answer (first: q1); train on questions whose "
    detail += "answer is a, b, c or d; the next attempt computes 4 at once instead of 8"
    ended = mixed.records[2].exit.model_copy(update={"detail": detail, "cause": "oom-cuda"})
    last = mixed.records[2].model_copy(update={"exit": ended})
    page = report.render(mixed.model_copy(update={"records": (*mixed.records[:2], last)}), "ko")
    assert "서브셋 'a': 질문 90개 중 3개에 답이 없음 (첫 번째: q1)." in page
    assert "다음 시도는 batch 8 대신 4로 계산함" in page
    assert "1 (GPU OOM)" in page
    assert "oom-cuda" not in page


@pytest.mark.parametrize(
    ("text", "korean"),
    [
        ("no engine 'x'; known: probe, retrieval", "엔진 'x' 없음. 가능한 값: probe, retrieval"),
        ("no engine 'x'", "엔진 'x' 없음"),
        ("stopped by SIGINT, before this run started", "SIGINT로 중단함 (이 run의 시작 전)"),
        ("skipped", "건너뜀"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
         "capacity of 22.06 GiB of which 1.00 GiB is free. Including non-PyTorch memory, …",
         "CUDA out of memory: 2.00 GiB 할당 실패. GPU 0 용량 22.06 GiB 중 1.00 GiB 남음"),
    ],
)  # fmt: skip
def test_errors(text: str, korean: str) -> None:
    assert message_translations.localize(text, "ko") == korean


def test_recipes_that_ship_have_their_korean() -> None:
    import tomllib

    for path in sorted((ROOT / "datasets_mm/recipes").glob("*.toml")):
        recipe = tomllib.loads(path.read_text("utf-8"))
        for key in ("title", "notes"):
            text = recipe.get(key, "")
            assert not text or HANGUL.search(message_translations.localize(text, "ko")), (
                f"{path.name}: {text}"
            )


@pytest.mark.parametrize(
    ("text", "korean"),
    [
        ("bootstrap over queries, 1000, 95%", "query 단위 bootstrap, 1000회, 95%"),
        ("fp32, products in TF32, with float32 master weights",
         "fp32, 행렬 곱은 TF32, float32 master weight 사용"),
        ("tried to allocate 2.00 GiB", "tried to allocate 2.00 GiB"),
        ("256 to 1,024", "256~1,024"),
        ("model FLOPs 1, 8 steps counted, without fla::chunk; dense bf16 peak 312 TFLOP/s of X, "
         "table of 2026-11",
         "model FLOPs 1, step 8개에서 셈, fla::chunk 제외, X의 dense bf16 최대 312 TFLOP/s, "
         "2026-11 표"),
        ("", ""),
    ],
)  # fmt: skip
def test_phrases(text: str, korean: str) -> None:
    assert message_translations.localize(text, "ko") == korean
    assert message_translations.localize(text, "en") == text


def test_a_notice_keeps_its_code_and_numbers_that_are_marked_stay_marked(mixed) -> None:
    assert message_translations.localize_notice("resumed: goes on after step 10 of 30", "ko") == (
        "resumed: step 10 / 30 이후부터 이어서 진행함"
    )
    guess = Reading(value=3.0, method="forecast from 100 steps")
    timing = mixed.records[0].timing.model_copy(update={"epoch_wall_seconds": guess})
    record = mixed.records[0].model_copy(update={"timing": timing})
    (shown,) = message_translations.localize_records([record], "ko")
    assert shown.timing.epoch_wall_seconds.method == "forecast from 100 steps"
    assert message_translations.localize_records([record], "en") == (record,)


def test_readings_of_every_part_of_a_record_are_in_that_language(mixed) -> None:
    """A part that holds readings and is not among those that are translated fails here."""
    record = mixed.records[0]
    parts = {
        name for name, part in record
        if isinstance(part, BaseModel) and any(isinstance(value, Reading) for _, value in part)
    }  # fmt: skip
    unknown = Reading(reason="not measured")
    english = record.model_copy(update={
        name: getattr(record, name).model_copy(update={
            key: unknown for key, value in getattr(record, name) if isinstance(value, Reading)})
        for name in parts
    })  # fmt: skip
    (shown,) = message_translations.localize_records([english], "ko")
    reasons = {(name, key): value.reason for name in parts for key, value in getattr(shown, name)
               if isinstance(value, Reading)}  # fmt: skip
    assert {"timing", "memory", "energy"} <= parts
    names = ("wall_seconds", "epoch_wall_seconds", "step_median", "samples_per_second")
    counts = ("stage", "trainable_parameters", "planned_steps", "steps", "planned_epochs", "epochs")
    stage = StageRecord(**dict.fromkeys(counts, 1), **dict.fromkeys(names, unknown))
    staged = record.model_copy(update={"stages": (stage,)})
    (shown,) = message_translations.localize_records([staged], "ko")
    assert {getattr(shown.stages[0], name).reason for name in names} == {"측정하지 않음"}
    assert set(reasons.values()) == {message_translations.localize("not measured", "ko")}


def test_what_an_experiment_found_is_korean_and_a_persons_words_stay() -> None:
    own = "experiment with the images of other records"
    shown = message_translations.localize_findings({"r": (FINDING, own)}, "ko")["r"]
    assert shown == (
        "실험 shuffled-images: recall@1 (val) 0.412 [0.388, 0.436], 다른 레코드의 이미지로는 "
        "0.101 [0.080, 0.122]. 이미지를 사용함 (20261127-120000-images-1a2b)",
        own,
    )
    for each in experiments.EXPERIMENTS:
        korean = message_translations.localize(f"experiment {each.code}: x (s)", "ko")
        assert korean == f"실험 {each.code}: x (s)"


def test_a_table_of_the_report_names_no_english_reason(weekly) -> None:
    from results.tables import run_cost

    korean = message_translations.localize_records(weekly.records, "ko")
    made: Table = run_cost.cost_table(korean, "ko")
    assert "전체 프로세스 시간만 측정함" in render_markdown(made)


FIELD_TERMS = frozenset(
    (
        "config.json",
        "judge",
        "layers",
        "language",
        "model",
        "optimizer",
        "projector",
        "prompt",
        "text",
        "tower",
        "vision",
    )
)
"""Words that a Korean memory table keeps."""


def test_parts_of_a_memory_estimate_have_their_korean() -> None:
    files = [ROOT / "engines/memory_query.py", *(ROOT / "engines").glob("*/memory/*.py")]
    parts = {
        text
        for path in files
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Final"
        if node.value is not None and (text := text_of(node.value)) and text[0].islower()
    }
    assert "half-precision copy of the weights" in parts
    parts |= {
        text
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)
        if ast.unparse(node.targets[0].value) == "parts"
        if (text := text_of(node.targets[0].slice))
    }
    assert "vision tower, on its way to the GPU" in parts
    parts |= {"this host has", "batch = 1 in every stage", "largest stage: 2 of 2", "epochs"}
    missing = {part for part in parts if not set(part.split()) <= FIELD_TERMS}
    missing = {part for part in missing if message_translations.localize(part, "ko") == part}
    assert not missing, f"add them to results/text/lang/messages.ko.toml: {missing}"
