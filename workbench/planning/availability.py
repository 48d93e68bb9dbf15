"""Whether data, weights, packages and devices that a run needs are available on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from datasets_mm.recipes.recipe import RecipeError
from engines.protocol import Device

PART_SETTINGS: Final = {"vision": "", "llm": "", "siglip": "siglip", "bert_score": "bertscore"}
"""Settings of captioning that name a model -> the scorer that it is for; a cost probe scores
nothing."""


def needs_model(engine: str) -> bool:
    """Whether an engine reads subsets and models; the synthetic engine (`probe`) reads neither."""
    from engines import catalog

    return bool(catalog.load(engine).NEEDS)


def model_settings(engine: str, model: str) -> dict[str, Any]:
    """Default settings of the model's catalog entry; the plan's own settings override them."""
    from engines import model_catalog

    return dict(model_catalog.load(model).settings) if needs_model(engine) else {}


def incompatibilities(engine: str, subset: str, model: str) -> list[str]:
    """Why the subset or the model is for another engine, one sentence each; checks no settings."""
    from engines import model_catalog

    if not needs_model(engine):
        return []
    problems = [_form_mismatch(engine, subset)]
    model_entry = model_catalog.load(model)
    if model_entry.engines and engine not in model_entry.engines:
        problems.append(
            f"model '{model}' is for engine {_join_alternatives(model_entry.engines)}, "
            f"not for engine {engine}"
        )
    return [sentence for sentence in problems if sentence]


def _form_mismatch(engine: str, subset: str) -> str:
    """Why a subset has records of another form than the engine reads; empty: the forms agree."""
    from datasets_mm import catalog as subsets
    from engines import catalog

    engine_form = catalog.load(engine).FORM
    try:
        subset_form = subsets.subset_form(subset)
    except RecipeError:
        return ""  # `missing_requirements` says what is wrong with it
    if subset_form == engine_form:
        return ""
    matching_engines = [name for name in catalog.names() if subset_form == catalog.load(name).FORM]
    return (
        f"subset '{subset}' is for engine {_join_alternatives(matching_engines)}: "
        f"it has {subset_form}, and {engine} needs {engine_form}"
    )


def _join_alternatives(names: Sequence[str]) -> str:
    return " or ".join(names)


def find_device_conflict(devices: Sequence[Device], *, cpu: bool) -> list[str]:
    """The sentence about a plan that names GPUs and has `cpu = true`; empty list: no conflict."""
    both = cpu and devices
    return ["cpu = true hides every GPU; leave out devices, or leave out cpu"] if both else []


def missing_requirements(
    engine: str, subset: str, model: str, params: Mapping[str, Any], task: str
) -> list[str]:
    """Why a run cannot start here, one sentence each; empty list: it can.

    `params`: complete settings of the engine.
    """
    from datasets_mm import catalog as subsets
    from engines import model_catalog

    if not needs_model(engine):
        return []
    root = params.get("data_root")
    data_root = Path(root) if root else None
    references = (subset, *(params.get("evaluate_on") or ()), params.get("infer_on"))
    subset_names = dict.fromkeys(name for name in references if name)
    image_root = params.get("image_root") or ""
    problems = [subsets.find_problem(name, data_root, image_root) for name in subset_names]
    entry = model_catalog.load(model)
    problems.append(model_catalog.find_problem(entry))
    problems += [_form_mismatch(engine, name) for name in subset_names if name != subset]
    problems += _missing_parts(params, task)
    return [sentence for sentence in problems if sentence]


def _missing_parts(params: Mapping[str, Any], task: str) -> Iterator[str]:
    """A sentence for each model that a setting names and that is not here, or lacks a file."""
    from engines import model_catalog

    scorers = params.get("scorers") or ()
    for setting, scorer in PART_SETTINGS.items():
        name = str(params.get(setting) or "")
        part = model_catalog.parse_part(name)
        if not name or (scorer and (scorer not in scorers or task == "probe")):
            continue
        if part is None:
            if setting != "siglip":  # which may be a plain folder
                yield f"{setting} = {name}: is neither path:/abs/dir nor hub:org/name"
            continue
        tokenizer = () if setting == "vision" else ("tokenizer.json",)
        files = (*model_catalog.PART_FILES, *tokenizer)
        if sentence := model_catalog.find_part_problem(name, part, files):
            yield f"{setting} = {name}: {sentence}"
