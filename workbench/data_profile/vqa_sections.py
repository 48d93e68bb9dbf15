"""Sections of four-choice questions: right answers, question types, picture sizes and tokens.

Empty if no profile has such questions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from datasets_mm.profile.profile import ChoiceProfile, NumberProfile, Profile, SizeProfile
from datasets_mm.recipes.record_classes import LETTERS
from workbench.data_profile.section_types import (
    UNKNOWN,
    FigureFunction,
    ProfileFigure,
    Profiles,
    ProfileSection,
    count_with_share,
    number,
    row,
)

CHART_SIDE: Final = 512
"""Longer side, in pixels, whose tokens are shown as bars."""


def answer_section(profiles: Profiles) -> ProfileSection:
    """How often each letter is right."""
    choices = _choices(profiles)
    has_answers = any(p.choices and p.choices.answers.keys() - {""} for p in profiles)
    rows = [row(profiles, letter, _answer(letter)) for letter in LETTERS] if has_answers else []
    if any("" in profile.answers for profile in choices):
        rows.append(row(profiles, "not known", _answer("")))
    return ProfileSection("right answer", tuple(rows))


def _answer(letter: str) -> FigureFunction:
    return _of_choices(lambda choices: choices.answers.get(letter, 0))


def kind_section(profiles: Profiles) -> ProfileSection:
    """Counts of question types."""
    names = dict.fromkeys(name for profile in _choices(profiles) for name in profile.kinds)
    rows = [row(profiles, name, _kind(name)) for name in names]
    return ProfileSection("type of question", tuple(rows))


def _kind(name: str) -> FigureFunction:
    return _of_choices(lambda choices: choices.kinds.get(name, 0))


def _choices(profiles: Profiles) -> list[ChoiceProfile]:
    return [profile.choices for profile in profiles if profile.choices]


def _of_choices(count: Callable[[ChoiceProfile], int]) -> FigureFunction:
    return lambda p: count_with_share(count(p.choices), p.records) if p.choices else UNKNOWN


def size_section(profiles: Profiles) -> ProfileSection:
    """Quantiles of picture widths and heights."""
    rows = [
        row(profiles, f"{edge}: {statistic}", _edge(edge, find))
        for edge in ("width", "height")
        for statistic, find in QUANTILES
        if statistic != "mean"
    ]
    return ProfileSection(
        "picture sizes in pixels", tuple(rows) if _all_picture_sizes(profiles) else ()
    )


def _edge(edge: str, find: Callable[[NumberProfile], ProfileFigure]) -> FigureFunction:
    return lambda p: find(getattr(sizes, edge)) if (sizes := _picture_sizes(p)) else UNKNOWN


def token_section(profiles: Profiles) -> ProfileSection:
    """Tokens of a picture by the length of its longer side."""
    picture_sizes = _all_picture_sizes(profiles)
    sides = list(dict.fromkeys(side for size in picture_sizes for side in size.tokens))
    rows = [
        row(profiles, f"at {side} px: {statistic}", _tokens(side, find))
        for side in sides
        for statistic, find in QUANTILES
        if statistic != "lowest"
    ]
    remark = "Qwen2.5-VL: H × W / 784 in whole tokens, the longer side as it says"
    remark += f"; bars: at {CHART_SIDE} px" if len(profiles) == 1 else ""
    shown = _token_bars(picture_sizes[0]) if len(profiles) == 1 and picture_sizes else ()
    return ProfileSection("tokens per picture", tuple(rows), remark if rows else "", shown)


def _tokens(side: int, find: Callable[[NumberProfile], ProfileFigure]) -> FigureFunction:
    def figure(profile: Profile) -> ProfileFigure:
        sizes = _picture_sizes(profile)
        return find(sizes.tokens[side]) if sizes and side in sizes.tokens else UNKNOWN

    return figure


def _token_bars(sizes: SizeProfile) -> tuple[tuple[str, int], ...]:
    """Token histogram at the longer side `CHART_SIDE`; labels are ranges of tokens."""
    step = sizes.step
    first = next((n for n, count in enumerate(sizes.histogram) if count), 0)
    return tuple(
        (f"{n * step + 1}-{(n + 1) * step}", count)
        for n, count in enumerate(sizes.histogram)
        if n >= first
    )


def _picture_sizes(profile: Profile) -> SizeProfile | None:
    return profile.pictures.sizes if profile.pictures else None


def _all_picture_sizes(profiles: Profiles) -> list[SizeProfile]:
    return [size for profile in profiles if (size := _picture_sizes(profile))]


QUANTILES: Final[tuple[tuple[str, Callable[[NumberProfile], ProfileFigure]], ...]] = (
    ("lowest", lambda spread: number(spread.lowest)),
    ("mean", lambda spread: ProfileFigure(f"{spread.mean:.1f}", spread.mean)),
    ("median", lambda spread: number(spread.median)),
    ("95th percentile", lambda spread: number(spread.p95)),
    ("highest", lambda spread: number(spread.highest)),
)
