"""Profile of a subset or a file: `python -m datasets_mm.profile.describe TARGET`.

Prints JSON lines on stdout: progress, then one `done` with the profile or one `failed`. A target is
a subset by name, a file of JSON lines, or a Parquet file in M2KR's layout. All are read from the
Arrow table that a build has written; profiles are cached by the content's fingerprint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets_mm.atomic_files import write_atomic
from datasets_mm.child_messages import Progress, emit_message, percent_progress
from datasets_mm.profile import token_lengths
from datasets_mm.profile.image_checks import MAX_OPENED, PictureCount
from datasets_mm.profile.profile import Profile
from datasets_mm.profile.record_texts import RowSample, picture_paths
from datasets_mm.profile.table_counts import TEXTS_OF, TableCounts, read_batches
from datasets_mm.profile.target import Target, TargetError, resolve_target
from datasets_mm.recipes.recipe import RecipeError
from datasets_mm.sources.fingerprint import SourceError
from datasets_mm.storage.corpus import map_table

REVISION = 5
"""Raised when an equal file gives another profile: older cached ones are then not read."""
SMALL_ROWS: Final = 6_000
"""Up to here every text is counted in tokens, which takes some two seconds."""


@dataclass(frozen=True)
class DescribeOptions:
    """Options of `describe`."""

    target: str
    cache_root: Path
    data_root: Path | None = None
    image_root: str = ""
    tokenizer: Path | None = None
    context: int = token_lengths.CONTEXT
    exact: bool = False
    sample: int = 4_000
    seed: int = 0
    fresh: bool = False
    cached: bool = False
    """Only from the cache: scan nothing."""


def describe(options: DescribeOptions, progress: Progress) -> Profile:
    """The profile of a target, from the cache where it is present.

    Raises:
        TargetError, RecipeError, SourceError, OSError: why not, in one sentence.
    """
    target = resolve_target(
        options.target, options.cache_root, options.data_root, options.image_root, progress
    )
    path = _cache_path(options, target)
    if not options.fresh and (cached := _read_cached(path)):
        return cached
    if options.cached:
        raise TargetError(f"'{options.target}' was not described; `workbench data describe` does")
    profile = _compute_profile(options, target, progress)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, profile.model_dump_json())
    return profile


def _cache_path(options: DescribeOptions, target: Target) -> Path:
    """Path of the cached profile: by content and options."""
    tokenizer = options.tokenizer or token_lengths.load_counter().name
    key = [REVISION, target.fingerprint, str(target.images), str(tokenizer), options.context]
    key += ["exact"] if options.exact else [options.sample, options.seed]
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=12).hexdigest()
    return options.cache_root / "profiles" / f"{digest}.json"


def _read_cached(path: Path) -> Profile | None:
    try:
        return Profile.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _compute_profile(options: DescribeOptions, target: Target, progress: Progress) -> Profile:
    start = time.monotonic()
    rows = map_table(target.table).num_rows
    is_exact = options.exact or rows <= max(SMALL_ROWS, options.sample)
    sample = RowSample(rows, rows if is_exact else options.sample, options.seed)
    counter = token_lengths.load_counter(options.tokenizer)
    counts, tokens = TableCounts(target.form), token_lengths.TokenCount()
    pictures = target.images and PictureCount(
        target.images,
        options.seed,
        None if options.exact else MAX_OPENED,
        with_sizes=target.form == "choices",
    )
    for batch in read_batches(target.table):
        queries, passages = sample.texts(batch, counts.records, TEXTS_OF[target.form])
        tokens.add(counter, queries, passages)
        counts.add(batch)
        if pictures:
            pictures.check_paths(picture_paths(batch))
        progress(counts.records, rows, "rows")
    return _count_profile(counts, target).model_copy(
        update={
            "tokens": tokens.profile(counter, options.context, None if is_exact else options.seed),
            "pictures": pictures.profile(progress) if pictures else None,
            "seconds": time.monotonic() - start,
            "rss_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        }
    )


def _count_profile(counts: TableCounts, target: Target) -> Profile:
    """The counts of the table; those that the build has counted are in the target already."""
    base = target.profile()
    update: dict[str, Any] = {
        "candidates": dict(sorted(counts.candidates.items())),
        "questions": dict(counts.questions.most_common()),
        "repeated_data_ids": counts.repeated_data_ids(),
        "choices": counts.choices(),
        "passages": counts.passage_profile(),
    }
    if not base.fields:
        examples = {
            problem: tuple(f"row {row}" for row in rows)
            for problem, rows in sorted(counts.positions.items())
        }
        update |= {"lines": counts.records, "records": counts.records, "examples": examples}
        update |= {"fields": counts.field_profiles()}
    return base.model_copy(update=update)


def main(arguments: Sequence[str] | None = None) -> int:
    """Describe one target and print JSON lines on stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets_mm.profile.describe", description=__doc__
    )
    parser.add_argument("target")
    parser.add_argument("--cache-root", type=Path, required=True)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--image-root", default="")
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer.json")
    parser.add_argument("--context", type=int, default=token_lengths.CONTEXT)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--sample", type=int, default=DescribeOptions.sample)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="count even what is known")
    parser.add_argument("--cached", action="store_true", help="scan nothing")
    options = parser.parse_args(arguments)
    try:
        profile = describe(DescribeOptions(**vars(options)), percent_progress())
    except KeyboardInterrupt:
        return 130
    except (TargetError, RecipeError, SourceError) as error:
        emit_message(kind="failed", error=str(error))
        return 1
    except OSError as error:
        emit_message(
            kind="failed", error=f"{error.filename or options.target}: {error.strerror or error}"
        )
        return 1
    emit_message(kind="done", profile=profile.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
