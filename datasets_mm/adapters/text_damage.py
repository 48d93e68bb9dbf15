"""Signs that a text was not written by a person for a reader: noted, and the text is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from datasets_mm.adapters import SourceReport

ENTITIES: Final = "texts hold HTML (&amp;, &#39;, <br>), which is kept as it stands"
ESCAPES: Final = "texts hold escapes (\\uac15) where letters belong"
TOKENS: Final = "texts hold special tokens of a model (<image>, <|im_end|>), which it may obey"
REFUSALS: Final = "texts are a model's refusal (I'm sorry, I can't …), not a description"

_SIGNS: Final = re.compile(
    r"(?P<entities>&(?:amp|lt|gt|quot|nbsp|apos|#\d{1,7}|#x[0-9a-f]{1,6});"
    r"|</?(?:br|b|i|p|div|span|strong|em)\s*/?>)"
    r"|(?P<escapes>\\u[0-9a-f]{4})"
    r"|(?P<tokens><\|\w+\|>|</s>|<(?:image|video|pad|unk|bos|eos)>|\[/?INST\])"
    r"|(?P<refusals>\A\W*(?:I['’]?m sorry\b.{0,40}\bI(?: can|['’]m| am| do)|As an AI\b"
    r"|I(?: am|['’]m) unable to|I can(?:no|['’])t (?:assist|help|provide|see|view|identify)"
    r"|죄송.{0,60}없습니다|AI 언어 모델))",
    re.IGNORECASE | re.DOTALL,
)
_REASONS: Final = {
    "entities": ENTITIES, "escapes": ESCAPES, "tokens": TOKENS, "refusals": REFUSALS,
}  # fmt: skip


def note_damage(texts: Iterable[str], position: str, report: SourceReport) -> None:
    """Note the first sign of each text, at its position."""
    for text in texts:
        if sign := _SIGNS.search(text):
            report.note(_REASONS[str(sign.lastgroup)], f"{position}: {sign[0][:40]}")
