"""Model catalog: entries that ship, the user's entries, local folders and trained models.

An entry has the source of the weights and what an engine needs to build the model; nothing is
loaded here. Other names: `path:/abs/dir`, a folder in transformers' or open_clip's layout or of a
run; `hub:org/name` (and `hub:org/name@revision`), a repository in the local hub cache; `run:ID` and
`run:SUITE/ID`, weights that another run trained (see `trained_weights`).
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from datasets_mm import strict_toml
from datasets_mm.sources import hub_cache
from datasets_mm.strict_toml import FileSignature, suggest_nearest
from engines import trained_weights
from engines.trained_weights import PATH_PREFIX, NoCheckpointError, TrainedWeights
from results.text.renamed_words import rename_keys, rename_typed_keys

CATALOG: Final = Path(__file__).parent / "model_entries"
HUB_PREFIX: Final = "hub:"
"""Before the name of a repository in the local hub cache; `trained_weights` has the others."""
WEIGHTS: Final = "model.safetensors"
OPEN_CLIP: Final = "open_clip_config.json"
NEEDED: Final = ("config.json", WEIGHTS, "tokenizer.json")
"""Required files of a local folder. Pickled weights are never loaded."""
NEEDED_OPEN_CLIP: Final = (OPEN_CLIP, "open_clip_model.safetensors")
PART_FILES: Final = ("config.json", WEIGHTS)
PICKLED: Final = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
Family = Literal[
    "clip", "metaclip2", "siglip", "open-clip", "qwen-embedding", "clip-scratch",
    "frozen-towers", "captioner", "vlm", "run",
]  # fmt: skip
TRANSFORMERS: Final[dict[str, Family]] = {
    "clip": "clip", "metaclip_2": "metaclip2", "siglip": "siglip", "siglip2": "siglip",
}  # fmt: skip
"""Families by the model_type of a folder in transformers' layout."""
INSTALL_OPEN_CLIP: Final = "install the `retrieval` extra: pip install 'workbench-mm[retrieval]'"


class ModelPart(BaseModel):
    """A component of a composed model: weights of a folder, of a package, or sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str = Field(default="", description="Repository id on the Hugging Face hub")
    revision: str = Field(default="main", description="Commit, tag or branch of the hub repository")
    path: str = Field(default="", description="Local folder in transformers' layout")
    packages: tuple[str, ...] = Field(default=(), description="Import names of its packages")
    install: str = Field(default="", description="What to install when a package is missing")
    gguf: str = Field(
        default="", description="GGUF file of the first package, converted to a folder once"
    )
    architecture: dict[str, Any] = Field(
        default={}, description="Sizes of what starts from scratch, or the tower of a package"
    )


class ModelEntry(BaseModel):
    """One model of the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_number: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(description="Name in plans and tables")
    title: str = Field(default="", description="One line for lists")
    engines: tuple[str, ...] = Field(default=(), description="Engines that can use it; empty: all")
    family: Family = Field(description="How an engine builds it")
    hub: str = Field(default="", description="Repository id on the Hugging Face hub")
    revision: str = Field(default="main", description="Commit, tag or branch of the hub repository")
    path: str = Field(default="", description="Local folder in transformers' or open_clip's layout")
    packages: tuple[str, ...] = Field(
        default=(), description="Import names of packages that carry its weights or code"
    )
    install: str = Field(default="", description="What to install when a package is missing")
    license: str = Field(default="", description="Licence of the weights")
    refusal: str = Field(default="", description="Why it cannot be used; empty: it can")
    notes: str = Field(default="", description="What a reader of its numbers should know")
    architecture: dict[str, Any] = Field(
        default={}, description="Sizes of a model that starts from scratch, or tower names"
    )
    vision: ModelPart | None = Field(default=None, description="Frozen vision tower of a captioner")
    llm: ModelPart | None = Field(default=None, description="Language model of a captioner")
    settings: Annotated[dict[str, Any], BeforeValidator(rename_typed_keys)] = Field(
        default={}, description="Defaults of the engine's settings; a plan's settings win"
    )


