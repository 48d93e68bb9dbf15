"""Settings as they are typed after `--set`."""

from __future__ import annotations

import functools
import re
import tomllib
from typing import Any

from workbench.plan import PlanError


def read_setting(text: str) -> tuple[str, Any]:
    """`key=value` from a flag; the value is read as TOML, and as plain text when it is none.

    Numbers between commas are a list, with brackets or without: `layers=3,7,11`. A setting that is
    text in every engine stays as typed: a folder may be called 2024 or 2026-11-29.

    Raises:
        PlanError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PlanError([f"--set {text}: is not KEY=VALUE"])
    if key.strip() in _text_settings() and not value.strip().startswith(('"', "'")):
        return key.strip(), value
    if re.fullmatch(r"[-+.\de]+(,[-+.\de]+)+", value):
        value = f"[{value}]"
    try:
        return key.strip(), tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


@functools.cache
def _text_settings() -> frozenset[str]:
    """Settings whose type is text, or text or nothing, in every engine that has them."""
    from engines import catalog

    fields = [
        (name, field.annotation)
        for engine in catalog.names()
        for name, field in catalog.load(engine).Params.model_fields.items()
    ]
    other = {name for name, kind in fields if kind not in (str, str | None)}
    return frozenset(name for name, _ in fields if name not in other)
