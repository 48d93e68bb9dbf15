"""Groups of settings: from the sections of an engine's Params, with the often changed ones first.

Pure.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workbench.tui.view_models.form_fields import Setting

OFTEN: Final = "often changed"
PLAN: Final = "plan"
OFTEN_NAMES: Final = ("epochs", "batch", "lr", "max_steps", "seeds", "task")
"""Settings of the first group; what differs from its default joins them."""
_TITLES: Final[Mapping[str, str]] = {
    "keeping": "checkpoints",
    "ranks": "machine",
    "params": "other",
}
"""Name of a section -> title of its group, where the two differ."""
_HEADING: Final = "group:"


@dataclass(frozen=True, slots=True)
class SettingGroup:
    """Settings under one heading."""

    title: str
    settings: tuple[Setting, ...]

    @property
    def key(self) -> str:
        """Key of its heading in the list."""
        return f"{_HEADING}{self.title}"


def section_titles(params: type[Any]) -> dict[str, str]:
    """Setting -> title of the section of `params` that declares it first."""
    titles = {}
    for name in params.model_fields:
        owners = [c for c in params.__mro__ if name in inspect.get_annotations(c)]
        section = owners[-1].__name__ if owners else params.__name__
        plain = section.strip("_").removeprefix("Caption")
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain).lower()
        titles[name] = _TITLES.get(words, words)
    return titles


def group_settings(
    settings: Sequence[Setting], changed: Collection[str], opened: Collection[str]
) -> tuple[SettingGroup, ...]:
    """All settings in groups, each in one: first the often changed, and the changed ones of groups
    that are not open."""
    by_name = {setting.name: setting for setting in settings}
    first = [by_name[name] for name in OFTEN_NAMES if name in by_name]
    hidden = [s for s in settings if s.name in changed and (s.group or PLAN) not in opened]
    first += [setting for setting in hidden if setting.name not in OFTEN_NAMES]
    groups: dict[str, list[Setting]] = {OFTEN: first}
    names = {setting.name for setting in first}
    for setting in settings:
        if setting.name not in names:
            groups.setdefault(setting.group or PLAN, []).append(setting)
    return tuple(SettingGroup(title, tuple(group)) for title, group in groups.items() if group)


def search_settings(settings: Sequence[Setting], text: str) -> list[Setting]:
    """Settings whose name or description has all words; those with a word in their name first."""
    words = text.lower().split()
    fitting = [s for s in settings if all(w in f"{s.name} {s.about}".lower() for w in words)]
    return sorted(fitting, key=lambda s: not any(word in s.name for word in words))


def heading_title(key: str) -> str:
    """Title of the group of a heading's key; empty: the key is a setting's."""
    return key.removeprefix(_HEADING) if key.startswith(_HEADING) else ""
