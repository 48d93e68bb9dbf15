"""The steps of a recipe as pure functions over row numbers.

Whether a record is kept depends only on its content, the seed and the records of its group, never
on their order: every choice is made by the rank blake2b(seed:key). So a source that is read in
another order gives the same subset, and a sample of 5 is part of a sample of 10.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from datasets_mm.recipes import record_classes
from datasets_mm.recipes.recipe import (
    BalanceStep,
    DedupeStep,
    LimitStep,
    PresentStep,
    SampleStep,
    SplitStep,
    Step,
    WhereStep,
)

Value = str | Sequence[str]
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class RecordColumns:
    """The records as the steps see them: columns, fetched only when a step names them."""

    keys: Sequence[str]
    """One unique id a record."""
    column: Callable[[str], Sequence[Value]]
    image_key: Callable[[str], str] = field(default=lambda path: path)
    """Path of an image -> identity of its content."""


@dataclass
class StepResult:
    """The kept row numbers, ascending, and how many each step dropped."""

    kept: list[int]
    dropped: dict[str, int]


def rank(seed: int, key: str) -> int:
    """64 bits that order keys; the same on every machine and in every version."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def apply_steps(steps: Sequence[Step], rows: RecordColumns) -> StepResult:
    """Run the steps one after the other."""
    rows_left = list(range(len(rows.keys)))
    dropped: dict[str, int] = {}
    for number, step in enumerate(steps, start=1):
        before = len(rows_left)
        rows_left = _apply_step(step, rows, rows_left)
        if before - len(rows_left):
            dropped[f"step {number}: {step.do}"] = before - len(rows_left)
    return StepResult(rows_left, dropped)


def _apply_step(step: Step, rows: RecordColumns, kept: list[int]) -> list[int]:
    match step:
        case WhereStep():
            return _apply_where(step, rows, kept)
        case PresentStep():
            return _apply_present(step, rows, kept)
        case DedupeStep():
            return _limit_groups(rows, kept, step.by, step.seed, 1)
        case LimitStep():
            return _limit_groups(rows, kept, step.by, step.seed, step.n)
        case SampleStep():
            return _apply_sample(step, rows, kept)
        case SplitStep():
            return _apply_split(step, rows, kept)
        case BalanceStep():
            return _apply_balance(step, rows, kept)


def _apply_where(step: WhereStep, rows: RecordColumns, kept: list[int]) -> list[int]:
    values = rows.column(step.field)
    allowed = frozenset(step.one_of or ())
    pattern = re.compile(step.matches) if step.matches is not None else None

    def passes(value: Value) -> bool:
        parts = (value,) if isinstance(value, str) else value
        if pattern is not None:
            return any(pattern.search(part) for part in parts)
        return any(part in allowed for part in parts)

    return [row for row in kept if passes(values[row]) is not step.negate]


def _apply_present(step: PresentStep, rows: RecordColumns, kept: list[int]) -> list[int]:
    for name in step.fields:
        values = rows.column(name)
        kept = [row for row in kept if _is_filled(values[row], step.need)]
    return kept


def _is_filled(value: Value, need: str) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    filled = [bool(part.strip()) for part in value]
    return bool(filled) and (all(filled) if need == "all" else any(filled))


def _group_rows(rows: RecordColumns, kept: list[int], by: Sequence[str]) -> dict[int, str]:
    """Row -> name of its group."""
    parts: dict[int, list[str]] = {row: [] for row in kept}
    for name in by:
        values = rows.column(_COLUMN.get(name, name))
        for row in kept:
            parts[row].append(_group_key(name, values[row], rows))
    return {row: SEPARATOR.join(names) for row, names in parts.items()}


_COLUMN = {
    "image": "image_path",
    "candidates": "passage_id",
    "wh_word": "question",
    "main_answer": "answer",
}
"""Group key that is no field -> the field it is computed from."""


def _group_key(name: str, value: Value, rows: RecordColumns) -> str:
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


def _sort_by_rank(rows: RecordColumns, kept: list[int], seed: int) -> list[int]:
    """Rows by rank; equal ranks (1 in 2^64) by the id itself."""
    return sorted(kept, key=lambda row: (rank(seed, rows.keys[row]), rows.keys[row]))


