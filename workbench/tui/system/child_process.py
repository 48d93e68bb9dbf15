"""Child processes that print JSON lines, read asynchronously in the app's loop.

Used for `datasets_mm.profile.describe` and `datasets_mm.profile.sample_records`. A child is
terminated when its screen is closed.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final

from workbench.processes.json_child import parse_message

LINE_BYTES: Final = 8 << 20
"""Maximum length of a line; a profile has about 20 KiB, a record up to about 100."""


class ChildError(Exception):
    """The child reported a failure or died; one sentence."""


async def read_messages(arguments: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
    """Start a child and yield its messages up to its end.

    Raises:
        ChildError: it failed, or it ended without `done`.
    """
    child = await asyncio.create_subprocess_exec(
        *arguments, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, limit=LINE_BYTES
    )
    ended = False
    try:
        assert child.stdout is not None  # noqa: S101 - asked for above
        async for line in _read_lines(child.stdout):
            message = parse_message(line)
            if message.get("kind") == "failed":
                raise ChildError(str(message.get("error")))
            ended = message.get("kind") == "done"
            yield message
        code = await child.wait()
        if not ended:
            raise ChildError(f"the reader of the data ended with code {code}")
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            await child.wait()


async def _read_lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        async for line in stream:
            yield line
    except ValueError:  # asyncio's error for a line beyond the limit
        raise ChildError(
            f"a line of the data's reader is longer than {LINE_BYTES:,} bytes"
        ) from None