def names(engine: str | None = None) -> list[str]:
    """Names of all cataloged models, or of those that an engine can use."""
    entries = _read_entries()
    return sorted(
        name
        for name, entry in entries.items()
        if engine is None or not entry.engines or engine in entry.engines
    )


def load(name: str) -> ModelEntry:
    """The entry of that name, of a `path:`, of a `hub:` or of a `run:`.

    Raises:
        LookupError: there is none; its one argument is a sentence.
        ValueError: an entry's file is wrong, or two entries have one name.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind == "path":
        return _local_entry(name, Path(rest).expanduser())
    if colon and kind == "hub":
        return _hub_entry(name, rest)
    if colon and kind == "run":
        return ModelEntry(name=name, title=f"trained by run {rest}", family="run")
    entries = _read_entries()
    if name not in entries:
        folder = f"{PATH_PREFIX}{Path(name).expanduser().absolute()}"
        hint = f"; did you mean '{folder if name[0] in './~' else f'{HUB_PREFIX}{name}'}'?"
        raise LookupError(
            f"no model '{name}'{hint if '/' in name else suggest_nearest(name, entries)}"
        )
    return entries[name]


def find_problem(entry: ModelEntry) -> str | None:
    """Why the model is not available here, in one sentence with the remedy; None: it is."""
    if entry.refusal:
        return f"model '{entry.name}': {entry.refusal}"
    if entry.family == "run":  # its base is another entry, see `find_base_entry`
        return None
    for part, files in ((entry.vision, PART_FILES), (entry.llm, (*PART_FILES, "tokenizer.json"))):
        if part is not None and (sentence := find_part_problem(entry.name, part, files)):
            return sentence
    if sentence := _find_absence(entry.name, entry):
        return sentence
    folder = weights_folder(entry)
    if folder is None:
        return None
    if entry.family == "vlm":
        return find_part_problem(entry.name, entry, NEEDED)
    needed = NEEDED_OPEN_CLIP if entry.family == "open-clip" else NEEDED
    missing = [file for file in needed if not (folder / file).is_file()]
    if needed[1] in missing and any((folder / file).exists() for file in PICKLED):
        return (
            f"model '{entry.name}': {folder} has only pickled weights, which are never loaded; "
            f"save them as {needed[1]}"
        )
    if missing:
        return f"model '{entry.name}': {folder} lacks {', '.join(missing)}; complete the folder"
    return None


def find_base_entry(trained: TrainedWeights, override: str = "") -> ModelEntry:
    """The entry of the model that a training started from, with weights on this machine.

    Tried in order: the entry in the checkpoint; the entry of that name in this catalog, where
    folders differ; the encoder folder beside the checkpoint. `override`: another name for it.

    Raises:
        LookupError: its name is not known here and the checkpoint does not describe it.
        ValueError: an entry's file is wrong, or two entries have one name.
    """
    if override:
        return load(override)
    stated = trained.state.get("entry")
    if not isinstance(stated, dict):  # version 0.1
        return load(trained.base_model)
    settings = rename_keys(stated.get("settings") or {})
    entry = ModelEntry.model_validate({**stated, "settings": settings})
    if (sentence := find_problem(entry)) is None:
        return entry
    try:
        local = load(entry.name)
    except (LookupError, ValueError):
        local = entry
    if local.family == entry.family and find_problem(local) is None:
        return local
    encoder = trained.folder.parent / trained_weights.ENCODER
    whole = entry.model_copy(update={"path": str(encoder), "hub": ""})
    if encoder.is_dir() and find_problem(whole) is None:
        return whole
    remedy = "set base_model to its name or folder on this machine, as path:/abs/dir"
    raise LookupError(f"{sentence}; or {remedy}")


def find_part_problem(
    name: str, part: ModelPart | ModelEntry, needed: tuple[str, ...]
) -> str | None:
    """`find_problem` of one component of model `name`; weights may be in several files."""
    if sentence := _find_absence(name, part):
        return sentence
    folder = weights_folder(part)
    if folder is None or (lacking := [f for f in needed if not (folder / f).is_file()]) == []:
        return None
    if WEIGHTS in lacking and (folder / f"{WEIGHTS}.index.json").is_file():
        lacking.remove(WEIGHTS)
    if not lacking:
        return None
    return f"model '{name}': {folder} lacks {', '.join(lacking)}; complete the folder"


def _find_absence(name: str, entry: ModelEntry | ModelPart) -> str | None:
    """Missing package or folder of weights, in one sentence; None: all there."""
    for package in entry.packages:
        if find_spec(package) is None:
            remedy = entry.install or f"install the package that provides `{package}`"
            return f"model '{name}': package `{package}` is missing; {remedy}"
    if not entry.hub and not entry.path:
        return None
    folder = weights_folder(entry)
    if folder is None:
        command = f"hf download {entry.hub} --revision {entry.revision}"
        return (
            f"model '{name}': {entry.hub} is not in the local hub cache "
            f"{hub_cache.cache_folder()}; run `{command}` where there is a network, or name a "
            "folder as path:/abs/dir"
        )
    return None if folder.is_dir() else f"model '{name}': {folder} is no folder; check the path"


def parse_part(text: str) -> ModelPart | None:
    """The part that `path:/abs/dir` or `hub:org/name[@revision]` names; None: it is neither."""
    kind, _, rest = text.partition(":")
    if kind == "path":
        return ModelPart(path=rest)
    hub, _, revision = rest.partition("@")
    return ModelPart(hub=hub, revision=revision or "main") if kind == "hub" else None


def weights_folder(entry: ModelEntry | ModelPart) -> Path | None:
    """The folder with the weights: its path, or its snapshot in the local hub cache; else None."""
    if entry.path:
        return Path(entry.path).expanduser().absolute()
    if not entry.hub:
        return None
    return hub_cache.find_snapshot(entry.hub, entry.revision, "models")


def cached_revision(entry: ModelEntry | ModelPart) -> str:
    """The commit of the entry's revision in the hub cache; empty: not cached."""
    snapshot = hub_cache.find_snapshot(entry.hub, entry.revision, "models")
    return snapshot.name if snapshot else ""


