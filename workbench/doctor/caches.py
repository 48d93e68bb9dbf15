"""Image caches and built subsets, checked by a child process that loads Pillow and Arrow."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from results.text import formats
from workbench.doctor import probe_process
from workbench.doctor.finding import Finding, note, ok, problem

SECONDS: Final = 60.0
_REBUILD: Final = "delete that folder; it is built again when it is needed"


def start_check(cache_root: Path) -> subprocess.Popen[bytes]:
    """Start the child process that checks the cache."""
    return probe_process.start_child("datasets_mm.cache_health", str(cache_root))


def cache_findings(child: subprocess.Popen[bytes], seconds: float = SECONDS) -> Iterator[Finding]:
    """A finding for each image cache, each broken subset, and all subsets together."""
    rows = probe_process.read_answer(child, seconds)
    if rows is None:
        yield note("cache", f"not checked within {seconds:g} s", "is its disk slow?")
        return
    if child.returncode or not rows:
        text = f"the check of the cache ended with {child.returncode}"
        yield problem("cache", text, "run `python -m datasets_mm.cache_health` to see why")
        return
    yield from (image_cache_finding(row) for row in rows if row["kind"] == "images")
    yield from subset_findings([row for row in rows if row["kind"] == "subset"])


def image_cache_finding(row: dict[str, Any]) -> Finding:
    """The finding about one image cache; `row`: a line of `datasets_mm.cache_health`."""
    name = "image cache"
    text = f"{row['name']}: {row['rows']:,} pictures, {formats.size(row['bytes'])}"
    if row["bad"]:
        remedy = f"delete {row['folder']}; pictures are decoded again"
        return problem(name, f"{text}; {row['bad'][0]}", remedy)
    if row["torn_bytes"]:
        text += f"; {row['torn_bytes']:,} bytes of a broken end"
        return note(name, text, "nothing to do: the next run cuts them off")
    if row["lost"]:
        text += f"; {row['lost']:,} paths name rows that are not there"
        return note(name, text, "nothing to do: the next run decodes them again")
    if row.get("old"):
        remedy = f"delete {row['folder']}, unless an older version of the workbench uses it"
        return note(name, f"{text}; of an earlier version, read by nothing here", remedy)
    gone = f", {row['gone']} files are gone or have changed" if row["gone"] else ""
    checked = (
        f"{row['checked']} of them decoded again and equal" if row["checked"] else "none checked"
    )
    return ok(name, f"{text}; {checked}{gone}")


def subset_findings(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """A problem for each broken subset, then the number and size of the sound ones."""
    for row in rows:
        if row["problem"]:
            yield problem("subsets", f"{row['name']}: {row['problem']}", _REBUILD)
    whole = [row for row in rows if not row["problem"]]
    size = formats.size(sum(row["bytes"] for row in whole))
    yield ok("subsets", f"{len(whole)} built, {size}" if rows else "none is built yet")
