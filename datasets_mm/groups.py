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