def _local_entry(name: str, folder: Path) -> ModelEntry:
    """An entry for a folder, from its configuration."""
    if not folder.is_absolute():
        raise LookupError(f"model '{name}': the path is not absolute; write path:/abs/dir")
    if not (folder / "config.json").is_file() and not (folder / OPEN_CLIP).is_file():
        try:
            trained = TrainedWeights.read(folder, name)
        except NoCheckpointError as error:
            if (folder / "spec.json").is_file():
                raise LookupError(str(error)) from None
        else:
            engines = (trained.engine,) if trained.engine else ()
            title = f"trained from {trained.base_model} in {folder}"
            return ModelEntry(
                name=name, title=title, engines=engines, path=str(folder), family="run"
            )
    description = _describe_folder(name, folder)
    return ModelEntry(name=name, path=str(folder), **description)


def _hub_entry(name: str, repository: str) -> ModelEntry:
    """An entry for a repository that the local hub cache holds."""
    hub, _, revision_name = repository.partition("@")
    entry = ModelEntry(name=name, family="clip", hub=hub, revision=revision_name or "main")
    folder = weights_folder(entry)
    if folder is None:
        raise LookupError(find_problem(entry))
    return entry.model_copy(update=_describe_folder(name, folder))


def _describe_folder(name: str, folder: Path) -> dict[str, Any]:
    """Family, title and settings of a model folder in either layout."""
    if (folder / OPEN_CLIP).is_file() and not (folder / "config.json").is_file():
        return _describe_open_clip(name, folder)
    config = _read_json(name, folder / "config.json")
    kind = config.get("model_type")
    family = TRANSFORMERS.get(str(kind))
    if family is None and isinstance(config.get("vision_config"), dict):
        return {"title": f"{kind} in {folder}", "engines": ("vqa",), "family": "vlm"}
    if family is None:
        raise LookupError(
            f"model '{name}': model_type {kind!r} is not supported; a `clip`, `metaclip_2`, "
            "`siglip` or `siglip2` folder is, one in open_clip's layout, or a vision-language "
            "model whose config.json has a vision_config"
        )
    vision, text = (_read_table(config, f"{tower}_config") for tower in ("vision", "text"))
    context = _read_size(name, text, "max_position_embeddings", 64 if family == "siglip" else 77)
    if kind == "siglip2":  # for any shape: it states its number of patches; a square of as many
        patches = _read_size(name, vision, "num_patches", 256)
        size = math.isqrt(patches) * _read_size(name, vision, "patch_size", 16)
    else:
        size = _read_size(name, vision, "image_size", 224)
    return {
        "title": f"{str(kind).upper()} in {folder}",
        "engines": ("retrieval",),
        "family": family,
        "settings": {"image_size": size, "max_length": context},
    }


