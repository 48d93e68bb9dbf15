"""Schema difference of two files or subsets: fields of only one of them, and differing types."""

from __future__ import annotations

from typing import Final

from datasets_mm.profile.profile import Profile
from workbench.data_profile.section_types import (
    FigureFunction,
    ProfileFigure,
    Profiles,
    ProfileSection,
    number,
    row,
)

NO_VALUE: Final = frozenset({"null", "NaN", "empty list"})
"""Kinds of absent values, which are no types; they have their own section."""

BUILT: Final = (
    "A built subset has the fields and types of its build, whatever its files had; for those name "
    "the files."
)


def schema_section(profiles: Profiles) -> ProfileSection:
    """Section of two profiles: field counts, differing fields and types, and a sentence."""
    if len(profiles) != 2:
        return ProfileSection("schema", ())
    first, second = (_field_types(profile) for profile in profiles)
    rows = [row(profiles, "fields", lambda p: number(len(_field_types(p))))]
    rows += [
        row(profiles, name, _types_of(name))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]
    remarks = [describe_difference(profiles[0], profiles[1])]
    remarks += [BUILT] if any(p.kind == "subset" for p in profiles) else []
    return ProfileSection("schema", tuple(rows), " ".join(remarks))


def describe_difference(first: Profile, second: Profile) -> str:
    """`Schema equal: the same 9 fields (answer, …) of the same types.`, or how they differ."""
    a, b = _field_types(first), _field_types(second)
    if a.keys() == b.keys():
        fields = f"the same {len(a)} fields ({', '.join(sorted(a))})"
        odd = [name for name in a if a[name] != b[name]]
        if not odd:
            return f"Schema equal: {fields} of the same types."
        return f"Schema differs in types: {fields}, but other types of {', '.join(odd)}."
    parts = [
        f"only {profile.name} has {', '.join(more)}"
        for profile, more in ((first, sorted(a.keys() - b.keys())),
                              (second, sorted(b.keys() - a.keys())))
        if more
    ]  # fmt: skip
    return f"Schema differs: {'; '.join(parts)}."


def _field_types(profile: Profile) -> dict[str, frozenset[str]]:
    """Every field that occurs in a record -> its types."""
    counted = [field for field in profile.fields if field.no_key < profile.records]
    types = {field.name: frozenset(field.types) - NO_VALUE for field in counted}
    return types | {name: frozenset({"not counted"}) for name in profile.other_fields}


def _types_of(name: str) -> FigureFunction:
    def figure(profile: Profile) -> ProfileFigure:
        types = _field_types(profile)
        if name not in types:
            return ProfileFigure("no such field")
        return ProfileFigure(", ".join(sorted(types[name])) or "never a value")

    return figure
