"""TensorBoard event files, by tensorboardX (without TensorFlow)."""

from __future__ import annotations

from pathlib import Path

from datasets_mm.atomic_files import atomic_folder
from workbench.trackers.run_log import RunLog


def write(log: RunLog, target: Path) -> Path:
    """A folder with one event file, in place of an earlier one; shown by `tensorboard --logdir`."""
    from tensorboardX import SummaryWriter

    target.mkdir(parents=True, exist_ok=True)
    with (
        atomic_folder(target / log.file_name) as folder,
        SummaryWriter(logdir=str(folder)) as writer,
    ):
        rows = "\n".join(f"| {name} | {value} |" for name, value in log.params.items())
        writer.add_text("params", f"| setting | value |\n| --- | --- |\n{rows}")
        for scalar in log.scalars:
            writer.add_scalar(scalar.name, scalar.value, scalar.step, walltime=scalar.wall)
        last = log.scalars[-1] if log.scalars else None
        for name, value in log.metrics.items():
            step, wall = (last.step, last.wall) if last else (0, None)
            writer.add_scalar(f"final/{name}", value, step, walltime=wall)
    return target / log.file_name
