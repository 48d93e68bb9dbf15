"""Whole runs of `workbench run` over a small subset of drawings: no network, no download."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.engines.tiny_retrieval import write_tiny_subset

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 90.0


class TinyRuns:
    """A folder with the data, the recipes and the model `pico`, and log roots for its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        if not (folder / "data").is_dir():
            folder.mkdir(parents=True)
            write_tiny_subset(folder)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "WORKBENCH_CONFIG": str(folder / "config"),
            "WORKBENCH_CACHE": str(folder / "cache"),
            "WORKBENCH_LOG_ROOT": str(self.logs),
            "XDG_RUNTIME_DIR": str(folder),
            "TERM": "dumb",
        }

    def command(self, *words: str, **settings: Any) -> list[str]:
        """Arguments of a headless run with these settings."""
        command = [sys.executable, "-m", "workbench", "run", "-e", "retrieval", "-d", "tiny_train",
                   "-m", "pico", "--headless", *words]  # fmt: skip
        defaults = {"data_root": str(self.folder / "data"), "evaluate_on": "[]", "threads": 1}
        for name, value in (defaults | settings).items():
            command += ["--set", f"{name}={value}"]
        return command

    def run(self, *words: str, **settings: Any) -> dict[str, Any]:
        """Run to the end; the last record.

        Raises:
            RuntimeError: there is none.
        """
        done = subprocess.run(
            self.command(*words, **settings), env=self.environment, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        print(done.stdout, done.stderr, flush=True)  # to log.txt
        records = self.records()
        if not records:
            raise RuntimeError(f"no record; exit code {done.returncode}: {done.stderr[-300:]}")
        return records[-1]

    def records(self) -> list[dict[str, Any]]:
        """All records so far."""
        path = self.logs / "results.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
