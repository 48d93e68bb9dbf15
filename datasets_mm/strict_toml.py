"""Strict reading of the TOML files that people write: plans, recipes, models, presets.

All errors of a file are listed at once, each with the file, the key path, the bad value and the
remedy.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

NAME = re.compile(r"\^\[a-z0-9\]\[a-z0-9([._-]+)\]\{0,(\d+)\}\$$")
"""A pattern of names; its groups: the signs beside letters and digits, and how many follow."""
SCALARS = (bool, int, float, date, time)

MAX_BYTES = 1 << 20
"""A plan or a recipe is some kilobytes; a larger file is not one."""


class TomlError(ValueError):
    """A file that a person wrote is wrong; `problems` has one sentence for each error."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def list_files(folder: Path) -> list[Path]:
    """The TOML files of a folder that people write, by name.

    Without hidden ones, which editors and file managers leave: a lock of Emacs is a link to nothing
    called `.#x.toml`, and macOS puts a binary `._x.toml` beside a file on a foreign disk.
    """
    try:
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if not entry.is_dir()]
    except OSError:  # there is none
        return []
    return [
        folder / name
        for name in sorted(files)
        if name.endswith(".toml") and not name.startswith(".")
    ]


FileSignature = tuple[int, ...]
"""Inode, time of the last change (ns) and size of a file; empty: it cannot be read."""


def sign_file(path: Path) -> FileSignature:
    """The signature of a file, the key of what was parsed from it."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


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


def parse(table: Mapping[str, Any], model: type[Model], source: str) -> Model:
    """The table as a model; `source` names it in errors.

    Raises:
        TomlError: the table does not fit the model.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise TomlError(error_sentences(error, model, source)) from None


def error_sentences(error: ValidationError, model: type[BaseModel], source: str) -> list[str]:
    """One sentence for each error of a validation."""
    items = error.errors(include_url=False)
    return [
        _sentence(dict(item), model, source) for item in items if not _is_consequence(item, items)
    ]


def _is_consequence(item: Any, items: list[Any]) -> bool:
    """A list is called too short because its own elements were refused: not a second error."""
    inner = (other["loc"][: len(item["loc"])] for other in items if other is not item)
    return bool(item["type"] == "too_short" and item["loc"] in inner)


def suggest_nearest(
    name: str, names: Iterable[str], renamed: Mapping[str, str] | None = None
) -> str:
    """`; did you mean 'x'?` or the list of known names: the end of an error sentence.

    `renamed`: earlier name -> name; where an earlier one is nearest, its name is suggested.
    """
    candidates = sorted(names)
    parts = [part.strip() for part in name.split(",")]
    if len(parts) > 1 and set(parts) <= set(candidates):
        return f"; these are {len(parts)} names: give each by itself"
    earlier = {old: new for old, new in (renamed or {}).items() if new in candidates}
    if matches := difflib.get_close_matches(name, [*candidates, *earlier], n=1, cutoff=0.6):
        return f"; did you mean '{earlier.get(matches[0], matches[0])}'?"
    return f"; known: {', '.join(candidates)}" if candidates else "; none is known"


def _sentence(item: dict[str, Any], model: type[BaseModel], source: str) -> str:
    path, models = _resolve_location(model, item["loc"])
    match item["type"]:
        case "extra_forbidden":
            _, models = _resolve_location(model, item["loc"][:-1])
            keys = [name for candidate in models for name in _model_keys(candidate)]
            renamed = next((c.RENAMED for c in models if hasattr(c, "RENAMED")), None)
            suggestion = suggest_nearest(str(item["loc"][-1]), keys, renamed)
            return f"{source}: unknown key '{path}'{suggestion}"
        case "missing":
            return f"{source}: '{path}' is missing; add it"
        case "union_tag_not_found":
            return f"{source}: '{path}.{_tag_key(item)}' is missing; add it"
        case "union_tag_invalid":
            tags = [tag for candidate in models for tag in _model_tags(candidate)]
            tag = str(item["ctx"]["tag"])
            suggestion = suggest_nearest(tag, tags)
            return f"{source}: '{path}.{_tag_key(item)}' = {tag!r} is wrong{suggestion}"
        case "literal_error" if isinstance(item["input"], str):
            allowed = re.findall(r"'([^']*)'", str(item["ctx"]["expected"]))
            value = _shorten_repr(item["input"])
            return f"{source}: '{path}' = {value} is wrong{suggest_nearest(item['input'], allowed)}"
        case "tuple_type" | "list_type":
            value = _shorten_repr(item["input"])
            return f"{source}: '{path}' = {value} is wrong: a list is wanted, such as [1, 2]"
        case "string_type" if isinstance(item["input"], SCALARS):
            value = _shorten_repr(item["input"])
            return f"{source}: '{path}' = {value} is wrong: text is wanted; put it in quotes"
        case "string_pattern_mismatch" if match := NAME.match(str(item["ctx"]["pattern"])):
            value, most = _shorten_repr(item["input"]), int(match[2]) + 1
            return (
                f"{source}: '{path}' = {value} is wrong: write at most {most} small letters of "
                f"English, digits and {' '.join(match[1])}, a letter or a digit first"
            )
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    subject = f"'{path}' = {_shorten_repr(item['input'])}" if path else "it"
    return f"{source}: {subject} is wrong: {message}"


def _tag_key(item: dict[str, Any]) -> str:
    """Key of the discriminator of a tagged union."""
    return str(item["ctx"]["discriminator"]).strip("'")


def _shorten_repr(value: Any) -> str:
    """The value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    text = value.isoformat() if isinstance(value, date | time) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _resolve_location(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, list[Any]]:
    """Key path as written in the file, and the models that are allowed there.

    pydantic puts the tag of a union member among the keys; it is not in the file and is left out.
    Tags of values that are no tables stand in angle brackets.
    """
    text, models = "", [model]
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        if part.startswith("<"):
            continue
        fields = [field for candidate in models if (field := _find_field(candidate, part))]
        tagged = [candidate for candidate in models if part in _model_tags(candidate)]
        if tagged and not fields:
            models = tagged
            continue
        text += f".{part}" if text else part
        models = [inner for field in fields for inner in _annotation_models(field.annotation)]
    return text, models


def _model_keys(model: Any) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _find_field(model: Any, key: str) -> Any:
    fields = zip(_model_keys(model), model.model_fields.values(), strict=True)
    return next((field for name, field in fields if name == key), None)


def _model_tags(model: Any) -> list[str]:
    """Literal values of the discriminator of a tagged union's member."""
    annotations = [field.annotation for field in model.model_fields.values() if field.is_required()]
    return [
        str(tag)
        for annotation in annotations
        if get_origin(annotation) is Literal
        for tag in get_args(annotation)
    ]


def _annotation_models(annotation: Any) -> list[Any]:
    """Every model inside an annotation: of lists, optionals and unions, too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _annotation_models(argument)]
