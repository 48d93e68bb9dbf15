"""Classes of records for grouping and for the weekly report: candidate buckets, WH-words, answers.

Pure functions of one record, shared by recipe steps, profiles and tables. Loads no heavy package.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

BUCKETS: Final = (("1", 1, 1), ("2-3", 2, 3), ("4-10", 4, 10), ("11+", 11, None))
"""Names and bounds of the weekly report's buckets of candidate passages."""

WH_WORDS: Final = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how")

LETTERS: Final = "abcd"
"""Of the options of a choice question, in their order."""

_FIRST_WH: Final = re.compile(rf"\b({'|'.join(WH_WORDS)})\b", re.IGNORECASE)


def candidates_bucket(count: int) -> str:
    """Bucket of a number of candidate passages; `0` for a record without any."""
    if count < 1:
        return "0"
    return next(name for name, _, top in BUCKETS if top is None or count <= top)


def wh_word(question: str) -> str:
    """The first WH-word anywhere in a question ("In what year"); `other`, `none`."""
    if not question.strip():
        return "none"
    match = _FIRST_WH.search(question)
    return match.group(1).lower() if match else "other"


def main_answer(answers: Sequence[str]) -> str:
    """The answer that most annotators gave, in lower case; of equals the first by alphabet."""
    count = Counter(text for answer in answers if (text := answer.strip().casefold()))
    return min(count, key=lambda text: (-count[text], text), default="")


_ASKED_IN_KOREAN: Final = (
    ("how many", ("몇", "얼마")), ("who", ("누구", "누가", "누굴")), ("when", ("언제",)),
    ("where", ("어디", "어느 곳")), ("why", ("왜",)), ("how", ("어떻게",)),
    ("which", ("어느", "어떤")), ("what", ("무엇", "무슨", "뭐", "뭘")),
)  # fmt: skip
_HOW_MANY: Final = re.compile(r"\bhow (many|much)\b", re.IGNORECASE)
_YES_NO: Final = re.compile(
    r"\s*(is|are|was|were|does|do|did|can|could|has|have|will)\b", re.IGNORECASE
)


def question_kind(part: str, question: str) -> str:
    """Type of a question: the part of `dataset_id` after its dot, else by its words."""
    return part.partition(".")[2] or question_type(question)


def question_type(question: str) -> str:
    """Type of a question by its words, English or Korean.

    A WH-word, `how many`, `yes/no`, `other`, or `none` where there is no question.
    """
    if _HOW_MANY.search(question):
        return "how many"
    if _YES_NO.match(question):
        return "yes/no"
    word = wh_word(question)
    if word != "other":
        return word
    korean = (kind for kind, words in _ASKED_IN_KOREAN if any(term in question for term in words))
    return next(korean, "other")
