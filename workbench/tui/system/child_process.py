"""Children that speak JSON lines, read by the app's own loop.

A screen starts `datasets_mm.profile.describe` or `datasets_mm.profile.sample_records` and reads it
line by line; a child whose screen has gone is ended.
"""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final

LINE_BYTES: Final = 8 << 20
"""A profile is some 20 KiB; a record with its passages may be some 100."""


class ChildError(Exception):
    """The child said why there is no result, or died; one sentence."""


async def messages(arguments: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
    """What the child says, up to its end.

    Raises:
        ChildError: it failed, or it ended without `done`.
    """
    child = await asyncio.create_subprocess_exec(
        *arguments, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, limit=LINE_BYTES
    )
    ended = False
    try:
        assert child.stdout is not None  # noqa: S101 - asked for above
        async for line in _lines(child.stdout):
            said = _message(line)
            if said.get("kind") == "failed":
                raise ChildError(str(said.get("error")))
            ended = said.get("kind") == "done"
            yield said
        code = await child.wait()
        if not ended:
            raise ChildError(f"the reader of the data ended with code {code}")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            await child.wait()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        async for line in stream:
            yield line
    except ValueError:  # asyncio's word for a line beyond the limit
        raise ChildError(
            f"a line of the data's reader is longer than {LINE_BYTES:,} bytes"
        ) from None


def _message(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
