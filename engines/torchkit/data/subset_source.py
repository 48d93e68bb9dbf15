"""Subsets of a run: building or opening them, and notices of everything that was skipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets_mm import catalog
from datasets_mm.building import build
from datasets_mm.recipes.recipe import RecipeError
from datasets_mm.sources.fingerprint import SourceError
from engines.emitter import Emitter, EngineError

NAMED_SKIPS: Final = 5
"""Unusable media named for each reason; the others are only counted."""


@contextmanager
def source_errors_as_engine_errors() -> Iterator[None]:
    """Context that raises a SourceError as EngineError."""
    try:
        yield
    except SourceError as error:
        raise EngineError(str(error)) from None


@dataclass(frozen=True)
class SubsetSource:
    """Folders from which subsets are built."""

    cache_root: Path
    data_root: str | None
    image_root: str = ""

    def find_problem(self, name: str) -> str | None:
        """Why a subset cannot be built here, in one sentence; None: it can."""
        return catalog.find_problem(name, self._data, self.image_root)

    def build(self, name: str, emit: Emitter) -> build.Subset:
        """The subset, built if it is not in the cache; sends notices of its build.

        Raises:
            EngineError: it cannot be built.
        """

        def report_progress(done: int, total: int, unit: str) -> None:
            emit.check_stop()
            emit.progress(done, total, unit)

        try:
            catalog.load(name)
            subset = build.build(
                name, self.cache_root, self._data, report_progress, self.image_root
            )
        except (RecipeError, build.BuildError) as error:
            raise EngineError(str(error).splitlines()[0]) from None
        report_built(emit, name, subset.manifest)
        return subset

    @property
    def _data(self) -> Path | None:
        return Path(self.data_root) if self.data_root else None


def report_built(emit: Emitter, name: str, manifest: Mapping[str, Any]) -> None:
    """Send notices of what the build of a subset skipped, and its own notices."""
    for reason, count in manifest.get("skipped", {}).items():
        if not reason.startswith("step "):  # a recipe's steps choose, they do not skip
            emit.notice("records-skipped", f"{name}: {count} records: {reason}", int(count))
    examples = manifest.get("source_examples", {})
    for reason, count in manifest.get("source_skipped", {}).items():
        first = f" (first: {examples[reason][0]})" if examples.get(reason) else ""
        emit.notice("source-skipped", f"{name}: {count} lines: {reason}{first}", int(count))
    for text in manifest.get("notices", ()):
        emit.notice("subset", f"{name}: {text}")


def report_skipped_media(emit: Emitter, skipped: Mapping[str, str], media: str) -> None:
    """Send notices of unreadable media: counted by reason, the first few named."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in sorted(skipped.items()):
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        named = ", ".join(paths[:NAMED_SKIPS])
        text = f"{len(paths)} {media}: {reason} (first: {named})"
        emit.notice("images-skipped", text, len(paths))


def report_substituted_frames(emit: Emitter, substituted: Mapping[str, str]) -> None:
    """Send a notice of videos with substitute or missing frames: counted, one named."""
    if substituted:
        path, note = min(substituted.items())
        text = (
            f"{len(substituted)} videos have substitute or missing frames (first: {path}: {note})"
        )
        emit.notice("frames-substituted", text, len(substituted))


def make_ids_unique(ids: Sequence[str]) -> list[str]:
    """Ids with `#2`, `#3`, … appended to repeated ones, since score files are joined by id."""
    counts: dict[str, int] = {}
    out = []
    for name in ids:
        counts[name] = counts.get(name, 0) + 1
        out.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return out
