"""Full checks and comparisons of subsets, as optional parts of a report.

Profiles are cached by content, so that a second report scans nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.records.schema import Identity
from results.records.suite_view import DataComparison, DataSection, SubsetCheck
from workbench.subsets import profile_process
from workbench.subsets.sections import build_sections

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile


def check_subsets(
    runs: Sequence[Identity], on_message: Callable[[str], None], *, cached: bool = False
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
        try:
            profile = profile_subset(name, runs, cached=cached)
        except profile_process.ProfileError:
            if cached:
                continue
            raise
        problems = tuple(problem.sentence() for problem in check.find_problems(profile))
        sentence = check.missing_sentence(profile)
        results.append(SubsetCheck(subset=name, sentence=sentence, problems=problems))
    return tuple(results)


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
