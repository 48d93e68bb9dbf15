"""The drawing of a suite's models: parts, sizes and states come from the records."""

from __future__ import annotations

import re

import pytest

from results import report
from results.records.suite_view import SuiteView, SuiteWords
from results.report import architecture
from results.text.table import text_width
from tests.results.conftest import record


def _drawn(*records, lang: str = "en") -> list[str]:
    return architecture.render(SuiteView(name="s", records=records), lang).splitlines()


def test_a_captioner_is_tower_projectors_and_language_model(study) -> None:
    page = architecture.render(study, "ko")
    for words in ("clip, 336 px", "3종 비교:", "- C-Abstractor (205.8 M, 64 tokens)", "- Linear",
                  "Qwen3-8B", "4-bit NF4", "LoRA r=16, alpha=32", "(Frozen)"):  # fmt: skip
        assert words in page
    alone = architecture.render(study.model_copy(update={"planned": ()}), "en")
    assert "compared" not in alone


def test_without_lora_or_four_bits_the_drawing_says_neither() -> None:
    plain = record(
        identity={"engine": "captioning", "params": {"projector": "linear", "lora_rank": 0}},
        facts={"vision": "siglip at 224 px, frozen; 196 patches of 768, layer -1",
               "projector": "linear, 4,198,400 parameters, 196 tokens", "llm": "tiny, whole"},
    )  # fmt: skip
    page = "\n".join(_drawn(plain))
    assert "Linear (4.2 M, 196 tokens)" in page
    assert "LoRA" not in page
    assert "NF4" not in page


def test_a_vision_language_model_has_its_lora() -> None:
    params = {"lora_rank": 32, "lora_alpha": 64, "long_side": 384}
    known = {"model": "Qwen2.5-VL-3B-Instruct, 252 linear layers in NF4, vision tower whole, 2 MiB"}
    page = "\n".join(_drawn(record(identity={"engine": "vqa", "params": params}, facts=known)))
    for words in ("longer side 384 px", "Qwen2.5-VL-3B-Instruct", "LoRA r=32, alpha=64", "a / b"):
        assert words in page
    commit = {"model": f"{'a1' * 20}, 252 linear layers in NF4, 2 MiB"}
    named = record(identity={"engine": "vqa", "model": "qwen2.5-vl-3b"}, facts=commit)
    assert "qwen2.5-vl-3b" in "\n".join(_drawn(named)), "a commit is no name"


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_two_towers_stand_above_each_other_and_every_line_is_aligned(lang: str) -> None:
    lines = _drawn(
        record(facts={
            "parameters": "61,000,000: text 29,000,000, vision 32,000,000; 61,000,000 trained",
            "fusion": "sum of unit text and image vectors, at unit length",
            "scoring": "one vector per item", "image_size": "224 px",
        }), lang=lang,
    )  # fmt: skip
    page = "\n".join(lines)
    assert "29.0 M" in page
    assert "32.0 M" in page
    boxes = [found[0] for line in lines if (found := re.match(r"[┌│└][^┐│┘]*[┐│┘]", line))]
    assert len(boxes) > 10
    assert len(set(map(text_width, boxes))) == 1, "one box is as wide as the other"
    assert page.count("──▶") == 1


def test_no_record_that_knows_its_parts_no_drawing(weekly) -> None:
    assert architecture.render(weekly, "ko") == ""
    assert "모델 구성" not in report.render(weekly, "ko")


def test_links_are_a_table_and_cannot_break_out() -> None:
    words = SuiteWords(links=(("a/b (1).md", "first | [x](y)"), ("https://example.org/a?b=c", "t")))
    page = report.render(SuiteView(name="s", words=words), "ko")
    assert "## 상세 문서" in page
    assert "[b \\(1\\).md](a/b%20%281%29.md)" in page or "(a/b%20%281%29.md)" in page
    assert "(https://example.org/a?b=c)" in page
