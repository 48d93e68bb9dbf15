"""No byte that can drive a terminal passes the boundary."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from results.text.sanitize import clean, clean_line, dump_json, starts_formula


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_nothing_that_acts_comes_through(text: str) -> None:
    for character in clean(text):
        assert character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(character) not in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        )  # fmt: skip
    clean(text).encode()


def test_attacks_become_visible() -> None:
    assert clean("\x1b]52;c;ZXZpbA==\x07") == "\\x1b]52;c;ZXZpbA==\\x07"
    assert clean("100%\rgone") == "100%\\x0dgone"
    assert clean("a\u202eb") == "a\\u202eb"


def test_plain_text_is_left_alone() -> None:
    for text in ("손실 2.31 µs", "👩‍🚀 flag 🇰🇷", "tab\tnew\nline"):
        assert clean(text) == text


def test_a_line_is_one_line_and_bounded() -> None:
    assert clean_line(" a\n\n\tb ") == "a b"
    assert len(clean_line("x" * 10_000)) == 500


def test_a_signed_number_is_no_formula() -> None:
    for text in ("+1.67", "-16.7 %", "-1,234", "-2.5e-05"):
        assert not starts_formula(text), text
    for text in ("=1+1", "-1+1", "+cmd|' /C calc'!A0", "@SUM(A1)", "-0.005 [-0.2, 0.2]", "-1 %%"):
        assert starts_formula(text), text


def test_json_has_no_nan() -> None:
    assert dump_json({"a": [float("nan"), 1.0], "b": float("-inf"), "c": "모델"}) == (
        '{"a": [null, 1.0], "b": null, "c": "모델"}'
    )
