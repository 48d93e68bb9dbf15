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
from results.records.schema import MemoryEstimateRecord, Reading
from results.records.suite_view import RecipeWords, SuiteView
from results.text.table import Table, render_markdown
from results.text.translations import cause
from tests.results.tables import test_ablation as switches
from tests.results.tables import test_captioning as spoken
from tests.results.tables import test_vqa as asked

ROOT = Path(__file__).parents[3]
HANGUL = re.compile("[가-힣]")
FUNCTION_WORDS = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "in", "is",
        "it", "no", "not", "of", "on", "or", "so", "than", "that", "the", "their", "this", "to",
        "was", "were", "which", "with", "without",
    )
)  # fmt: skip
ERRORS = frozenset(
    (
        "AmbiguousError", "BuildError", "DiskFullError", "EncodingError", "EngineError",
        "EngineStartError", "FoldError", "LineError", "LookupError", "NoCaptionError",
        "NoCheckpointError", "NoRoomError", "ProfileError", "ScanError", "SourceError",
        "TargetError", "UnknownEngineError", "UnusableError",
    )
)  # fmt: skip
"""Exceptions whose sentences end in a record or are printed by `workbench data`."""
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


def english(page: str) -> list[str]:
    """Runs of four English words and more with a function word among them, outside of code."""
    page = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", " ", page, flags=re.DOTALL)
    return [
        run
        for run in re.findall(r"[A-Za-z][A-Za-z'-]*(?:,? [A-Za-z'-]+){3,}", page)
        if FUNCTION_WORDS & {word.strip(",").lower() for word in run.split()}
    ]


def test_the_detector_knows_a_sentence_from_names() -> None:
    assert english("12 queries, 77 tokens") == []
    assert english("x 12 of the queries were cut") == ["of the queries were cut"]
    assert english("그리고 the weights of epoch six") == ["the weights of epoch six"]
    assert english("Vision encoder, Gradient Checkpointing, Mixed Precision, LR Scheduler") == []
    assert english("`the weights of epoch six`") == []


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
    yield "captions", report.render(SuiteView(name="s", records=tuple(study)), "ko")
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


def templates() -> Iterator[tuple[str, str]]:
    """(place, sentence) of what engines, data and the warden say; placeholders are 7."""
    for room in ("engines", "datasets_mm", "workbench"):
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            known = {
                name.id: text
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
                if isinstance(name := _target(node), ast.Name) and (text := _text(node.value))
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    for value in _said(node):
                        text = _text(value) or known.get(getattr(value, "id", ""), "")
                        if text:
                            yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _target(node: ast.Assign | ast.AnnAssign) -> ast.expr:
    return node.targets[0] if isinstance(node, ast.Assign) else node.target


def _said(call: ast.Call) -> list[ast.expr]:
    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if called == "notice" and len(call.args) > 1:
        return [call.args[1]]
    counted = called in ("skip", "note") and ast.unparse(call.func).endswith(f"report.{called}")
    if called in ERRORS or counted:
        return call.args[:1]
    wanted = {
        "Notice": ("text",),
        "Reading": ("reason",),
        "Metric": ("method",),
        "MetricRecord": ("method",),
    }.get(called, ())
    return [word.value for word in call.keywords if word.arg in wanted]


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else "7"
                       for part in node.values)  # fmt: skip
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return (left or "7") + (right or "7") if left or right else ""
    return ""


def verdicts() -> Iterator[tuple[str, str]]:
    """Every sentence that `exit_cause.decide_cause` gives, and what is wrong with files."""
    for node in ast.walk(
        ast.parse((ROOT / "workbench/supervisor/exit_cause.py").read_text("utf-8"))
    ):
        if isinstance(node, ast.Return) and node.value is not None:
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            yield from (("verdict.py", text) for value in values if (text := _text(value)))


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


def test_every_notice_reason_and_method_has_its_korean() -> None:
    found = list(templates())
    assert len(found) > 300, "the sentences of the engines are found at all"
    missing = [
        f"{place}: {text}"
        for place, text in found
        if english(text) and not HANGUL.search(message_translations.localize(text, "ko"))
    ]
    assert not missing, "add them to results/text/lang/messages.ko.toml:\n" + "\n".join(missing)


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
    assert set(reasons.values()) == {message_translations.localize("not measured", "ko")}


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
        if node.value is not None and (text := _text(node.value)) and text[0].islower()
    }
    assert "half-precision copy of the weights" in parts
    missing = {part for part in parts if not set(part.split()) <= FIELD_TERMS}
    missing = {part for part in missing if message_translations.localize(part, "ko") == part}
    assert not missing, f"add them to results/text/lang/messages.ko.toml: {missing}"
