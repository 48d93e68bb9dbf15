"""What an attacker writes into every field that is shown, and how to find it in a terminal's bytes.

The payload asks a terminal to fill the clipboard, change its title, answer questions, turn text
round and go back over what was printed. Between its sequences stand words, so that a test can also
tell that the text itself was shown and not just swallowed.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path

from engines import messages
from results.records import schema
from results.records.schema import Reading
from tests.workbench.tui import sample_suites
from workbench.suites import suite

EVIL = (
    "evil\x1b]52;c;Y2FuYXJ5\x07\x1b]0;owned\x07\x1b]8;;http://x\x1b\\\x1b[6n\x1b[c\x1b[5n\x1bP+q544e"
    "\x1b\\\x1b[?1049l\x9b31m\x9d0;c1\x9c\r\b\x07\x7f\u202etxet\u2066\u200f\u2028[/][bold]"
)
"""No lone surrogate: most files cannot hold one. `SURROGATE` is for those that can."""

SURROGATE = "\\ud800"

TRACES = (
    b"\x1b]52", b"\x1b]0;owned", b"\x1b]8;;http", b"\x1b[6n", b"\x1b[c", b"\x1b[5n", b"\x1bP+q",
    b"\x07", b"\xc2\x9b", b"\xc2\x9d", b"\xc2\x9c", b"\x7f", b"\x08",
    "\u202e".encode(), "\u2066".encode(), "\u200f".encode(), "\u2028".encode(),
)  # fmt: skip
"""Bytes that reach the terminal only if some text was not cleaned."""


def traces(output: bytes) -> list[bytes]:
    """Which of them are in what a program wrote; Textual's own pointer shapes (OSC 22) are not."""
    foreign = re.sub(rb"\x1b\]22;[a-z-]*\x07", b"", output)
    return [trace for trace in TRACES if trace in foreign]


def raw(output: bytes) -> set[int]:
    """Control characters in output that should have none but newlines and tabs."""
    text = output.decode("utf-8", "replace")
    codes = {ord(character) for character in text}
    return {c for c in codes if (c < 0x20 and c not in (9, 10)) or 0x7F <= c < 0xA0}


def root(log_root: Path, *, at_work: bool = True) -> Path:
    """A suite at work whose journals, logs, specs and records are hostile, and a folder's name."""
    folder = sample_suites.make_suite(
        log_root, [("one", "m"), ("two", "m"), ("three", "m")],
        state="running" if at_work else "ended", stamp="20261121-091412", detail=f"waits {EVIL}",
    )  # fmt: skip
    now = time.time()
    _respec(folder)
    first = sample_suites.begin(folder, 1, wall=now - 300)
    t = sample_suites.train(first, 40, 40)
    first.put(messages.Metric(t=t, name=f"recall {EVIL}", value=0.5, split=EVIL, n=9, method=EVIL))
    first.put(messages.End(t=t, cause="completed", exit_code=0))
    second = sample_suites.begin(folder, 2, wall=now - 200)
    t = sample_suites.train(second, 20, 40)
    second.put(messages.Failed(t=t, error=f"broken {EVIL}", hint="failed", traceback=EVIL))
    second.put(messages.End(t=t, cause="failed", exit_code=1, detail=f"why {EVIL}"))
    third = sample_suites.begin(folder, 3, wall=now - 100)
    t = sample_suites.train(third, 20, 40)
    third.put(messages.Notice(t=t, code=f"code {EVIL}", text=f"notice {EVIL}"))
    third.put(messages.Phase(t=t, name="eval", detail=f"phase {EVIL}"))
    third.put(messages.Progress(t=t, done=1, total=2, unit=f"unit {EVIL}"))
    if not at_work:
        third.put(messages.End(t=t, cause="killed", detail=EVIL))
    for number in (1, 2, 3):
        sample_suites.log(folder, number, f"log line {EVIL}\nnext\x1b[2J\n" * 30)
    sample_suites.append_record(log_root, record(folder.name))
    with (log_root / "notes.jsonl").open("a") as notes:
        finding = {"schema": 1, "kind": "finding", "suite": folder.name, "run": "x", "text": EVIL}
        notes.write(json.dumps(finding) + "\n")
    named = log_root / "20261121-091411-\x1b]0;owned\x07\x1b[6n-1a2b"
    (named / "runs").mkdir(parents=True)
    (named / "plan.toml").write_text('name = "x"\n')
    before = suite.read_creation_time(folder / "plan.toml") - 1
    os.utime(named / "plan.toml", (before, before))  # screens open the newest suite
    return folder


def record(suite_name: str) -> schema.RunRecord:
    """A record with the payload in every text."""
    built = sample_suites.record(suite_name, 2, random.Random(1), cause="failed")
    identity = built.identity.model_copy(
        update={
            "run_id": f"02-{EVIL}",
            "subset": EVIL,
            "model": EVIL,
            "label": EVIL,
            "params": {EVIL: EVIL},
        }
    )
    metric = schema.MetricRecord(name=EVIL, value=0.5, split=EVIL, n=3, method=EVIL)
    return built.model_copy(
        update={
            "identity": identity,
            "environment": built.environment.model_copy(update={"cpu": EVIL, "hostname": EVIL}),
            "exit": built.exit.model_copy(update={"detail": EVIL}),
            "timing": built.timing.model_copy(update={"step_p95": Reading(reason=EVIL)}),
            "metrics": (metric,),
            "facts": {EVIL: EVIL},
            "notices": (EVIL,),
        }
    )


def _respec(folder: Path) -> None:
    """Names that no recipe would have, as another person's results folder may hold them."""
    for run, spec in suite.read_runs(folder):
        update = {"subset": f"subset {EVIL}", "model": f"path:/m/{EVIL}", "label": EVIL}
        (run / "spec.json").write_text(spec.model_copy(update=update).model_dump_json())


def catalogs(config: Path) -> None:
    """The user's own TOML with hostile titles, and files with hostile names."""
    for kind in ("models", "recipes", "presets"):
        (config / kind).mkdir(parents=True, exist_ok=True)
    text = json.dumps(EVIL)  # a TOML basic string has the same escapes
    (config / "models" / "bad.toml").write_text(
        f'schema = 1\nname = "bad"\nfamily = "clip"\ntitle = {text}\npath = {text}\n'
    )
    (config / "recipes" / "bad.toml").write_text(
        f'schema = 1\nname = "bad"\ntitle = {text}\n[source]\nadapter = "jsonl"\n'
        f'uri = "x.jsonl"\nlicences = [{text}]\n'
    )
    (config / "presets" / "bad.toml").write_text(
        f'schema = 1\nname = "bad"\nabout = {text}\nengine = "probe"\nsubsets = ["none"]\n'
        'models = ["none"]\n'
    )
    (config / "presets" / "x\x1b]0;owned\x07\x1b[6n.toml").write_text("schema = 1\n")
