"""The pretrained parts of a captioner, vision tower and language model, as a run selects them."""

from __future__ import annotations

from pathlib import Path

from engines import model_catalog
from engines.captioning.context import Context
from engines.captioning.params import Params
from engines.emitter import EngineError
from engines.model_catalog import ModelEntry, ModelPart


def resolve_part(context: Context, name: str) -> ModelPart:
    """The part `name` ("vision" or "llm") of a run: that of its setting, else of the model's entry.

    Raises:
        EngineError: none is set, or its files are not on this machine.
    """
    part = select_part(context.entry, context.params, name)
    needed = (
        model_catalog.PART_FILES
        if name == "vision"
        else (*model_catalog.PART_FILES, "tokenizer.json")
    )
    if sentence := model_catalog.find_part_problem(context.entry.name, part, needed):
        raise EngineError(sentence)
    return part


def select_part(entry: ModelEntry, params: Params, name: str) -> ModelPart:
    """As `resolve_part`, without checking that the files are on this machine.

    Raises:
        EngineError: none is set, or the setting has neither of its two forms.
    """
    setting: str = getattr(params, name)
    part: ModelPart | None = model_catalog.parse_part(setting)
    if setting and part is None:
        raise EngineError(f"{name} = {setting}: is neither path:/abs/dir nor hub:org/name")
    part = part or getattr(entry, name)
    if part is None:
        raise EngineError(f"model '{entry.name}' has no {name}; set {name} = path:/abs/dir")
    return part


def describe_revision(context: Context, folder: Path) -> str:
    """Revisions of both parts for the record; a base model trained from scratch by its folder."""
    parts = []
    for name in ("vision", "llm"):
        part = resolve_part(context, name)
        parts.append(model_catalog.cached_revision(part) if part.hub else part.path or part.gguf)
    revisions = [name for name in parts if name]
    return " + ".join(revisions) or f"base {folder.name}"
