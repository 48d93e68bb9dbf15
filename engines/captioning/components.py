"""The two parts of a captioner that come from elsewhere: which ones a run means."""

from __future__ import annotations

from pathlib import Path

from engines import model_catalog
from engines.captioning.context import Context
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.model_catalog import ModelEntry, ModelPart


def part(context: Context, name: str) -> ModelPart:
    """The vision tower or language model of the run: the setting's, else the entry's.

    Raises:
        EngineError: there is none, or it cannot be had here.
    """
    found = meant(context.entry, context.params, name)
    needed = (
        model_catalog.PART_FILES
        if name == "vision"
        else (*model_catalog.PART_FILES, "tokenizer.json")
    )
    if sentence := model_catalog.find_part_problem(context.entry.name, found, needed):
        raise EngineError(sentence)
    return found


def meant(entry: ModelEntry, params: Params, name: str) -> ModelPart:
    """The same, whether or not it can be had here.

    Raises:
        EngineError: there is none.
    """
    asked: str = getattr(params, name)
    kind, _, rest = asked.partition(":")
    if kind == "path":
        found: ModelPart | None = ModelPart(path=rest)
    elif kind == "hub":
        hub, _, revision = rest.partition("@")
        found = ModelPart(hub=hub, revision=revision or "main")
    elif asked:
        raise EngineError(f"{name} = {asked}: is neither path:/abs/dir nor hub:org/name")
    else:
        found = getattr(entry, name)
    if found is None:
        raise EngineError(f"model '{entry.name}' has no {name}; set {name} = path:/abs/dir")
    return found


def revision(context: Context, folder: Path) -> str:
    """Which weights these are; a base from scratch is named by its folder."""
    parts = []
    for name in ("vision", "llm"):
        found = part(context, name)
        parts.append(model_catalog.cached_revision(found) if found.hub else found.path or "")
    known = [one for one in parts if one]
    return " + ".join(known) or f"base {folder.name}"
