"""Collects what the audit's rules read: from the specs of a plan, or from a suite on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from datasets_mm import catalog as subsets
from datasets_mm.profile.subset_facts import SubsetFacts
from datasets_mm.recipes.recipe import RecipeError
from engines import model_catalog
from engines.protocol import RunSpec
from engines.trained_weights import PATH_PREFIX, RUN_PREFIX
from results.records import published_runs
from results.records.schema import GpuInfo, Identity, RunRecord
from workbench.audit import data_facts
from workbench.audit.run_facts import RunFacts
from workbench.memory_estimate import plan_estimate
from workbench.memory_estimate.gpus import GpuModel
from workbench.memory_estimate.plan_estimate import StepCounts
from workbench.planning.plan import SuitePlan

CONTEXTS: Final = {"siglip": 64, "clip": 77}
"""Tokens that text towers read, by what occurs in a judge's name, where its folder is not here."""
MAX_HEADER: Final = 100 << 20
"""Longest header of a file of weights that is read; the format's library allows no longer one."""


def collect_from_specs(
    specs: Sequence[RunSpec],
    device: object = None,
    reasons: Mapping[str, str] | None = None,
    rows: int | None = None,
) -> list[RunFacts]:
    """Facts of planned runs. `device`: as `memory_check.locate_device` gives it; `reasons`: why
    a variant is compared, by label; `rows`: of the subsets, where they are not built.
    """
    gpu = device if isinstance(device, GpuModel) else None
    return [
        _add_plan_facts(
            RunFacts(
                identity=_identity(spec),
                capability=gpu.capability if gpu else None,
                gpu=gpu.name if gpu else "",
                statements=_statements(spec.label, reasons or {}),
            ),
            Path(spec.cache_root),
            rows,
        )
        for spec in specs
    ]


def collect_reasons(plan: SuitePlan) -> dict[str, str]:
    """Reasons of a plan's variants by label."""
    return {variant.label: variant.why for variant in plan.variants}


def collect_from_records(
    runs: Sequence[tuple[Identity, RunRecord | None]],
    log_root: Path,
    cache_root: Path,
    rates: Mapping[str, Sequence[float]],
    statements: Mapping[str, Sequence[str]],
    log_records: Sequence[RunRecord] = (),
) -> list[RunFacts]:
    """Facts of a suite's runs with their records. `rates`, `statements`: by run id;
    `log_records`: of the log root, for the trainings of models that are evaluated.
    """
    return [
        _add_plan_facts(
            RunFacts(
                identity=identity,
                record=record,
                parent=_find_parent(identity, log_records),
                log_root=log_root,
                capability=gpu.capability if gpu else None,
                gpu=gpu.name if gpu else "",
                rates=rates.get(identity.run_id, ()),
                statements=(identity.label, *statements.get(identity.run_id, ())),
                validations=_list_validations(log_root, record),
                saved_parameters=_read_saved_parameters(log_root, record),
            ),
            cache_root,
        )
        for identity, record in runs
        for gpu in [_first_gpu(record)]
    ]


def _find_parent(identity: Identity, log_records: Sequence[RunRecord]) -> RunRecord | None:
    """The record of the run that trained a `run:` model; None: it is no such model."""
    suite, _, run_id = identity.model.removeprefix(RUN_PREFIX).rpartition("/")
    key = (suite or identity.suite, run_id)
    trained = (r for r in log_records if (r.identity.suite, r.identity.run_id) == key)
    return next(trained, None) if identity.model.startswith(RUN_PREFIX) else None


def _identity(spec: RunSpec) -> Identity:
    names = set(Identity.model_fields) & set(RunSpec.model_fields) - {"trial"}
    return Identity(**{name: getattr(spec, name) for name in names})


