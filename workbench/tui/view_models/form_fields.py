"""Form fields of an engine's settings, derived from the JSON schema of its Params. Pure.

Form, command line and validation thus share names, limits and defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["switch", "choice", "integer", "number", "text", "list", "range", "other"]
"""`range`: the values that a search tries."""

_KINDS: dict[str, Kind] = {
    "boolean": "switch",
    "integer": "integer",
    "number": "number",
    "string": "text",
    "array": "list",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a form."""

    name: str
    kind: Kind
    default: Any = None
    required: bool = False
    about: str = ""
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Allowed words beside values of its kind: `auto`."""
    optional: bool = False
    """An empty field means "not set"."""
    item: Kind = "text"
    """Kind of the items of a list."""
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    """`low` itself is excluded."""
    open_high: bool = False
    group: str = ""
    """Title of its group; empty: of the plan itself."""
    parts: tuple[Setting, ...] = ()
    """Of a table, or of each table of a list, its fields."""

    @property
    def key(self) -> str:
        """Its name without the brackets of a table, as a plan has it."""
        return self.name.strip("[]")

    @property
    def limits(self) -> str:
        """`> 0`, `1 to 64`, or nothing."""
        if self.low is not None and self.high is not None and not (self.open_low or self.open_high):
            return f"{self.low:g} to {self.high:g}"
        parts = []
        if self.low is not None:
            parts.append(f"{'>' if self.open_low else '≥'} {self.low:g}")
        if self.high is not None:
            parts.append(f"{'<' if self.open_high else '≤'} {self.high:g}")
        return " and ".join(parts)


class SettingError(ValueError):
    """The input is no valid value of the setting; one sentence."""


def settings_of_schema(schema: Mapping[str, Any]) -> tuple[Setting, ...]:
    """The settings of a model's JSON schema, in their order."""
    required = frozenset(schema.get("required", ()))
    definitions = schema.get("$defs", {})
    return tuple(
        _setting(name, part, definitions, required=name in required)
        for name, part in schema.get("properties", {}).items()
    )


def _setting(
    name: str, part: Mapping[str, Any], definitions: Mapping[str, Any], *, required: bool
) -> Setting:
    about, default = str(part.get("description", "")), part.get("default")
    core, optional = _core(part, definitions)
    choices = _choices(core)
    words = () if choices else _words(part)
    kind = _KINDS.get(core.get("type", ""), "other")
    if kind == "list" and _is_table(core, definitions):
        kind = "other"
    low, open_low = _limit(core, "minimum", "exclusiveMinimum")
    high, open_high = _limit(core, "maximum", "exclusiveMaximum")
    return Setting(
        name=name,
        kind="choice" if choices else kind,
        default=default,
        required=required,
        about=about,
        choices=choices,
        words=words,
        optional=optional,
        item=_item(core, definitions),
        low=low,
        high=high,
        open_low=open_low,
        open_high=open_high,
        parts=_part_fields(core, definitions) if kind == "other" else (),
    )


def _part_fields(core: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Setting, ...]:
    """Fields of a table, or of the tables of a list; not those that are tables themselves."""
    items = core.get("items")
    table = _core(items, definitions)[0] if isinstance(items, Mapping) else core
    fields = settings_of_schema({**table, "$defs": definitions})
    return tuple(field for field in fields if field.kind != "other")


