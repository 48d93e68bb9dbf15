"""Location of a recipe's data: the layout that is present, its files, its image folder.

Runs before anything heavy is loaded, so that a wrong folder, an incomplete download or a missing
shard is reported before a run starts, with what was searched for and what is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from datasets_mm.media_paths import find_on_disk, printable_name
from datasets_mm.media_types import POINTER
from datasets_mm.recipes.recipe import Recipe, Source
from datasets_mm.sources import binary_formats, hub_cache
from datasets_mm.sources.file_patterns import PatternMatch, match_pattern
from datasets_mm.sources.fingerprint import SourceError, missing_packages

SHARD: Final = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$", re.IGNORECASE)
PARQUET: Final = b"PAR1"
SHOWN: Final = 8
"""Names of a folder's content that an error lists."""


@dataclass(frozen=True)
class Location:
    """Files of one layout. `root` None: the data come from packages."""

    source: Source
    root: Path | None = None
    records: tuple[Path, ...] = ()
    passages: tuple[Path, ...] = ()
    images: Path | None = None
    submission: Path | None = None
    """The sample submission, where the source names one and it is there."""
    commit: str = ""
    """Of the hub's repository, where the files come from its cache."""
    notices: tuple[str, ...] = ()
    """Notices about broken links and unreadable folders."""

    def name(self, path: Path) -> str:
        """Name of a file in reports: under the root, equal on every machine."""
        return printable_name(path.relative_to(self.root).as_posix() if self.root else path.name)


def locate(recipe: Recipe, data_root: Path | None, image_root: str = "") -> Location:
    """The first layout of a recipe with a source that is there.

    `image_root`: folder of the pictures, or `oven=/a,evqa=/b,/others`; empty: the recipe's own.

    Raises:
        SourceError: nothing usable is there; what was looked for, what is there, what to do.
    """
    roots = read_image_roots(image_root)
    first = recipe.sources[0]
    if missing := missing_packages(first):
        raise SourceError(
            f"{', '.join(missing)} not installed; run: pip install 'workbench-mm[demo]'"
        )
    if not first.uri:
        return Location(first)
    passed_over: list[str] = []
    for source, root, commit in _candidates(recipe.sources, data_root):
        records = _first_match(source.uri, root)
        if records.files:
            location = Location(source, root, records.files, commit=commit)
            return _add_passages_and_images(
                replace(location, notices=tuple(records.notices)), roots
            )
        passed_over += records.notices
    raise SourceError(
        "; ".join([_not_found_message(recipe, data_root), *dict.fromkeys(passed_over[:SHOWN])])
    )


def read_image_roots(text: str) -> dict[str, Path]:
    """Data set -> folder; the folder under "" is for all others.

    Raises:
        SourceError: a part has no folder, or one data set has two.
    """
    roots: dict[str, Path] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, folder = part.partition("=")
        key, path = (name.strip(), folder.strip()) if equals and "/" not in name else ("", part)
        if not path or key in roots:
            raise SourceError(
                f"image_root = {text!r} is wrong at {part!r}; "
                "write /folder, or oven=/folder,evqa=/other"
            )
        roots[key] = Path(path).expanduser()
    return roots


def _candidates(
    sources: Sequence[Source], data_root: Path | None
) -> Iterable[tuple[Source, Path, str]]:
    """(layout, folder to look in, commit): the given folder, else snapshots of the hub's cache."""
    for source in sources:
        if data_root is not None:
            yield source, data_root, ""
        elif source.hub and (
            snapshot := hub_cache.find_snapshot(source.hub, source.revision or "main")
        ):
            yield source, snapshot, snapshot.name


def _first_match(patterns: Sequence[str], root: Path) -> PatternMatch:
    """Files of the first pattern that has any, in the order of their names."""
    matches = [PatternMatch()]
    for pattern in patterns:
        matches.append(match_pattern(pattern, root))
        if matches[-1].files:
            break
    return matches[-1]


def _add_passages_and_images(location: Location, roots: dict[str, Path]) -> Location:
    """Add passages and image folder to the records' location; incomplete files raise."""
    source, root = location.source, location.root
    assert root is not None  # noqa: S101 - _candidates gives every layout its folder
    passage_match = _first_match(source.passages, root)
    passages = passage_match.files
    if source.passages and not passages and not source.passages_optional:
        raise SourceError(
            f"{location.name(location.records[0])} is there, but its passages are not: "
            f"{_join_alternatives(source.passages)} is not in the data folder {root}; copy it "
            "there: a corpus of positives alone would make every recall too high"
        )
    for path in (*location.records, *passages):
        reject_incomplete(path, location.name(path), source.adapter)
    for paths in (location.records, passages):
        _require_all_shards(paths)
    default_images = root / find_on_disk(root, source.images)
    images = roots.get(source.dataset) or roots.get("") or default_images
    if not _is_folder(images):
        raise SourceError(
            f"the picture folder {images} is not there; unpack the pictures, and name their "
            f"folder with --set image_root=/folder"
            + (f" (or image_root={source.dataset}=/folder)" if source.dataset else "")
        )
    samples = _first_match((source.submission,) if source.submission else (), root).files
    return replace(
        location,
        passages=passages,
        notices=(*location.notices, *passage_match.notices),
        images=images.resolve(),
        submission=samples[0] if samples else None,
    )


