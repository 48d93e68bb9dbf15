"""From what a model wrote to the letter that it means, or to nothing at all.

Strict on purpose: an answer that has to be interpreted is counted as unparsable, never guessed. A
lenient parser finds an "a" in every English sentence and makes chance look like knowledge.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from engines.vqa.data.questions import LETTERS

_LEAD: Final = r"(?:the\s+)?(?:correct\s+)?answer(?:\s+is\s*:?|\s*:)|정답(?:은|\s*:)?"
_LETTER: Final = r"(?P<marked>[(\[][a-d][)\]]|[a-d]\s?[.:)])|(?P<bare>[a-d])"
_ANSWER: Final = re.compile(rf"(?:(?:{_LEAD})\s*)?(?:{_LETTER})(?:\s*(?P<rest>.*))?", re.DOTALL)


def letter(text: str, options: Sequence[str] = ()) -> str | None:
    """The letter that `text` is; None when it is none, or more than one.

    Accepted are a letter alone, in brackets or with `.`, `)` or `:` behind it, after "The answer
    is" or "정답", and with the text of its own option behind it (`b. two`). Upper and lower case,
    and full-width forms, are one.

    Args:
        text: what was generated, without special tokens.
        options: the four options in the order in which they were shown; empty: none may follow.
    """
    found = _ANSWER.fullmatch(_plain(text))
    if found is None:
        return None
    name = (found["bare"] or found["marked"]).strip("([.:)] ")
    rest = _bare(found["rest"])
    if not rest:
        return name
    place = LETTERS.index(name)
    own = _bare(_plain(options[place])) if place < len(options) else ""
    return name if found["marked"] and rest == own else None


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _bare(text: str) -> str:
    return text.rstrip(".").strip()
