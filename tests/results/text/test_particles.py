"""Particles of Korean by the word before them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from results.text import particles
from results.text.translations import translate

LANG = Path(particles.__file__).parent / "lang"


@pytest.mark.parametrize(
    ("word", "marked"),
    [
        ("서브셋", "서브셋과 서브셋은 서브셋이 서브셋을 서브셋으로"),
        ("파일", "파일과 파일은 파일이 파일을 파일로"),
        ("E5-v2", "E5-v2와 E5-v2는 E5-v2가 E5-v2를 E5-v2로"),
        ("E5-v3", "E5-v3과 E5-v3은 E5-v3이 E5-v3을 E5-v3으로"),
        ("recall@1", "recall@1과 recall@1은 recall@1이 recall@1을 recall@1로"),
        ("`loss`", "`loss`와 `loss`는 `loss`가 `loss`를 `loss`로"),
        ("**step**", "**step**과 **step**은 **step**이 **step**을 **step**으로"),
        ("plan.toml", "plan.toml과 plan.toml은 plan.toml이 plan.toml을 plan.toml로"),
        ("a.csv", "a.csv와 a.csv는 a.csv가 a.csv를 a.csv로"),
        ("VRAM", "VRAM과 VRAM은 VRAM이 VRAM을 VRAM으로"),
        ("GPU", "GPU와 GPU는 GPU가 GPU를 GPU로"),
        ("10", "10과 10은 10이 10을 10으로"),
        ("5 %", "5 %와 5 %는 5 %가 5 %를 5 %로"),
        ("값 (3)", "값 (3)과 값 (3)은 값 (3)이 값 (3)을 값 (3)으로"),
    ],
)  # fmt: skip
def test_particles_follow_the_word_as_it_is_read(word: str, marked: str) -> None:
    both = " ".join(f"{word}{form}" for form in ("와(과)", "은(는)", "이(가)", "을(를)", "(으)로"))
    assert particles.choose_particles(both) == marked
    assert particles.choose_particles("…(으)로") == "…(으)로", "no word before"


def test_templates_choose_when_they_are_filled_in() -> None:
    template = translate("document.compared named", "ko")
    assert template.format("E5-v3") == "기준 실험 E5-v3과 비교"
    assert template.format("`base`") == "기준 실험 `base`와 비교"


def test_no_template_has_one_form_right_after_a_place_for_a_value() -> None:
    """A code name or a number decides, so templates hold both forms."""
    bare = re.compile(r"\{\d*\}['`\"]?(?:은|는|이|가|을|를|와|과|로|으로)(?=[\s.,]|$)")
    for path in sorted(LANG.glob("*ko.toml")):
        table = tomllib.loads(path.read_text("utf-8"))
        for group in table.values():
            texts = group.values() if isinstance(group, dict) else (pair[1] for pair in group)
            for text in texts:
                shown = re.sub(r"\{\d+\} 하나|=/folder\{\d\}로", "", text)
                assert not bare.search(shown), f"{path.name}: {text}"
