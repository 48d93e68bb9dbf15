"""Sections about four-choice questions: right answers, types of question, what a picture costs.

Beside `profile_rows`, which puts them among the others; empty where no profile has questions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from datasets_mm.profile.profile import ChoiceProfile, Profile, SizeProfile, Spread
from workbench.subsets.section_types import (
    UNKNOWN,
    Figure,
    Find,
    Profiles,
    Section,
    number,
    part,
    row,
)

LETTERS: Final = ("a", "b", "c", "d")
SHOWN_SIDE: Final = 512
"""Longer side whose tokens are drawn as bars, as the profile counted them."""


def answers(profiles: Profiles) -> Section:
    """How often each letter is right."""
    found = _choices(profiles)
    known = any(p.choices and p.choices.answers.keys() - {""} for p in profiles)
    rows = [row(profiles, letter, _answer(letter)) for letter in LETTERS] if known else []
    if any("" in one.answers for one in found):
        rows.append(row(profiles, "not known", _answer("")))
    return Section("right answer", tuple(rows))


def _answer(letter: str) -> Find:
    return _of_choices(lambda found: found.answers.get(letter, 0))


def kinds(profiles: Profiles) -> Section:
    """What is asked."""
    names = dict.fromkeys(name for one in _choices(profiles) for name in one.kinds)
    rows = [row(profiles, name, _kind(name)) for name in names]
    return Section("type of question", tuple(rows))


def _kind(name: str) -> Find:
    return _of_choices(lambda found: found.kinds.get(name, 0))


def _choices(profiles: Profiles) -> list[ChoiceProfile]:
    return [profile.choices for profile in profiles if profile.choices]


def _of_choices(count: Callable[[ChoiceProfile], int]) -> Find:
    return lambda p: part(count(p.choices), p.records) if p.choices else UNKNOWN


def sizes(profiles: Profiles) -> Section:
    """Widths and heights."""
    rows = [
        row(profiles, f"{edge}: {what}", _edge(edge, find))
        for edge in ("width", "height")
        for what, find in QUANTILES
        if what != "mean"
    ]
    return Section("picture sizes in pixels", tuple(rows) if _sized(profiles) else ())


def _edge(edge: str, find: Callable[[Spread], Figure]) -> Find:
    return lambda p: find(getattr(known, edge)) if (known := _size(p)) else UNKNOWN


def tokens(profiles: Profiles) -> Section:
    """Tokens of a picture by the length of its longer side."""
    found = _sized(profiles)
    sides = list(dict.fromkeys(side for size in found for side in size.tokens))
    rows = [
        row(profiles, f"at {side} px: {what}", _tokens(side, find))
        for side in sides
        for what, find in QUANTILES
        if what != "lowest"
    ]
    remark = "Qwen2.5-VL: H × W / 784 in whole tokens, the longer side as it says"
    remark += f"; bars: at {SHOWN_SIDE} px" if len(profiles) == 1 else ""
    shown = _bars(found[0]) if len(profiles) == 1 and found else ()
    return Section("tokens per picture", tuple(rows), remark if rows else "", shown)


def _tokens(side: int, find: Callable[[Spread], Figure]) -> Find:
    def figure(profile: Profile) -> Figure:
        known = _size(profile)
        return find(known.tokens[side]) if known and side in known.tokens else UNKNOWN

    return figure


def _bars(found: SizeProfile) -> tuple[tuple[str, int], ...]:
    """Of the longer side SHOWN_SIDE; labels say the range of tokens."""
    step = found.step
    first = next((n for n, count in enumerate(found.histogram) if count), 0)
    return tuple(
        (f"{n * step + 1}-{(n + 1) * step}", count)
        for n, count in enumerate(found.histogram)
        if n >= first
    )


def _size(profile: Profile) -> SizeProfile | None:
    return profile.pictures.sizes if profile.pictures else None


def _sized(profiles: Profiles) -> list[SizeProfile]:
    return [size for profile in profiles if (size := _size(profile))]


QUANTILES: Final[tuple[tuple[str, Callable[[Spread], Figure]], ...]] = (
    ("lowest", lambda found: number(found.lowest)),
    ("mean", lambda found: Figure(f"{found.mean:.1f}", found.mean)),
    ("median", lambda found: number(found.median)),
    ("95th percentile", lambda found: number(found.p95)),
    ("highest", lambda found: number(found.highest)),
)
