"""The searcher's process as seen from the warden: start, restart, admission of trials, stop.

The searcher runs in its own process because it needs Optuna. It is restarted when it dies: all of
its state is in the suite's files.
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
"""Maximum number of restarts."""

GAVE_UP: Final = 2
"""Exit code if a restart would not help; the reason is in the summary."""

END_SECONDS: Final = 2.0


class SearcherProcess:
    """The searcher process of one warden; `poll` must be called at every beat."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.trouble = ""
        """Why there will be no further trial; empty while there may be."""
        self.starts = 0
        self.admitted: deque[tuple[Path, RunSpec]] = deque()
        """Admitted trials (run folder, spec) that wait for their turn."""
        self._folder = folder
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The searcher's process, while there is one."""
        return self._process.pid if self._process else None

    @property
    def ended(self) -> bool:
        """Whether it has sent its last trial or cannot continue."""
        return self._process is None and self.starts > 0

    def poll(self) -> None:
        """Start or restart it unless it has ended."""
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
            self.trouble = trials.read_summary(self._folder).trouble or "the searcher gave up"
        elif code != 0 and self.starts > RESTARTS:
            times = f"{self.starts} times, last with {code}"
            self.trouble = f"the searcher died {times}; its log is search/searcher.log"
        elif code != 0:
            self._start()

    def _start(self) -> None:
        self.starts += 1
        try:
            self._start_process()
        except OSError as error:
            self.trouble = f"the searcher cannot be started: {error.strerror}"

    def _start_process(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(self._folder / trials.SEARCH_FOLDER / "searcher.log", flags, 0o600)
        command = [sys.executable, "-m", "workbench.tuning.searcher", str(self._folder)]
        try:
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env=self._environment, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(log)

    def admit(self, specs: Iterable[RunSpec]) -> Iterator[str]:
        """Create runs of requested trials; yields a sentence for each refused one.

        Existing runs are ignored: a killed searcher may request a trial twice.
        """
        for spec in specs:
            try:
                if (run := trials.admit_trial(self._folder, spec)) is not None:
                    self.admitted.append((run, spec))
            except (trials.TrialError, OSError, ValueError) as error:
                yield str(error)

    def stop(self) -> None:
        """Terminate it; all of its state is in the suite's files."""
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
