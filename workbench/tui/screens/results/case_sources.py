"""Records and passages behind the items of a list, read by a child process when they are shown."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from results.text.sanitize import clean_line
from workbench.tui.system.child_process import ChildError, read_messages
from workbench.tui.view_models.results.cases import CaseSide, CaseSource, item_id, list_passages

KEPT: Final = 200
"""Items whose sources are kept."""


class CaseSources:
    """Sources of the items of one subset; a subset that cannot be read is asked for once."""

    def __init__(self, cache_root: Path) -> None:
        self._cache_root = cache_root
        self._kept: OrderedDict[tuple[str, str], CaseSource] = OrderedDict()
        self.trouble = ""
        """Why the records cannot be read; empty: they can."""
        self._subset = ""

    def find(self, subset: str, sides: Sequence[CaseSide]) -> CaseSource | None:
        """What is known of an item; None: it was not read yet."""
        if subset == self._subset and self.trouble:
            return CaseSource()
        return self._kept.get((subset, item_id(sides[0])))

    async def read(self, subset: str, cases: Sequence[Sequence[CaseSide]]) -> None:
        """Read the sources of these items, each with its sides."""
        if subset != self._subset:
            self._subset, self.trouble = subset, ""
        missing = [sides for sides in cases if self.find(subset, sides) is None]
        if not missing:
            return
        ids = [item_id(sides[0]) for sides in missing]
        passages = dict.fromkeys(name for sides in missing for name in list_passages(sides))
        command = [
            sys.executable, "-m", "datasets_mm.profile.find_records",
            "--cache-root", str(self._cache_root),
        ]  # fmt: skip
        command += [f"--id={name}" for name in ids] + [f"--passage={name}" for name in passages]
        records, passage_of_id = {}, {}
        try:
            async for message in read_messages([*command, "--", subset]):
                if message.get("kind") == "record":
                    records[str(message["id"])] = message
                elif message.get("kind") == "passage":
                    passage_of_id[str(message["id"])] = message
        except ChildError as error:
            self.trouble = clean_line(str(error))
            return
        for sides in missing:
            passages_of_case = {
                n: passage_of_id[n] for n in list_passages(sides) if n in passage_of_id
            }
            name = item_id(sides[0])
            self._kept[subset, name] = CaseSource(records.get(name), passages_of_case)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
