"""Strict reading of the TOML files that people write: plans, recipes, models, presets.

All errors of a file are listed at once, each with the file, the key path, the bad value and what
to do about it. Stands here, at the bottom of the house, because every room above reads TOML.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1 << 20
"""A plan or a recipe is some kilobytes; a larger file is not one."""


class TomlError(ValueError):
    """A file that a person wrote is wrong; `problems` has one sentence for each error."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read(path: Path, model: type[Model]) -> Model:
    """The file as a model.

    Raises:
        TomlError: it cannot be read, is no TOML, or does not fit the model.
    """
    return parse(read_table(path), model, str(path))


def read_table(path: Path) -> dict[str, Any]:
    """The file as a plain table.

    Raises:
        TomlError: it cannot be read or is no TOML.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TomlError([f"{path}: larger than 1 MiB; a file that people write is smaller"])
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TomlError([f"{path}: cannot be read ({error.strerror}); check the path"]) from None
    except UnicodeDecodeError:
        raise TomlError([f"{path}: is not UTF-8; save it as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise TomlError([f"{path}: is not TOML: {error}"]) from None


def parse(table: Mapping[str, Any], model: type[Model], place: str) -> Model:
    """The table as a model; `place` names it in errors.

    Raises:
        TomlError: the table does not fit the model.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise TomlError(sentences(error, model, place)) from None


def sentences(error: ValidationError, model: type[BaseModel], place: str) -> list[str]:
    """One sentence for each error of a validation."""
    return [_sentence(dict(item), model, place) for item in error.errors(include_url=False)]


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of known names, to end an error sentence with."""
    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is known"


def _sentence(item: dict[str, Any], model: type[BaseModel], place: str) -> str:
    path = _path(item["loc"])
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        return f"{place}: unknown key '{path}'{nearest(str(item['loc'][-1]), known)}"
    if item["type"] == "missing":
        return f"{place}: '{path}' is missing; add it"
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    where = f"'{path}' = {_short(item['input'])}" if path else "it"
    return f"{place}: {where} is wrong: {message}"


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Names that are allowed at a key path, as far as the model tells."""
    current: Any = model
    for part in loc:
        if isinstance(part, int) or not _is_model(current):
            continue
        field = current.model_fields.get(part)
        current = _inner_model(field.annotation) if field else None
    if not _is_model(current):
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _inner_model(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation
    models = (_inner_model(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in models if model is not None), None)


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
