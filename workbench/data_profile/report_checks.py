"""Full checks and comparisons of subsets, as optional parts of a report.

Profiles are cached by content, so that a second report scans nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.records.schema import Identity
from results.records.suite_view import DataComparison, DataSection, SubsetCheck
from results.text.sanitize import clean_line
from workbench.data_profile import profile_process
from workbench.data_profile.sections import build_sections

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile


@dataclass
class ReadProfiles:
    """Profiles that a report has read, each once: every one is a process of its own."""

    profiles: dict[str, Profile] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Subsets that could not be scanned."""
    has_scanned: bool = False
    """Whether a subset was scanned, and so built if it was not."""


def check_subsets(
    runs: Sequence[Identity],
    on_message: Callable[[str], None],
    read: ReadProfiles,
    *,
    cached: bool = False,
) -> tuple[SubsetCheck, ...]:
    """Every subset of the runs, checked in full; `on_message` gets a sentence before each scan.

    `cached`: nothing is scanned, and subsets that were not described before are left out.

    Raises:
        ProfileError: one cannot be scanned.
    """
    from datasets_mm.profile import check

    results = []
    for name in dict.fromkeys(run.subset for run in runs):
        if not cached:
            on_message(f"{name}: full check …")
            read.has_scanned = True
        try:
            profile = read.profiles.get(name) or profile_subset(name, runs, cached=cached)
        except profile_process.ProfileError:
            if cached:
                continue
            raise
        problems = tuple(problem.sentence() for problem in check.find_problems(profile))
        sentence = check.missing_sentence(profile)
        results.append(SubsetCheck(subset=name, sentence=sentence, problems=problems))
    return tuple(results)


def find_originals(runs: Sequence[Identity]) -> list[tuple[str, str]]:
    """(original, subset) of the subsets of the runs that were selected from another one.

    Parts of a split have no original that they could be compared with.
    """
    from datasets_mm import catalog

    subset_names = set(catalog.names())
    pairs = []
    for name in dict.fromkeys(run.subset for run in runs):
        recipe = catalog.load(name) if name in subset_names else None
        original = (recipe.derive or recipe.drawn_from) if recipe else ""
        if recipe and original and not any(step.do == "split" for step in recipe.steps):
            pairs.append((original, name))
    return pairs


def compare_originals(
    runs: Sequence[Identity], on_message: Callable[[str], None], read: ReadProfiles
) -> tuple[DataComparison, ...]:
    """Each selected subset beside its original; `problem` says why two are not compared.

    Profiles that are there are used; subsets whose data are here are scanned, one whose original
    is not here is not.
    """
    comparisons = []
    for first, second in find_originals(runs):
        missing = next(
            (name for name in (first, second) if not _has_profile(name, runs, on_message, read)), ""
        )
        if not missing:
            pair = read.profiles[first], read.profiles[second]
            comparisons.append(compare_profiles(*pair))
            continue
        problem = f"{missing} cannot be read here, `workbench data describe {missing}` says why"
        comparisons.append(DataComparison(first=first, second=second, problem=problem))
    return tuple(comparisons)


def _has_profile(
    name: str, runs: Sequence[Identity], on_message: Callable[[str], None], read: ReadProfiles
) -> bool:
    """Whether the subset was described before, or is scanned now; `on_message` gets why not."""
    if name in read.profiles or name in read.lost:
        return name in read.profiles
    with contextlib.suppress(profile_process.ProfileError):
        read.profiles[name] = profile_subset(name, runs, cached=True)
        return True
    on_message(f"{name}: scanned for the comparison with its original …")
    read.has_scanned = True
    try:
        read.profiles[name] = profile_subset(name, runs)
    except profile_process.ProfileError as error:
        on_message(clean_line(str(error)))
        read.lost.add(name)
    return name in read.profiles


def compare_subsets(first: str, second: str, runs: Sequence[Identity]) -> DataComparison:
    """Two subsets side by side, scanned in full.

    Raises:
        ProfileError: one cannot be scanned.
    """
    pair = [profile_subset(name, runs) for name in (first, second)]
    return compare_profiles(*pair)


def compare_profiles(first: Profile, second: Profile) -> DataComparison:
    """Two profiles as a report shows them."""
    shown = tuple(
        DataSection(
            title=section.title,
            rows=tuple(
                (row.label, row.figures[0].text, row.figures[1].text, row.difference)
                for row in section.rows
            ),
            remark=section.remark,
        )
        for section in build_sections([first, second])
    )
    return DataComparison(
        first=first.name,
        second=second.name,
        records=(first.records, second.records),
        sections=shown,
    )


def profile_subset(name: str, runs: Sequence[Identity], *, cached: bool = False) -> Profile:
    """Full profile of a subset, with the data root of a run that used it, else of any run.

    Raises:
        ProfileError: it cannot be scanned, or with `cached` was not described before.
    """
    subset_runs = [run for run in runs if run.subset == name] or list(runs)
    params: dict[str, Any] = subset_runs[0].params if subset_runs else {}
    root, images = params.get("data_root"), params.get("image_root")
    request = profile_process.ProfileRequest(
        name, data_root=Path(root) if root else None, image_root=str(images or ""), cached=cached
    )
    return profile_process.make_profile(request, lambda done, total, unit: None)  # noqa: ARG005
