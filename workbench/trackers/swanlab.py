"""SwanLab, offline: `swanlab sync` uploads the folder where its user wants to.

It keeps steps and no times of its own: values have the time of the export.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from pathlib import Path

from workbench.trackers.run_log import RunLog


def write(log: RunLog, target: Path) -> Path:
    """An offline run in place of an earlier one, with an id from the run's name."""
    import swanlab

    folder = target / log.file_name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    probes = ("hardware", "runtime", "requirements", "git", "monitor")
    settings = swanlab.Settings(
        probe=swanlab.Settings.Probe(**dict.fromkeys(probes, False)),
        terminal=swanlab.Settings.Terminal(proxy_type="none"),
    )
    with contextlib.redirect_stdout(sys.stderr):
        run = swanlab.init(
            mode="offline", log_dir=str(folder), project=log.project, name=log.title,
            description=log.name, config=dict(log.params), settings=settings,
            id=hashlib.sha256(log.name.encode()).hexdigest()[:16],
        )  # fmt: skip
        for scalar in log.scalars:
            run.log({scalar.name: scalar.value}, step=scalar.step)
        last = log.scalars[-1].step if log.scalars else 0
        run.log({f"final/{name}": value for name, value in log.metrics.items()}, step=last)
        swanlab.finish()
    return next(folder.glob("run-*"))
