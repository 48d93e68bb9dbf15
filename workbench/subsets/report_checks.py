"""Full checks and comparisons of subsets, for a report.

Apart from `reporting`, which needs no scan: a report has these parts where they were asked for.
Profiles are kept by content, so that a second report scans nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.records.schema import Identity
from results.records.suite_view import DataComparison, DataSection, SubsetCheck
from workbench.subsets import profile_process
from workbench.subsets.sections import sections

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile


def checks(runs: Sequence[Identity], say: Callable[[str], None]) -> tuple[SubsetCheck, ...]:
    """Every subset of the runs, checked in full; `say` hears a sentence before each scan.

    Raises:
        ProfileError: one cannot be scanned.
    """
    from datasets_mm.profile import check as judge

    found = []
    for name in dict.fromkeys(run.subset for run in runs):
        say(f"{name}: full check …")
        profile = profile_of(name, runs)
        problems = tuple(problem.sentence() for problem in judge.problems(profile))
        sentence = judge.missing_sentence(profile)
        found.append(SubsetCheck(subset=name, sentence=sentence, problems=problems))
    return tuple(found)


def comparison(first: str, second: str, runs: Sequence[Identity]) -> DataComparison:
    """Two subsets side by side, scanned in full.

    Raises:
        ProfileError: one cannot be scanned.
    """
    pair = [profile_of(name, runs) for name in (first, second)]
    return compared(*pair)


def compared(first: Profile, second: Profile) -> DataComparison:
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
        for section in sections([first, second])
    )
    return DataComparison(
        first=first.name,
        second=second.name,
        records=(first.records, second.records),
        sections=shown,
    )


def profile_of(name: str, runs: Sequence[Identity]) -> Profile:
    """A subset scanned in full, by the data root of the runs that used it, else of any run.

    Raises:
        ProfileError: it cannot be scanned.
    """
    own = [run for run in runs if run.subset == name] or list(runs)
    params: dict[str, Any] = own[0].params if own else {}
    root, images = params.get("data_root"), params.get("image_root")
    wanted = profile_process.Wanted(
        name, data_root=Path(root) if root else None, image_root=str(images or "")
    )
    return profile_process.make(wanted, lambda done, total, unit: None)  # noqa: ARG005
