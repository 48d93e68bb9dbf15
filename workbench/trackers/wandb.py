"""Weights & Biases, offline: `wandb sync` uploads the folder where its user wants to."""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench.trackers.run_log import RunLog


def write(log: RunLog, target: Path) -> Path:
    """An offline run in place of an earlier one, with the run's name as its id."""
    import wandb

    target.mkdir(parents=True, exist_ok=True)
    run_id = log.file_name.replace(":", "-")[-128:]
    for earlier in (target / "wandb").glob(f"offline-run-*-{run_id}"):
        shutil.rmtree(earlier)
    settings = wandb.Settings(
        mode="offline", console="off", save_code=False, disable_git=True, x_disable_stats=True,
        x_disable_meta=True, silent=True,
    )  # fmt: skip
    with wandb.init(
        project=log.project, id=run_id, name=log.title, dir=str(target), config=dict(log.params),
        settings=settings, resume="never",
    ) as run:  # fmt: skip
        run.define_metric("*", step_metric="train/global_step")
        for scalar in log.scalars:
            run.log({scalar.name: scalar.value, "train/global_step": scalar.step,
                     "_timestamp": scalar.wall})  # fmt: skip
        run.summary.update(log.metrics)
    wandb.teardown()  # its service may still be writing
    return next((target / "wandb").glob(f"offline-run-*-{run_id}"))
