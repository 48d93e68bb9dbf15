"""Strict reading of the TOML files that people write: plans, recipes, models, presets.

All errors of a file are listed at once, each with the file, the key path, the bad value and what
to do about it. Stands here, at the bottom of the house, because every room above reads TOML.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 1 << 20
"""A plan or a recipe is some kilobytes; a larger file is not one."""


class TomlError(ValueError):
    """A file that a person wrote is wrong; `problems` has one sentence for each error."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def files(folder: Path) -> list[Path]:
    """The TOML files of a folder that people write, by name.

    Without hidden ones, which editors and file managers leave: a lock of Emacs is a link to nothing
    called `.#x.toml`, and macOS puts a binary `._x.toml` beside a file on a foreign disk.
    """
    return sorted(
        path
        for path in folder.glob("*.toml")
        if not path.name.startswith(".") and not path.is_dir()
    )


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
    items = error.errors(include_url=False)
    return [_sentence(dict(item), model, place) for item in items if not _follows(item, items)]


def _follows(item: Any, items: list[Any]) -> bool:
    """A list is called too short because its own elements were refused: not a second error."""
    inner = (other["loc"][: len(item["loc"])] for other in items if other is not item)
    return bool(item["type"] == "too_short" and item["loc"] in inner)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of known names, to end an error sentence with."""
    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is known"


def _sentence(item: dict[str, Any], model: type[BaseModel], place: str) -> str:
    path, models = _walk(model, item["loc"])
    match item["type"]:
        case "extra_forbidden":
            _, models = _walk(model, item["loc"][:-1])
            known = [name for one in models for name in _keys(one)]
            return f"{place}: unknown key '{path}'{nearest(str(item['loc'][-1]), known)}"
        case "missing":
            return f"{place}: '{path}' is missing; add it"
        case "union_tag_not_found":
            return f"{place}: '{path}.{_tag_key(item)}' is missing; add it"
        case "union_tag_invalid":
            tags = [tag for one in models for tag in _tags(one)]
            tag = str(item["ctx"]["tag"])
            return f"{place}: '{path}.{_tag_key(item)}' = {tag!r} is wrong{nearest(tag, tags)}"
        case "literal_error" if isinstance(item["input"], str):
            allowed = re.findall(r"'([^']*)'", str(item["ctx"]["expected"]))
            value = _short(item["input"])
            return f"{place}: '{path}' = {value} is wrong{nearest(item['input'], allowed)}"
        case "tuple_type" | "list_type":
            value = _short(item["input"])
            return f"{place}: '{path}' = {value} is wrong: a list is wanted, such as [1, 2]"
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    where = f"'{path}' = {_short(item['input'])}" if path else "it"
    return f"{place}: {where} is wrong: {message}"


def _tag_key(item: dict[str, Any]) -> str:
    """Key that says which member of a tagged union is meant."""
    return str(item["ctx"]["discriminator"]).strip("'")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _walk(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, list[Any]]:
    """The key path as a person would write it, and the models that may stand there.

    pydantic puts the tag of a union member among the keys; nobody wrote it there: it is left out.
    Tags of values that are no tables stand in angle brackets.
    """
    text, models = "", [model]
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        if part.startswith("<"):
            continue
        fields = [field for one in models if (field := _field(one, part))]
        tagged = [one for one in models if part in _tags(one)]
        if tagged and not fields:
            models = tagged
            continue
        text += f".{part}" if text else part
        models = [inner for field in fields for inner in _models(field.annotation)]
    return text, models


def _keys(model: Any) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _field(model: Any, key: str) -> Any:
    named = zip(_keys(model), model.model_fields.values(), strict=True)
    return next((field for name, field in named if name == key), None)


def _tags(model: Any) -> list[str]:
    """Values of the literals by which a tagged union tells this model from others."""
    annotations = [field.annotation for field in model.model_fields.values() if field.is_required()]
    return [
        str(tag)
        for annotation in annotations
        if get_origin(annotation) is Literal
        for tag in get_args(annotation)
    ]


def _models(annotation: Any) -> list[Any]:
    """Every model inside an annotation: of lists, optionals and unions, too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
