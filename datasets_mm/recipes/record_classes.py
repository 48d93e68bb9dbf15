"""What records are grouped by beside their own fields: the weekly report's classes of a record.

Pure functions of one record, so that a balance, a split and a table mean the same by a bucket or a
WH-word. Light: recipes and profiles read them without anything heavy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

BUCKETS: Final = (("1", 1, 1), ("2-3", 2, 3), ("4-10", 4, 10), ("11+", 11, None))
"""Names and bounds of the weekly report's buckets of candidate passages."""

WH_WORDS: Final = ("what", "which", "who", "whom", "whose", "when", "where", "why", "how")

_FIRST_WH: Final = re.compile(rf"\b({'|'.join(WH_WORDS)})\b", re.IGNORECASE)


def candidates_bucket(count: int) -> str:
    """Bucket of a number of candidate passages; `0` for a record without any."""
    if count < 1:
        return "0"
    return next(name for name, _, top in BUCKETS if top is None or count <= top)


def wh_word(question: str) -> str:
    """The first WH-word of a question wherever it stands ("In what year"); `other`, `none`."""
    if not question.strip():
        return "none"
    found = _FIRST_WH.search(question)
    return found.group(1).lower() if found else "other"


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
    """Type of a question: what stands behind the dot of `dataset_id`, else by its words."""
    return part.partition(".")[2] or question_type(question)


def question_type(question: str) -> str:
    """What is asked for, by the words of the question, English or Korean.

    A WH-word, `how many`, `yes/no`, `other`, or `none` where there is no question.
    """
    if _HOW_MANY.search(question):
        return "how many"
    if _YES_NO.match(question):
        return "yes/no"
    word = wh_word(question)
    if word != "other":
        return word
    korean = (kind for kind, words in _ASKED_IN_KOREAN if any(one in question for one in words))
    return next(korean, "other")
