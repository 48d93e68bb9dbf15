"""Detection of passwords and tokens, so that they are neither recorded nor printed.

Plans are stored, printed in reports and sent to colleagues; errors land in logs. The patterns are
those of the services that people who train models use. A secret without a pattern (a word) cannot
be detected: environments are therefore passed on by a list of names and never recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_SHAPES: Final = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]*://)[^/\s:@]*:[^/\s@]+(?=@)"  # https://user:password@host
    r"|(?<=[?&])(?:token|access_token|api_key|apikey|key|sig|signature|x-amz-signature)=[^&\s\"']+"
    r"|\bhf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\b(?:gh[opsur]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,})"
    r"|\bsk-[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic
    r"|\bAKIA[0-9A-Z]{16}\b"  # Amazon
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"  # JSON web token
    r"|\b[Bb]earer\s+[\w.~+/-]{16,}=*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
HIDDEN: Final = "[secret]"


def mask_secrets(text: str) -> str:
    """The text with every secret in it replaced."""
    return _SHAPES.sub(lambda match: (match.group("url") or "") + HIDDEN, text)


def find_secret_paths(value: Any, path: str = "") -> Iterator[str]:
    """Dotted names of all texts in a nested value (keys too) that hold a secret."""
    if isinstance(value, str):
        if _SHAPES.search(value):
            yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and _SHAPES.search(key):
                yield path or "a key"
            name = mask_secrets(str(key))
            yield from find_secret_paths(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for inner in value:
            yield from find_secret_paths(inner, path)