def _describe_open_clip(name: str, folder: Path) -> dict[str, Any]:
    config = _read_json(name, folder / OPEN_CLIP).get("model_cfg")
    if not isinstance(config, dict):
        raise LookupError(f"model '{name}': {folder / OPEN_CLIP} has no `model_cfg`")
    vision, text = (_read_table(config, f"{tower}_cfg") for tower in ("vision", "text"))
    return {
        "title": f"open_clip model in {folder}",
        "engines": ("retrieval",),
        "family": "open-clip",
        "packages": ("open_clip",),
        "install": INSTALL_OPEN_CLIP,
        "settings": {
            "image_size": _read_size(name, vision, "image_size", 224),
            "max_length": _read_size(name, text, "context_length", 77),
        },
    }


def _read_table(config: dict[str, Any], key: str) -> dict[str, Any]:
    table = config.get(key)
    return table if isinstance(table, dict) else {}


def _read_size(name: str, table: dict[str, Any], key: str, default: int) -> int:
    """A size of a configuration: a whole number, or the first of a pair."""
    stated = table.get(key, default)
    size = stated[0] if isinstance(stated, list) and stated else stated
    if not isinstance(size, int) or size < 1:
        raise LookupError(
            f"model '{name}': its configuration says {key} = {stated!r}; a whole number is wanted"
        )
    return size


def _read_json(name: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LookupError(
            f"model '{name}': {path} cannot be read ({error.strerror}); "
            "name a folder in transformers' or open_clip's layout"
        ) from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise LookupError(f"model '{name}': {path} is not JSON")
    return content


def _read_entries() -> Mapping[str, ModelEntry]:
    return _parse_entries(tuple((path, strict_toml.sign_file(path)) for path in _entry_files()))


@functools.lru_cache(maxsize=4)
def _parse_entries(
    files: tuple[tuple[Path, FileSignature], ...],
) -> Mapping[str, ModelEntry]:
    """Entries by name; parsed once, since a plan asks for its models several times a run (5 ms)."""
    entries: dict[str, ModelEntry] = {}
    for path, _ in files:
        entry = strict_toml.read(path, ModelEntry)
        if entry.name in entries:
            raise ValueError(
                f"{path}: a model '{entry.name}' exists already; give this one another name"
            )
        entries[entry.name] = entry
    return entries


def _entry_files() -> Iterator[Path]:
    # The same folder as workbench.paths.config_root; engines do not know the workbench.
    config = os.environ.get("WORKBENCH_CONFIG")
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "workbench"
    user_folder = (Path(config) if config else base).expanduser() / "models"
    for folder in (CATALOG, user_folder):
        yield from strict_toml.list_files(folder)
