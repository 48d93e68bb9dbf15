"""Ids of imported runs: of the names that another program gave them, and different for each."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from results.records.schema import RunRecord

MAX_SLUG: Final = 60
"""Characters of a name in an id."""


def separate_ids(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records, those of one file with equal ids told apart by their labels."""
    counts = Counter(record.identity.run_id for record in records)
    return [_rename(record) if counts[record.identity.run_id] > 1 else record for record in records]


def _rename(record: RunRecord) -> RunRecord:
    identity = record.identity
    name = f"{identity.run_id}-{_name_digest(identity.label)}"
    return record.model_copy(
        update={"identity": identity.model_copy(update={"suite": name, "run_id": name})}
    )


def slug(name: str) -> str:
    """Name of a suite; with a digest where letters are lost, as of two Korean names."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")
    is_whole = len(plain) <= MAX_SLUG and all(not sign.isalnum() or sign.isascii() for sign in name)
    return (plain or "run") if is_whole else f"{plain[:MAX_SLUG] or 'run'}-{_name_digest(name)}"


def _name_digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=3).hexdigest()
