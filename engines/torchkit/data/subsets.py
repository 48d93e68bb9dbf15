"""Opening subsets for an engine, with everything that a build left out told to the journal.

Apart from any engine: all of them ask for subsets by name and owe a person the same account.
"""

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
"""Unusable media that are named for each reason; the others are counted."""


@contextmanager
def explained() -> Iterator[None]:
    """What data cannot give, as the engine's own sentence."""
    try:
        yield
    except SourceError as error:
        raise EngineError(str(error)) from None


@dataclass(frozen=True)
class Source:
    """Where subsets come from."""

    cache_root: Path
    data_root: str | None
    image_root: str = ""

    def absent(self, name: str) -> str | None:
        """Why a subset's data cannot be had here; None: it can."""
        return catalog.problem(name, self._data, self.image_root)

    def built(self, name: str, emit: Emitter) -> build.Subset:
        """The subset, built where needed.

        Raises:
            EngineError: it cannot be.
        """

        def say(done: int, total: int, unit: str) -> None:
            emit.check_stop()
            emit.progress(done, total, unit)

        try:
            catalog.load(name)
            subset = build.build(name, self.cache_root, self._data, say, self.image_root)
        except (RecipeError, build.BuildError) as error:
            raise EngineError(str(error).splitlines()[0]) from None
        tell_built(emit, name, subset.manifest)
        return subset

    @property
    def _data(self) -> Path | None:
        return Path(self.data_root) if self.data_root else None


def tell_built(emit: Emitter, name: str, manifest: Mapping[str, Any]) -> None:
    """What the build left out and what it wondered about, into the journal of this run."""
    for reason, count in manifest.get("skipped", {}).items():
        if not reason.startswith("step "):  # a recipe's steps choose, they do not skip
            emit.notice("records-skipped", f"{name}: {count} records: {reason}", int(count))
    places = manifest.get("source_examples", {})
    for reason, count in manifest.get("source_skipped", {}).items():
        first = f" (first: {places[reason][0]})" if places.get(reason) else ""
        emit.notice("source-skipped", f"{name}: {count} lines: {reason}{first}", int(count))
    for text in manifest.get("notices", ()):
        emit.notice("subset", f"{name}: {text}")


def tell_skipped(emit: Emitter, skipped: Mapping[str, str], what: str) -> None:
    """Media that could not be read: counted by reason, the first few named."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in sorted(skipped.items()):
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        named = ", ".join(paths[:NAMED_SKIPS])
        text = f"{len(paths)} {what}: {reason} (first: {named})"
        emit.notice("images-skipped", text, len(paths))


def tell_substituted(emit: Emitter, substituted: Mapping[str, str]) -> None:
    """Videos in which frames stand in for others that could not be decoded: counted, one named."""
    if substituted:
        path, note = min(substituted.items())
        text = (
            f"{len(substituted)} videos have substitute or missing frames (first: {path}: {note})"
        )
        emit.notice("frames-substituted", text, len(substituted))


def unique_ids(ids: Sequence[str]) -> list[str]:
    """Ids with a number behind those that occur again: score files are joined by id."""
    seen: dict[str, int] = {}
    out = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out
