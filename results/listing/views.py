"""Views of lists of runs (filter, columns, order, metric, grouping), and the saved ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from results.atomic_files import atomic_path

GROUPS: Final = ("", "suite", "label", "subset", "model")
"""What runs are grouped by; empty: not at all."""


@dataclass(frozen=True, slots=True)
class ResultView:
    """How the runs are shown."""

    filter: str = ""
    columns: tuple[str, ...] = ()
    """Keys of the chosen columns; empty: the default ones."""
    sort: str = ""
    """Key of the column that the runs are sorted by; empty: newest first."""
    descending: bool = True
    metric: str = ""
    """`name@split` of the score; empty: the headline of each run."""
    group: str = ""

    def as_table(self) -> dict[str, Any]:
        """Its fields that differ from the default, for JSON."""
        default = asdict(ResultView())
        return {key: value for key, value in asdict(self).items() if value != default[key]}

    def turn_group(self) -> ResultView:
        """Grouped by the next thing."""
        return replace(self, group=GROUPS[(GROUPS.index(self.group) + 1) % len(GROUPS)])


def parse_view(table: Any) -> ResultView:
    """The view of a stored table; fields that it lacks or that are no view's keep their default."""
    view = ResultView()
    if not isinstance(table, dict):
        return view
    kinds = {"filter": str, "sort": str, "descending": bool, "metric": str}
    stored: dict[str, Any] = {
        k: v for k, v in table.items() if k in kinds and isinstance(v, kinds[k])
    }
    columns = table.get("columns")
    if isinstance(columns, list | tuple) and all(isinstance(c, str) for c in columns):
        stored["columns"] = tuple(columns)
    if table.get("group") in GROUPS:
        stored["group"] = table["group"]
    return replace(view, **stored)


def read_views(path: Path) -> dict[str, ResultView]:
    """The saved views by name; none if there is no such file.

    Raises:
        ValueError: the file is damaged; a sentence.
        OSError: it cannot be read.
    """
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); mend or remove it") from None
    if not isinstance(table, dict):
        raise ValueError(f"{path} is damaged (no table); mend or remove it")
    return {name: parse_view(stored) for name, stored in table.items()}


def write_views(path: Path, views: Mapping[str, ResultView]) -> None:
    """Replace the file of saved views.

    Raises:
        OSError: it cannot be written.
    """
    table = {name: view.as_table() for name, view in views.items()}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
