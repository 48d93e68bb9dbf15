"""The steps of a recipe as pure functions over row numbers.

A record's fate depends only on its own content, the seed and the records it is grouped with, never
on the order in which they came: everything is decided by the rank blake2b(seed:key). So a source
that is read in another order gives the same subset, and a sample of 5 is part of a sample of 10.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from datasets_mm.recipes import record_classes
from datasets_mm.recipes.recipe import Balance, Dedupe, Limit, Present, Sample, Split, Step, Where

Value = str | Sequence[str]
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Rows:
    """The records as the steps see them: columns, fetched only when a step names them."""

    keys: Sequence[str]
    """One unique id a record."""
    column: Callable[[str], Sequence[Value]]
    image_key: Callable[[str], str] = field(default=lambda path: path)
    """Path of a picture -> what identifies its content."""


@dataclass
class Outcome:
    """The kept row numbers, ascending, and how many each step dropped."""

    kept: list[int]
    dropped: dict[str, int]


def rank(seed: int, key: str) -> int:
    """64 bits that order keys; the same on every machine and in every version."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def apply(steps: Sequence[Step], rows: Rows) -> Outcome:
    """Run the steps one after the other."""
    kept = list(range(len(rows.keys)))
    dropped: dict[str, int] = {}
    for number, step in enumerate(steps, start=1):
        before = len(kept)
        kept = _run(step, rows, kept)
        if before - len(kept):
            dropped[f"step {number}: {step.do}"] = before - len(kept)
    return Outcome(kept, dropped)


def _run(step: Step, rows: Rows, kept: list[int]) -> list[int]:
    match step:
        case Where():
            return _where(step, rows, kept)
        case Present():
            return _present(step, rows, kept)
        case Dedupe():
            return _capped(rows, kept, step.by, step.seed, 1)
        case Limit():
            return _capped(rows, kept, step.by, step.seed, step.n)
        case Sample():
            return _sample(step, rows, kept)
        case Split():
            return _split(step, rows, kept)
        case Balance():
            return _balance(step, rows, kept)


def _where(step: Where, rows: Rows, kept: list[int]) -> list[int]:
    values = rows.column(step.field)
    wanted = frozenset(step.one_of or ())
    pattern = re.compile(step.matches) if step.matches is not None else None

    def passes(value: Value) -> bool:
        parts = (value,) if isinstance(value, str) else value
        if pattern is not None:
            return any(pattern.search(part) for part in parts)
        return any(part in wanted for part in parts)

    return [row for row in kept if passes(values[row]) is not step.negate]


def _present(step: Present, rows: Rows, kept: list[int]) -> list[int]:
    for name in step.fields:
        values = rows.column(name)
        kept = [row for row in kept if _filled(values[row], step.need)]
    return kept


def _filled(value: Value, need: str) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    filled = [bool(part.strip()) for part in value]
    return bool(filled) and (all(filled) if need == "all" else any(filled))


def _groups(rows: Rows, kept: list[int], by: Sequence[str]) -> dict[int, str]:
    """Row -> name of its group."""
    parts: dict[int, list[str]] = {row: [] for row in kept}
    for name in by:
        values = rows.column(_COLUMN.get(name, name))
        for row in kept:
            parts[row].append(_key(name, values[row], rows))
    return {row: SEPARATOR.join(names) for row, names in parts.items()}


_COLUMN = {
    "image": "image_path",
    "candidates": "passage_id",
    "wh_word": "question",
    "main_answer": "answer",
}
"""Group key that is no field -> the field that it is made of."""


def _key(name: str, value: Value, rows: Rows) -> str:
    if isinstance(value, str):
        match name:
            case "image":
                return rows.image_key(value)
            case "wh_word":
                return record_classes.wh_word(value)
        return value
    match name:
        case "candidates":
            return record_classes.candidates_bucket(len(value))
        case "main_answer":
            return record_classes.main_answer(value)
    return "\x1e".join(value)