def _is_folder(path: Path) -> bool:
    """Whether the path is a folder that this user can read.

    Raises:
        SourceError: it is there, and may not be read.
    """
    try:
        if path.is_dir():
            next(path.iterdir(), None)
            return True
    except OSError as error:
        raise SourceError(
            f"the picture folder {path} cannot be read ({error.strerror}); "
            f"give this user the right to (chmod u+rx, or ask its owner)"
        ) from None
    return False


def reject_incomplete(path: Path, name: str, adapter: str) -> None:
    """Refuse a file that cannot be right for an adapter.

    Raises:
        SourceError: it is a Git LFS pointer, a truncated Parquet file, binary where text belongs,
            or cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(binary_formats.HEAD)
            file.seek(max(0, size - len(PARQUET)))
            tail = file.read()
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror}); check it") from None
    if head.startswith(POINTER):
        raise SourceError(f"{name} is a Git LFS pointer, not the data; run: git lfs pull")
    if adapter != "m2kr_parquet" and (kind := binary_formats.describe_format(head)):
        raise SourceError(f"{name} {kind}")
    if path.suffix.lower() == ".parquet" and (not head.startswith(PARQUET) or tail != PARQUET):
        raise SourceError(
            f"{name} is no whole Parquet file ({size:,} bytes, "
            f"{'no end mark' if head.startswith(PARQUET) else 'no start mark'}): "
            "its download was cut short; download it again"
        )


def _require_all_shards(paths: Sequence[Path]) -> None:
    """`…-00000-of-00004.parquet`: all four must be there, or the rows would silently be fewer."""
    numbers: dict[tuple[Path, str], set[int]] = {}
    for path in paths:
        if shard := SHARD.search(path.name):
            key = (path.with_name(path.name[: shard.start()]), shard.group(2))
            numbers.setdefault(key, set()).add(int(shard.group(1)))
    for (stem, total), present in numbers.items():
        if missing := [number for number in range(int(total)) if number not in present]:
            raise SourceError(
                f"{stem.name}-{missing[0]:05}-of-{total}.parquet is not in {stem.parent} "
                f"({len(missing)} of {int(total)} parts are missing); download what is missing"
            )


def _not_found_message(recipe: Recipe, data_root: Path | None) -> str:
    sources = recipe.sources
    if data_root is None:
        patterns = _join_alternatives([source.uri[0] for source in sources])
        hubs = [source.hub for source in sources if source.hub]
        cached = (
            f"; {_join_alternatives(hubs)} is not in the hub cache {hub_cache.cache_folder()}"
            if hubs
            else ""
        )
        command = f"workbench data build {recipe.name} --download"
        remedy = f", or download it: {command}" if hubs else ""
        return f"{patterns} needs a data folder{cached}; give --set data_root=/folder{remedy}"
    patterns = _join_alternatives([pattern for source in sources for pattern in source.uri])
    if not data_root.is_dir():
        return f"the data folder {data_root} is not there; give another --set data_root=…"
    nearby = _find_nearby_folder(sources, data_root)
    remedy = (
        f"did you mean --set data_root={nearby}?" if nearby else "give another --set data_root=…"
    )
    content = _describe_folder(data_root)
    return f"{patterns} is not in the data folder {data_root}, which holds {content}; {remedy}"


def _find_nearby_folder(sources: Sequence[Source], data_root: Path) -> Path | None:
    """A folder a level or two above or one below that has the files."""
    folders = [data_root.parent, data_root.parent.parent]
    try:
        folders += [path for path in sorted(data_root.iterdir())[:50] if path.is_dir()]
    except OSError:
        return None
    patterns = [pattern for source in sources for pattern in source.uri if "/" in pattern]
    return next((folder for folder in folders if _first_match(patterns, folder).files), None)


def _describe_folder(folder: Path) -> str:
    try:
        names = sorted(printable_name(path.name) + "/" * path.is_dir() for path in folder.iterdir())
    except OSError as error:
        return f"something unreadable ({error.strerror})"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) + more) if names else "nothing"


def _join_alternatives(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return " or ".join([", ".join(unique[:-1]), unique[-1]] if len(unique) > 1 else unique)
