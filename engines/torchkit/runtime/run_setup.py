"""How a run of any engine that trains begins: ranks, device, seed, and the first words about it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from engines import model_catalog, param_sections
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.torchkit.runtime import device, distributed
from engines.torchkit.runtime.context import Context, Params
from engines.torchkit.runtime.precision import Precision


def begin(
    spec: RunSpec, params: Params, emit: Emitter, run_dir: Path, *, deterministic: bool = False
) -> Context[Params]:
    """The run with its ranks, its model's entry and its device; torch is seeded and prepared."""
    machine = cast("param_sections.Machine", params)  # a section of every engine that trains
    team = distributed.join()
    target = device.choose(spec.devices, team.rank, cpu=spec.cpu)
    device.prepare(machine.threads, tf32=machine.tf32, ranks=team.size)
    if deterministic:
        device.be_deterministic()
    device.reuse_freed_memory()
    device.seed(spec.seed)
    device.introduce(emit, spec, target, team.size)
    precision = Precision(machine.precision, target, ranks=team.size)
    if sentence := precision.notice():
        emit.notice("precision-emulated", sentence)
    return Context(
        spec, params, precision, emit, run_dir, model_catalog.load(spec.model), team=team
    )
