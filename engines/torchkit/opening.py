"""How a run of any engine that trains begins: ranks, device, seed, and the first words about it."""

from __future__ import annotations

from engines import settings
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.torchkit import device, distributed
from engines.torchkit.distributed import Team
from engines.torchkit.precision import Precision


def begin(
    spec: RunSpec, emit: Emitter, machine: settings.Machine, *, deterministic: bool = False
) -> tuple[Team, Precision]:
    """The ranks of the run, and what it computes on and in; torch is seeded and prepared."""
    team = distributed.join()
    target = device.choose(spec.devices, team.rank)
    device.prepare(machine.threads, tf32=machine.tf32, ranks=team.size)
    if deterministic:
        device.be_deterministic()
    device.seed(spec.seed)
    device.introduce(emit, spec, target)
    return team, Precision(machine.precision, target)
