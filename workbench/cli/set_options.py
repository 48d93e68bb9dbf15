"""Parser of settings given by `--set KEY=VALUE`."""

from __future__ import annotations

import functools
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from results.text import renamed_words
from workbench.planning.plan import PlanError


def parse_settings(options: Iterable[str]) -> dict[str, Any]:
    """The settings of several `--set KEY=VALUE`, by their present names.

    Raises:
        PlanError: there is no `=`, or a setting is given by both of its names.
    """
    return join_settings(map(parse_setting, options), "--set")


def join_settings(pairs: Iterable[tuple[str, Any]], option: str) -> dict[str, Any]:
    """A table of pairs that were typed for `option`; a warning tells each earlier name.

    Raises:
        PlanError: a setting is given by both of its names.
    """
    table = dict(pairs)
    try:
        renamed: dict[str, Any] = renamed_words.rename_typed_keys(table)
    except ValueError as error:
        raise PlanError([f"{option}: {error}"]) from None
    return renamed


def parse_setting(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`; the value is read as TOML, or as plain text if it is no TOML.

    Numbers between commas are a list, with brackets or without: `layers=3,7,11`. A setting that is
    text in every engine stays as typed, since a folder may be called 2024 or 2026-11-29; so do the
    texts of a list, `evaluate_on=2024,emoji_val`. An empty value unsets an optional setting (None).

    Raises:
        PlanError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    key, bare = key.strip(), value.strip()
    if not equals or not key:
        raise PlanError([f"--set {text}: is not KEY=VALUE"])
    texts, lists, optional = _settings_by_kind()
    name = renamed_words.SETTINGS.get(key, key)
    if name in texts and not bare.startswith(('"', "'")):
        return key, value
    if not bare and name in optional:
        return key, None
    if name in lists and bare and not bare.startswith(('"', "'", "[")):
        return key, [part.strip() for part in bare.split(",") if part.strip()]
    if re.fullmatch(r"[-+.\de]+(\s*,\s*[-+.\de]+)+", bare):
        value = f"[{bare}]"
    try:
        return key, tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key, value


@functools.cache
def _settings_by_kind() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Settings that are text, lists of text, or optional, in every engine that has them."""
    from engines import catalog

    kinds: dict[str, list[Any]] = defaultdict(list)
    for engine in catalog.names():
        for name, field in catalog.load(engine).Params.model_fields.items():
            kinds[name].append(field.annotation)

    def matching_settings(fits: Any) -> frozenset[str]:
        return frozenset(name for name, annotations in kinds.items() if all(map(fits, annotations)))

    return (
        matching_settings(lambda kind: kind in (str, str | None)),
        matching_settings(lambda kind: any(map(_is_list_of_text, (kind, *get_args(kind))))),
        matching_settings(lambda kind: type(None) in get_args(kind)),
    )


def _is_list_of_text(kind: Any) -> bool:
    """Whether an annotation is `tuple[str, ...]` or a tuple of `Literal`s."""
    inner = get_args(kind)[0] if get_origin(kind) is tuple else None
    return inner is str or get_origin(inner) is Literal
