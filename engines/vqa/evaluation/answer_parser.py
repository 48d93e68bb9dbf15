"""Parser of generated answers: the letter, or None.

Strict: an answer that would need interpretation counts as unparsable. A lenient parser finds an "a"
in every English sentence and inflates accuracy.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from datasets_mm.recipes.record_classes import LETTERS

_LEAD: Final = r"(?:the\s+)?(?:correct\s+)?answer(?:\s+is\s*:?|\s*:)|정답(?:은|\s*:)?"
_LETTER: Final = r"(?P<marked>[(\[][a-d][)\]]|[a-d]\s?[.:)])|(?P<bare>[a-d])"
_ANSWER: Final = re.compile(rf"(?:(?:{_LEAD})\s*)?(?:{_LETTER})(?:\s*(?P<rest>.*))?", re.DOTALL)


def parse_letter(text: str, options: Sequence[str] = ()) -> str | None:
    """The letter that `text` states; None: no letter, or more than one.

    Accepted are a letter alone, in brackets or with `.`, `)` or `:` behind it, after "The answer
    is" or "정답", and followed by the text of its option (`b. two`). Case and full-width forms are
    ignored.

    Args:
        text: the generated text, without special tokens.
        options: the four options in the order in which they were shown; empty: none may follow.
    """
    match = _ANSWER.fullmatch(_plain(text))
    if match is None:
        return None
    name = (match["bare"] or match["marked"]).strip("([.:)] ")
    rest = _bare(match["rest"])
    if not rest:
        return name
    index = LETTERS.index(name)
    option = _bare(_plain(options[index])) if index < len(options) else ""
    return name if match["marked"] and rest == option else None


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _bare(text: str) -> str:
    return text.rstrip(".").strip()
