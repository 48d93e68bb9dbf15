"""Parts of a plan that are tables: variants, overrides, exclusions, stages, a search. Pure.

A form shows the fields of one part: its own, then the engine's settings, which a part nests under
`settings` (variant, override) or `ranges` (search).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from workbench.tui.view_models.form_fields import Setting, format_value

NESTED: Final = {"variant": "settings", "override": "settings", "search": "ranges"}
"""Setting of a plan -> key of its parts that holds settings of the engine."""
RANGE: Final = "1e-5..1e-3:log, 1..4, 0..1:0.1, or a list: 8, 16, 32; empty: not searched"


def is_single(setting: Setting) -> bool:
    """Whether the setting is one table, not a list of them."""
    return setting.optional


def list_fields(setting: Setting, engine_settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """Fields of the form of one part."""
    nested = NESTED.get(setting.key)
    part_fields = tuple(replace(field, group=setting.key) for field in setting.parts)
    plain = [field for field in engine_settings if field.kind != "other"]
    if nested == "settings":  # also the engine's default is a value that a part may state
        return (*part_fields, *(replace(field, default=None, optional=True) for field in plain))
    return (*part_fields, *map(_make_range, plain)) if nested else part_fields


def _make_range(field: Setting) -> Setting:
    words = f" ({', '.join(field.choices)})" if field.choices else ""
    return replace(
        field,
        kind="range",
        item="text" if field.kind in ("choice", "list") else field.kind,
        default=None,
        optional=True,
        choices=(),
        words=(),
        about=f"Searched values of: {field.about}{words}. {RANGE}",
    )


def flatten_part(setting: Setting, part: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the form's fields."""
    nested = NESTED.get(setting.key, "")
    part_fields = {key: value for key, value in part.items() if key != nested}
    return {**part_fields, **dict(part.get(nested) or {})}


def build_part(setting: Setting, values: Mapping[str, Any]) -> dict[str, Any]:
    """The part with these values of its fields; unset ones are left out."""
    stated = {key: value for key, value in values.items() if value not in (None, "", [])}
    nested = NESTED.get(setting.key)
    names = {field.name for field in setting.parts}
    part_fields = {key: value for key, value in stated.items() if not nested or key in names}
    inner = {key: value for key, value in stated.items() if nested and key not in names}
    return {**part_fields, **({nested: inner} if nested and inner else {})}


def describe_part(setting: Setting, part: Mapping[str, Any]) -> tuple[str, str]:
    """(name, what it sets) of one part."""
    values = flatten_part(setting, part)
    name = str(values.pop("label", "") or values.pop("name", ""))
    return name, ", ".join(f"{key} {format_value(value)}" for key, value in values.items())


def describe_parts(setting: Setting, value: Any) -> str:
    """`none`, `2: low rate, high rate`, `1`; of a search what it searches."""
    if not value:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(value.get("ranges") or {}) or "no range yet"
    names = [name for part in value if (name := describe_part(setting, part)[0])]
    return f"{len(value)}: {', '.join(names)}" if names else str(len(value))
