"""The warden's side of a search: its searcher's process, started, watched, and ended.

Apart from the searcher, which needs Optuna; the warden must stay small. A searcher that dies is
started again, since it knows nothing that is not in the suite's files.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from engines.protocol import RunSpec
from workbench.suites import trials

RESTARTS: Final = 3
"""A searcher that dies a fourth time would die again."""

GAVE_UP: Final = 2
"""Its exit code when starting it again would not help; its summary says why."""

END_SECONDS: Final = 2.0


class Searching:
    """The searcher of one warden. `look` is to be called at every beat."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.trouble = ""
        """Why there will be no further trial; empty while there may be."""
        self.starts = 0
        self.admitted: deque[tuple[Path, RunSpec]] = deque()
        """Trials that are runs of the suite now and wait for their turn."""
        self._folder = folder
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The searcher's process, while there is one."""
        return self._process.pid if self._process else None

    @property
    def ended(self) -> bool:
        """It said that no further trial comes, or it cannot go on."""
        return self._process is None and self.starts > 0

    def look(self) -> None:
        """Start it if it does not run and is not through."""
        if self.ended:
            return
        if self._process is None:
            self._start()
            return
        code = self._process.poll()
        if code is None:
            return
        self._process = None
        if code == GAVE_UP:
            self.trouble = trials.summary(self._folder).trouble or "the searcher gave up"
        elif code != 0 and self.starts > RESTARTS:
            times = f"{self.starts} times, last with {code}"
            self.trouble = f"the searcher died {times}; its log is search/searcher.log"
        elif code != 0:
            self._start()

    def _start(self) -> None:
        self.starts += 1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(self._folder / trials.FOLDER / "searcher.log", flags, 0o600)
        command = [sys.executable, "-m", "workbench.tuning.searcher", str(self._folder)]
        try:
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self._environment, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(log)

    def admit(self, asked: Iterable[RunSpec]) -> Iterator[str]:
        """Make runs of what the searcher asked for; gives a sentence for each that is refused.

        One that is a run already is no news: a searcher that was killed may ask twice.
        """
        for spec in asked:
            try:
                if (run := trials.admit(self._folder, spec)) is not None:
                    self.admitted.append((run, spec))
            except (trials.TrialError, OSError, ValueError) as error:
                yield str(error)

    def stop(self) -> None:
        """End it; it holds nothing that is not in the suite's files."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
