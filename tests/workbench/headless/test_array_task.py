"""A task of a queue: when it asks to be started again."""

from __future__ import annotations

import pytest

from engines.messages import Attempt, Step
from engines.protocol import Entry
from workbench.headless import array_task
from workbench.slurm.commands import SlurmError


def entries(*attempts: int) -> list[Entry]:
    """A journal; for each attempt its last step."""
    messages: list[Attempt | Step] = []
    for number, step in enumerate(attempts, 1):
        messages.append(Attempt(number=number, pid=1))
        if step:
            messages.append(Step(step=step, count=1, samples=1, epoch=0, seconds=1, loss=1, lr=0))
    return [Entry(seq=seq, wall=0, src="warden", msg=msg) for seq, msg in enumerate(messages)]


@pytest.mark.parametrize(
    ("attempts", "idle"),
    [((10,), 0), ((0,), 1), ((10, 0, 0), 2), ((10, 5, 10), 2), ((0, 0, 5), 0), ((), 0)],
)
def test_attempts_that_lead_nowhere(attempts: tuple[int, ...], idle: int) -> None:
    assert array_task.count_idle_attempts(entries(*attempts)) == idle


def test_a_job_is_requeued_unless_it_leads_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    jobs: list[str] = []
    array_task._requeue("7_1", entries(5, 9), jobs.append)
    array_task._requeue("7_1", entries(5, 0, 0, 0), jobs.append)
    assert jobs == ["7_1"]

    def refuse(job: str) -> None:
        raise SlurmError("scontrol cannot be started: No such file or directory")

    array_task._requeue("7_1", entries(5), refuse)
    said = capsys.readouterr().err
    assert "raise --time" in said
    assert "scontrol cannot be started: No such file or directory); `workbench resume`" in said