def _limit_groups(
    rows: RecordColumns, kept: list[int], by: Sequence[str], seed: int, cap: int
) -> list[int]:
    """At most `cap` rows of each group, those of lowest rank."""
    groups = _group_rows(rows, kept, by)
    count: dict[str, int] = {}
    limited = []
    for row in _sort_by_rank(rows, kept, seed):
        name = groups[row]
        count[name] = count.get(name, 0) + 1
        if count[name] <= cap:
            limited.append(row)
    return sorted(limited)


def _apply_balance(step: BalanceStep, rows: RecordColumns, kept: list[int]) -> list[int]:
    """Keep an equal number per group; larger groups fill what a small group lacks.

    A smaller n is always part of a larger one: quotas only grow, and the odd records go to groups
    in the order of their rank.
    """
    names = _group_rows(rows, kept, step.by)
    members: dict[str, list[int]] = {}
    for row in _sort_by_rank(rows, kept, step.seed):
        members.setdefault(names[row], []).append(row)
    sizes = {name: len(group) for name, group in members.items()}
    if step.shares is not None:
        quotas = _share_quotas(sizes, step.shares)
        return sorted(row for name, group in members.items() for row in group[: quotas[name]])
    quota, extra = _equal_quota(sorted(sizes.values()), step.n)
    larger = [name for name, size in sizes.items() if size > quota]
    with_extra = frozenset(sorted(larger, key=lambda name: (rank(step.seed, name), name))[:extra])
    return sorted(
        row for name, group in members.items() for row in group[: quota + (name in with_extra)]
    )


def _share_quotas(sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """Records of each group: as many in all as leave every named group its share.

    Groups without a share have the rest in their own proportions. Of a named group that has no
    record nothing can be kept; its share goes to all others, in proportion.
    """
    unnamed_sizes = {name: size for name, size in sizes.items() if name not in shares}
    named_shares = {name: share for name, share in shares.items() if sizes.get(name)}
    rest_share = 1 - sum(shares.values()) if unnamed_sizes else 0.0
    total_share = sum(named_shares.values()) + rest_share
    if not total_share:
        return dict.fromkeys(sizes, 0)
    target_shares = {name: share / total_share for name, share in named_shares.items()}
    target_shares |= {
        name: rest_share / total_share * size / sum(unnamed_sizes.values())
        for name, size in unnamed_sizes.items()
    }
    total = min(sizes[name] / share for name, share in target_shares.items())
    return {name: math.floor(total * target_shares.get(name, 0.0) + 1e-9) for name in sizes}


def _equal_quota(sizes: Sequence[int], total: int | None) -> tuple[int, int]:
    """(records per group, number of groups with one more), for ascending sizes."""
    if total is None:
        return (sizes[0] if sizes else 0), 0
    remaining = total
    for index, size in enumerate(sizes):
        remaining_groups = len(sizes) - index
        if size * remaining_groups > remaining:
            return divmod(remaining, remaining_groups)
        remaining -= size
    return (sizes[-1] if sizes else 0), 0


def _apply_sample(step: SampleStep, rows: RecordColumns, kept: list[int]) -> list[int]:
    if step.n is not None:
        return sorted(_sort_by_rank(rows, kept, step.seed)[: step.n])
    edge = int((step.fraction or 0) * 2**64)
    return [row for row in kept if rank(step.seed, rows.keys[row]) < edge]


def _apply_split(step: SplitStep, rows: RecordColumns, kept: list[int]) -> list[int]:
    """A group's part follows from its name alone: other groups coming or going move nothing."""
    groups = _group_rows(rows, kept, step.by)
    part = {name: _split_part(step, name) for name in set(groups.values())}
    return [row for row in kept if part[groups[row]] in step.keep]


def _split_part(step: SplitStep, group: str) -> str:
    position = rank(step.seed, SEPARATOR.join((*step.by, group))) / 2**64
    edge, name = 0.0, ""
    for name, share in step.parts.items():
        edge += share
        if position < edge:
            return name
    return name
