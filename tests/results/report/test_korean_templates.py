"""Every template of Korean, filled in once: it is the one that counts, and it is Korean."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from results.records import message_translations
from results.text.particles import KoreanTemplate
from tests.results.report.korean_sources import HANGUL, ROOT, english, sentences

LANG = ROOT / "results/text/lang"
PLACE = re.compile(r"\{[#?]?\}")
KEPT = re.compile("CUDA out of memory")
"""English that users look for in a log."""
ENDINGS = re.compile(
    r"[가-힣]*(?:습니다|입니다|됩니다|합니다|었다|한다|된다|하세요|해요|어요)(?![가-힣])"
)
PARTS = frozenset({
    "7 assumed, as no built subset was read",
    "77: 7 to train, 7 held out, 7 of them looked at; by answer, pictures together; 7",
    "exact+stem+synonym of stems by WordNet 7",
})  # fmt: skip
"""Ends of sentences, whose templates have the beginning, and the name of a metric."""


def pairs() -> list[tuple[str, str]]:
    tables = [
        tomllib.loads((LANG / name).read_text("utf-8"))
        for name in ("messages.ko.toml", "errors.ko.toml")
    ]
    groups = {name: rows for table in tables for name, rows in table.items() if name != "names"}
    assert set(groups) == set(message_translations.GROUPS)
    return [(english_text, korean) for rows in groups.values() for english_text, korean in rows]


def fill(template: str) -> tuple[str, list[str]]:
    """A sentence of the template, and what stands in its places."""
    values = [
        str(11 + at) if kind == "{#}" else f"값{at}"
        for at, kind in enumerate(PLACE.findall(template))
    ]
    numbered = iter(values)
    return PLACE.sub(lambda _: next(numbered), template), values


def test_every_template_counts_for_its_own_sentence() -> None:
    """A template that another one hides is never shown: its sentence stays half English."""
    for template, korean in pairs():
        sentence, values = fill(template)
        assert message_translations.localize(sentence, "ko") == KoreanTemplate(korean).format(
            *values
        ), template


def test_the_more_special_of_two_templates_counts_wherever_it_stands() -> None:
    damaged = "model 'm': w.safetensors is damaged; copy the folder again, or train again"
    shown = message_translations.localize(damaged, "ko")
    assert shown == "모델 'm': w.safetensors 손상됨. 폴더를 다시 복사하거나 다시 학습할 것"
    unknown = message_translations.localize("model 'm': 8 words nobody knows", "ko")
    assert unknown == "모델 'm': 8 words nobody knows", "the general one where none is special"
    assert message_translations.localize("question: no value", "ko") == "question: 값 없음"
    stopped = message_translations.localize("stopped by SIGINT, before this run started", "ko")
    assert stopped == "SIGINT로 중단함 (이 run의 시작 전)"


def values_of(table: Any, language: str) -> Iterator[str]:
    """Texts of one language below a table of texts by language."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from values_of(value, language)
        elif key == language or (key.endswith(f"_{language}")):
            yield value


def all_korean() -> Iterator[str]:
    """Every Korean text that is shipped, with values in its places."""
    for template, korean in pairs():
        yield KoreanTemplate(korean).format(*fill(template)[1])
    for name in ("tables.ko.toml", "report_kinds.ko.toml"):
        for group in tomllib.loads((LANG / name).read_text("utf-8")).values():
            for text in group.values():
                yield KoreanTemplate(text).format(*(f"값{at}" for at in range(9)))
    rules = tomllib.loads((ROOT / "workbench/audit/rules.toml").read_text("utf-8"))
    for text in values_of(rules, "ko"):
        yield KoreanTemplate(text).format(**dict.fromkeys(re.findall(r"\{(\w+)\}", text), "값"))
    switches = tomllib.loads((ROOT / "results/tables/optimizations.toml").read_text("utf-8"))
    for rows in switches.values():
        for row in rows if isinstance(rows, list) else ():
            yield from values_of(row, "ko")


def test_no_korean_text_is_english_or_in_another_style() -> None:
    texts = list(all_korean())
    assert len(texts) > 1500
    assert [t for t in texts if english(KEPT.sub("", t))] == []
    assert [t for t in texts if ENDINGS.search(t)] == []
    assert [t for t in texts if re.search(r"[가-힣)];|\((?:은|는|이|가|을|를|와|과|으)\)", t)] == []


def test_every_sentence_of_a_record_has_its_korean() -> None:
    english_ones = [s for s in sentences() if english(s[2]) and s[2] not in PARTS]
    assert len(english_ones) > 400, "the sentences are found at all"
    missing = [
        f"{place}: {text}"
        for place, name, text in english_ones
        if not any(HANGUL.search(message_translations.localize(t, "ko"))
                   for t in (text, f"{name}: {text}"))
    ]  # fmt: skip
    assert not missing, "add them to results/text/lang/messages.ko.toml:\n" + "\n".join(missing)