def _ordered(rows: Rows, kept: list[int], seed: int) -> list[int]:
    """Rows by rank; equal ranks (1 in 2^64) by the id itself."""
    return sorted(kept, key=lambda row: (rank(seed, rows.keys[row]), rows.keys[row]))


def _capped(rows: Rows, kept: list[int], by: Sequence[str], seed: int, cap: int) -> list[int]:
    """At most `cap` rows of each group, those of lowest rank."""
    groups = _groups(rows, kept, by)
    count: dict[str, int] = {}
    chosen = []
    for row in _ordered(rows, kept, seed):
        name = groups[row]
        count[name] = count.get(name, 0) + 1
        if count[name] <= cap:
            chosen.append(row)
    return sorted(chosen)


def _balance(step: Balance, rows: Rows, kept: list[int]) -> list[int]:
    """Groups keep an equal number each; what a small group lacks is shared by the larger ones.

    A smaller n is always part of a larger one: quotas only grow, and the odd records go to groups
    in the order of their rank.
    """
    names = _groups(rows, kept, step.by)
    members: dict[str, list[int]] = {}
    for row in _ordered(rows, kept, step.seed):
        members.setdefault(names[row], []).append(row)
    sizes = {name: len(group) for name, group in members.items()}
    if step.shares is not None:
        quotas = _quotas(sizes, step.shares)
        return sorted(row for name, group in members.items() for row in group[: quotas[name]])
    quota, odd = _quota(sorted(sizes.values()), step.n)
    larger = [name for name, size in sizes.items() if size > quota]
    lucky = frozenset(sorted(larger, key=lambda name: (rank(step.seed, name), name))[:odd])
    return sorted(
        row for name, group in members.items() for row in group[: quota + (name in lucky)]
    )


def _quotas(sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """Records of each group: as many in all as leave every named group its share.

    Groups without a share have the rest in their own proportions. Of a named group that has no
    record nothing can be kept; its share goes to all others, in proportion.
    """
    others = {name: size for name, size in sizes.items() if name not in shares}
    named = {name: share for name, share in shares.items() if sizes.get(name)}
    rest = 1 - sum(shares.values()) if others else 0.0
    whole = sum(named.values()) + rest
    if not whole:
        return dict.fromkeys(sizes, 0)
    wanted = {name: share / whole for name, share in named.items()}
    wanted |= {name: rest / whole * size / sum(others.values()) for name, size in others.items()}
    total = min(sizes[name] / share for name, share in wanted.items())
    return {name: math.floor(total * wanted.get(name, 0.0) + 1e-9) for name in sizes}


def _quota(sizes: Sequence[int], wanted: int | None) -> tuple[int, int]:
    """(records of each group, how many groups give one more), for ascending sizes."""
    if wanted is None:
        return (sizes[0] if sizes else 0), 0
    left = wanted
    for place, size in enumerate(sizes):
        groups_left = len(sizes) - place
        if size * groups_left > left:
            return divmod(left, groups_left)
        left -= size
    return (sizes[-1] if sizes else 0), 0


def _sample(step: Sample, rows: Rows, kept: list[int]) -> list[int]:
    if step.n is not None:
        return sorted(_ordered(rows, kept, step.seed)[: step.n])
    edge = int((step.fraction or 0) * 2**64)
    return [row for row in kept if rank(step.seed, rows.keys[row]) < edge]


def _split(step: Split, rows: Rows, kept: list[int]) -> list[int]:
    """A group's part follows from its name alone: other groups coming or going move nothing."""
    groups = _groups(rows, kept, step.by)
    part = {name: _part(step, name) for name in set(groups.values())}
    return [row for row in kept if part[groups[row]] in step.keep]


def _part(step: Split, group: str) -> str:
    place = rank(step.seed, SEPARATOR.join((*step.by, group))) / 2**64
    edge, name = 0.0, ""
    for name, share in step.parts.items():
        edge += share
        if place < edge:
            return name
    return name