def _core(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The part with its reference resolved and null removed; whether null was allowed.

    Of a union the list, which a single value may stand for, else the first branch.
    """
    core = dict(part)
    if "$ref" in core:
        core |= definitions.get(str(core["$ref"]).rpartition("/")[2], {})
    branches = core.get("anyOf") or core.get("oneOf") or core.get("allOf") or ()
    if not branches:
        return core, False
    solid = [b for b in branches if b.get("type") != "null"]
    branch = next((b for b in solid if b.get("type") == "array"), solid[0] if solid else {})
    inner, _ = _core(branch, definitions)
    return inner, len(solid) < len(branches)


def _choices(core: Mapping[str, Any]) -> tuple[str, ...]:
    values = core.get("enum") or ([core["const"]] if "const" in core else [])
    return tuple(values) if all(isinstance(v, str) for v in values) else ()


def _words(part: Mapping[str, Any]) -> tuple[str, ...]:
    """Constant strings of a union: `auto` of `int | 'auto'`."""
    branches = part.get("anyOf") or part.get("oneOf") or ()
    return tuple(word for branch in branches for word in _choices(branch))


def _limit(core: Mapping[str, Any], closed: str, opened: str) -> tuple[float | None, bool]:
    if (value := core.get(opened)) is not None:
        return float(value), True
    value = core.get(closed)
    return (None if value is None else float(value)), False


def _is_table(core: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether the items of a list are tables."""
    items = core.get("items")
    return isinstance(items, Mapping) and _core(items, definitions)[0].get("type") == "object"


def _item(core: Mapping[str, Any], definitions: Mapping[str, Any]) -> Kind:
    items = core.get("items") or (core.get("prefixItems") or [{}])[0]
    if not isinstance(items, Mapping):
        return "text"
    if len({branch.get("type") for branch in items.get("anyOf", ())}) > 1:
        return "text"  # indexes and UUIDs
    inner, _ = _core(items, definitions)
    return _KINDS.get(inner.get("type", ""), "text")


def parse_value(setting: Setting, typed: str) -> Any:
    """Parse the input of a setting.

    Raises:
        SettingError: it is no valid value.
    """
    typed = typed.strip()
    if not typed and setting.optional:
        return None
    if typed in setting.words:
        return typed
    if setting.kind == "range":
        return _parse_range(setting, typed)
    if setting.kind == "list":
        return [_scalar(setting, setting.item, part) for part in _parts(typed)]
    return _scalar(setting, setting.kind, typed)


def format_value(value: Any) -> str:
    """The value as input text; parses back to the same value."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    if isinstance(value, Mapping) and "low" in value:
        shape = "log" if value.get("log") else _plain(value.get("step") or "")
        return f"{_plain(value['low'])}..{_plain(value.get('high'))}" + (f":{shape}" * bool(shape))
    if isinstance(value, Mapping):
        return format_value(value.get("choices"))
    return _plain(value)


def _parse_range(setting: Setting, typed: str) -> Any:
    """A list of values, or the table of `1e-5..1e-3:log`, `1..4`, `0..1:0.1`."""
    from workbench.planning import search_space

    if ".." not in typed:
        return [_scalar(setting, setting.item, part) for part in _parts(typed)]
    try:
        span = search_space.parse_span(typed)
    except ValueError:
        forms = "1e-5..1e-3:log, 1..4, 0..1:0.1 or a list: 8, 16, 32"
        raise SettingError(f"{setting.name}: '{typed}' is no range; {forms}") from None
    return {key: value for key, value in span.items() if value is not False}


def next_value(setting: Setting, value: Any) -> Any:
    """The next value of a switch, cycling through its words, on and off."""
    values = [*setting.words, True, False]
    return values[(values.index(value) + 1) % len(values)] if value in values else not value


def is_default_value(setting: Setting, value: Any) -> bool:
    """Whether the value is the default: a plan need not name it."""
    if setting.required:
        return False
    default = setting.default
    if isinstance(default, tuple):
        default = list(default)
    return type(value) is type(default) and bool(value == default)


def _parts(typed: str) -> list[str]:
    return [part.strip() for part in typed.split(",") if part.strip()]


def _scalar(setting: Setting, kind: Kind, typed: str) -> Any:
    if kind == "switch":
        return typed.lower() in ("true", "yes", "on", "1")
    if kind in ("integer", "number"):
        return _number(setting, kind, typed)
    return typed


def _number(setting: Setting, kind: Kind, typed: str) -> int | float:
    plain = typed.replace("_", "")
    try:
        value: int | float = int(plain) if kind == "integer" else float(plain)
    except ValueError:
        expected = "a whole number" if kind == "integer" else "a number"
        raise SettingError(f"{setting.name}: '{typed}' is not {expected}") from None
    below = setting.low is not None and (
        value <= setting.low if setting.open_low else value < setting.low
    )
    above = setting.high is not None and (
        value >= setting.high if setting.open_high else value > setting.high
    )
    if below or above or math.isnan(value):
        raise SettingError(f"{setting.name}: {typed} is not {setting.limits or 'a number'}")
    return value


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
