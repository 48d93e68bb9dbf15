"""Training identity: digests of the data, settings, model and code of a checkpoint.

A run is resumed only where these are unchanged, since files, mounts and versions may change between
stop and resume.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from engines import model_catalog, param_sections
from engines.emitter import EngineError
from results.text.renamed_words import rename_keys

SOURCES: Final = Path(__file__).resolve().parents[2]
"""The engines' folder."""


BATCH: Final = ("batch", "gradient_accumulation_steps")
"""As `effective_batch`: an attempt after an OOM has others."""
NEUTRAL: Final = frozenset(
    name
    for section in (
        param_sections.Data, param_sections.Runtime, param_sections.Distributed,
        param_sections.Checkpoints,
    )
    for name in section.model_fields
) | frozenset(
    (
        *BATCH,
        "paraphrases",  # a file, whose content is part of the data
        "grad_cache_chunk", "vision_batch", "gradient_checkpointing", "feature_cache",
        "cuda_graphs",
        "deterministic", "evaluate_on", "evaluate_modalities", "eval_batch_size", "evaluate_train",
        "evaluate_limit", "pseudo_recall", "search", "search_depth",
        "search_precision", "search_probes", "corpus_memory_gib", "max_new_tokens",
        "repetition_penalty", "merge_lora", "scorers", "bert_score", "bert_score_layer",
        "siglip", "infer_on", "sample_submission", "submission_file",
        "tta_scales",
        "tta_options", "blank", "written", "ensemble",
    )
)  # fmt: skip
"""Settings that change no step: folders, speed and memory, evaluation. All others, also new ones,
are part of the identity."""

DIGEST_NAMES: Final = {"max_grad_norm": "clip_norm"}
"""Names in the digest of settings, where those of the first checkpoints differ from today's."""

NAMED: Final = 3
"""This many changed settings are named in an error."""

WHOLE_BYTES: Final = 1 << 20
BLOCKS: Final = 64
BLOCK_BYTES: Final = 4096
"""Of a larger file this many blocks are read, evenly spread: fine-tuning changes all."""