def _statements(label: str, reasons: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(text for text in (label, reasons.get(label, "")) if text)


def _first_gpu(record: RunRecord | None) -> GpuInfo | None:
    return next(iter(record.environment.run_gpus), None) if record else None


def _add_plan_facts(run: RunFacts, cache_root: Path, rows: int | None = None) -> RunFacts:
    """The facts with those that follow from settings, catalogs and built subsets."""
    identity, params = run.identity, run.identity.params
    evaluate_on = _reported_subsets(identity, cache_root)
    judge = str(params.get("siglip") or "")
    if run.record is not None and published_runs.is_imported(run.record):  # of other data
        rows, data, counts = None, None, {m.split: m.n for m in run.record.metrics}
    else:
        names = {*evaluate_on, str(params.get("validate_on") or "")} - {""}
        rows, data = rows or _count_rows(identity, cache_root), _measure_data(identity, cache_root)
        counts = {name: plan_estimate.count_rows(name, cache_root) or 0 for name in names}
    changes = {
        "steps": _count_steps(identity, run.record, rows),
        "evaluate_on": evaluate_on,
        "evaluation_rows": {name: count for name, count in counts.items() if count},
        "data": data,
        "judge_context": read_context(judge) if judge else None,
    }
    return RunFacts(**{**vars(run), **changes})


def _reported_subsets(identity: Identity, cache_root: Path) -> tuple[str, ...]:
    """Subsets that are evaluated: those of the settings, else those of the recipe."""
    stated = identity.params.get("evaluate_on")
    if stated is not None:
        return tuple(stated)
    try:
        return subsets.summary(identity.subset, cache_root).evaluate_on
    except RecipeError:
        return ()


def _count_rows(identity: Identity, cache_root: Path) -> int | None:
    try:
        return plan_estimate.count_rows(identity.subset, cache_root)
    except RecipeError:
        return None


def _count_steps(
    identity: Identity, record: RunRecord | None, rows: int | None
) -> tuple[StepCounts, ...]:
    """Steps of a training, stage by stage, by its settings and rows: those that it loaded, else
    those expected; empty: no training, or rows are not known.
    """
    params = identity.params
    if identity.task != "train" or "batch" not in params:
        return ()
    if record is not None and record.samples:  # what it holds out was taken out of these
        whole = {**params, "folds": 0, "validation_share": 0.0, "sample": 0}
        return _count_stage_steps(whole, record.samples)
    return _count_stage_steps(params, rows) if rows else ()


def _count_stage_steps(params: Mapping[str, Any], rows: int) -> tuple[StepCounts, ...]:
    stages = plan_estimate.count_stage_steps(params, rows)
    return tuple(stages.values()) or (plan_estimate.count_steps(params, rows),)


def _measure_data(identity: Identity, cache_root: Path) -> SubsetFacts | None:
    try:
        folder = subsets.summary(identity.subset, cache_root).folder
    except RecipeError:
        return None
    if folder is None:
        return None
    params = identity.params
    language_model = str(params.get("llm") or "") or _part_name(identity)
    tokenizers = [_find_tokenizer(name) for name in (language_model, params.get("siglip"))]
    return data_facts.measure_subset(folder, cache_root, *tokenizers)


def _part_name(identity: Identity) -> str:
    """The language model of a cataloged captioner as `path:` or `hub:`; empty: it has none."""
    try:
        part = model_catalog.load(identity.base_model or identity.model).llm
    except (LookupError, ValueError):
        return ""
    folder = model_catalog.weights_folder(part) if part else None
    return f"{PATH_PREFIX}{folder}" if folder else ""


def _find_folder(name: str) -> Path | None:
    """The folder of a `path:` or `hub:` name, or of a plain path; None: it is not here."""
    kind, _, rest = name.partition(":")
    if kind == "hub":
        repository, _, revision = rest.partition("@")
        part = model_catalog.ModelPart(hub=repository, revision=revision or "main")
        return model_catalog.weights_folder(part)
    return Path(rest if kind == "path" else name).expanduser() if name else None


def _find_tokenizer(name: object) -> Path | None:
    folder = _find_folder(str(name or ""))
    return folder if folder is not None and (folder / "tokenizer.json").is_file() else None


def read_context(judge: str) -> int | None:
    """Tokens that a judge reads, by its configuration or its name; None: neither says."""
    folder = _find_folder(judge)
    try:
        text = json.loads(((folder or Path()) / "config.json").read_text("utf-8"))["text_config"]
        return int(text.get("max_position_embeddings") or CONTEXTS["siglip"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return next((tokens for kind, tokens in CONTEXTS.items() if kind in judge.lower()), None)


def _list_validations(
    log_root: Path, record: RunRecord | None
) -> tuple[tuple[str, Mapping[str, float]], ...]:
    """Epoch and metrics of the validations between epochs."""
    if record is None:
        return ()
    if record.training_epochs:
        return tuple(
            (f"{e.epoch} (stage {e.stage})" if e.stage else str(e.epoch), e.validation)
            for e in record.training_epochs
            if e.validation
        )
    return tuple((f"{row['epoch']:g}", row) for row in _read_history(log_root, record))


def _read_history(log_root: Path, record: RunRecord) -> list[dict[str, float]]:
    """Validations as the engine keeps them beside its checkpoints, for records from before."""
    try:
        path = log_root / record.folder / "checkpoints" / "epochs.json"
        history = json.loads(path.read_text("utf-8"))
        return [row for row in history if isinstance(row, dict) and "epoch" in row]
    except (OSError, ValueError, TypeError):
        return []


def _read_saved_parameters(log_root: Path, record: RunRecord | None) -> dict[str, int] | None:
    """Tensors of a run's trained model and their sizes, from the header of its file."""
    if record is None or not record.folder:
        return None
    path = log_root / record.folder / "checkpoints" / "last" / "model.safetensors"
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= MAX_HEADER else {}
        return dict(_count_tensors(header))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _count_tensors(header: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for side in tensor["shape"]:
                size *= int(side)
            yield name, size
