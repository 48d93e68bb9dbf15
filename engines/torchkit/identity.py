"""Identity of a training: the data, settings and code that a checkpoint belongs to.

Between stop and resume files may be edited, mounts may go and versions may change. A resumed run
whose steps saw two sets of data has a record that names neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from engines import settings
from engines.emitter import EngineError

SOURCES: Final = Path(__file__).resolve().parents[1]
"""The engines' folder."""


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

    @classmethod
    def of_run(cls, params: Any, seed: int, effective_batch: int, data: str, samples: int) -> Self:
        """The identity of a run with these settings over `samples` samples of `data`.

        Without the precision: `auto` may mean another one on the machine where a run goes on.
        """
        names = (*settings.Optimization.model_fields, "epochs", "max_steps")
        chosen = {name: getattr(params, name) for name in names}
        chosen |= {"seed": seed, "effective_batch": effective_batch}
        return cls(data, samples, digest(json.dumps(chosen, sort_keys=True)), source_digest())

    def check(self, saved: Mapping[str, Any], folder: Path) -> str:
        """What changed without harm since the checkpoint; empty: nothing.

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
        if saved.get("settings") != self.settings:
            raise EngineError(
                f"{folder}: settings of the training have changed since this checkpoint; "
                f"set them back in spec.json, {remedy}"
            )
        if saved.get("code") != self.code:
            return "the workbench's code has changed since the checkpoint"
        return ""

    def as_state(self) -> dict[str, Any]:
        """As it is kept in a checkpoint."""
        return asdict(self)


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