@dataclass(frozen=True)
class TrainingIdentity:
    """Digests; two trainings with equal ones see the same samples at the same steps."""

    data: str
    """Of the built subset, and of which records and media of it are used."""
    samples: int
    settings: str
    """Of what decides on samples, rates and gradients."""
    code: str
    """Of the engines' source files."""
    model: str = ""
    """`model_digest` of what training starts from; empty in the first checkpoints that had one."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """The settings themselves, to say which one has changed; empty in the same checkpoints."""

    @classmethod
    def of_run(
        cls, params: Any, seed: int, effective_batch: int | list[int], data: str, samples: int,
        model: str = "",
    ) -> Self:  # fmt: skip
        """The identity of a run with these settings over `samples` samples of `data`.

        `effective_batch`: with stages, that of each. Without the precision: `auto` may be another
        one on the machine where a run is resumed.
        """
        names = (*param_sections.Optimization.model_fields, "epochs", "max_steps")
        chosen = {DIGEST_NAMES.get(name, name): getattr(params, name) for name in names}
        chosen |= {"seed": seed, "effective_batch": effective_batch}
        settings = params.model_dump(mode="json", exclude=set(NEUTRAL))
        for stage in settings.get("stages") or ():
            for name in BATCH:
                stage.pop(name)
        if settings.get("stages"):
            chosen["stages"] = settings["stages"]
        training = {**settings, "seed": seed, "effective_batch": effective_batch}
        settings_digest = digest(json.dumps(chosen, sort_keys=True))
        return cls(data, samples, settings_digest, source_digest(), model, training)

    def check(self, saved: Mapping[str, Any], folder: Path) -> str:
        """A harmless change since the checkpoint, in one sentence; empty: none.

        Raises:
            EngineError: the checkpoint was trained on other data or with other settings.
        """
        if not saved:
            return "the checkpoint does not say which data it was trained on (version 0.1)"
        remedy = "or start a new suite"
        if saved.get("data") != self.data:
            raise EngineError(
                f"{folder}: the data have changed since this checkpoint: {saved.get('samples')} "
                f"samples with fingerprint {str(saved.get('data'))[:12]} then, {self.samples} with "
                f"{self.data[:12]} now; restore them, {remedy}"
            )
        if saved.get("model") and self.model and saved["model"] != self.model:
            raise EngineError(
                f"{folder}: weights, sizes or tokenizer of the model that this training started "
                f"from have changed since this checkpoint; restore them, {remedy}"
            )
        if changed := self._changed(saved.get("training") or {}):
            raise EngineError(
                f"{folder}: settings of the training have changed since this checkpoint: "
                f"{changed}; set them back in spec.json, {remedy}"
            )
        if saved.get("settings") != self.settings:
            raise EngineError(
                f"{folder}: settings of the training have changed since this checkpoint; "
                f"set them back in spec.json, {remedy}"
            )
        if saved.get("code") != self.code:
            return "the workbench's code has changed since the checkpoint"
        return ""

    def _changed(self, saved: Mapping[str, Any]) -> str:
        """The settings that differ, as `lr 0.001 then, 0.0001 now`; one that either lacks does not.

        A setting that is younger than the checkpoint had its default's effect, or none.
        """
        saved = rename_keys(saved)
        changes = [
            f"{name} {json.dumps(saved[name])} then, {json.dumps(value)} now"
            for name, value in self.training.items()
            if name in saved and saved[name] != value
        ]
        more = [f"and {len(changes) - NAMED} more"] if len(changes) > NAMED else []
        return "; ".join([*changes[:NAMED], *more])

    def as_state(self) -> dict[str, Any]:
        """The fields as they are stored in a checkpoint."""
        return asdict(self)


def model_digest(
    entry: model_catalog.ModelEntry, params: Any, trained: Mapping[str, Any] | None = None
) -> str:
    """Digest of the model that a training starts from: sizes, tokenizer and weights.

    Checkpoints hold what was trained; frozen weights are read from the same files again, whose
    folder does not matter. `trained`: the state of another run's checkpoint.
    """
    hasher = hashlib.sha256()
    for part in (entry, entry.vision, entry.llm, *_named_parts(params)):
        if part is not None:
            chosen = part.model_dump(mode="json", include={"family", "hub", "architecture"})
            hasher.update(json.dumps(chosen, sort_keys=True).encode())
            folder = model_catalog.weights_folder(part)
            for path in _files(folder) if folder is not None else ():
                hasher.update(path.name.encode() + b"\0" + content_digest(path))
    if trained is not None:
        hasher.update(json.dumps(trained.get("files"), sort_keys=True).encode())
    return hasher.hexdigest()


def _named_parts(params: Any) -> Iterator[model_catalog.ModelPart]:
    for name in ("vision", "llm"):
        part = model_catalog.parse_part(str(getattr(params, name, "")))
        if part is not None:
            yield part


def _files(folder: Path) -> list[Path]:
    """Files of a model's folder, by name; none where it is gone, which is said elsewhere."""
    try:
        return sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".")
    except OSError:
        return []


def content_digest(path: Path) -> bytes:
    """Digest of a file: of a large one by its size and `BLOCKS` blocks.

    Hashing 15 GB takes longer than a short run. It distinguishes models and trainings, and is
    no protection against tampering.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        if size <= WHOLE_BYTES:
            return hashlib.sha256(file.read()).digest()
        hasher = hashlib.sha256(str(size).encode())
        for number in range(BLOCKS):
            file.seek((size - BLOCK_BYTES) * number // (BLOCKS - 1))
            hasher.update(file.read(BLOCK_BYTES))
        return hasher.digest()


def fingerprint_samples(fingerprint: str, parts: Sequence[npt.NDArray[Any] | str]) -> str:
    """Digest of a subset's fingerprint and of the arrays or texts that name what is used of it."""
    hasher = hashlib.sha256(fingerprint.encode())
    for part in parts:
        hasher.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data)
        hasher.update(b"\0")
    return hasher.hexdigest()


def digest(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def source_digest() -> str:
    """SHA-256 over the engines' source files."""
    hasher = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        hasher.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()
