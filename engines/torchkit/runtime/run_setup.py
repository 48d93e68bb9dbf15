"""Setup of a run of any engine that trains: process group, device, seed, precision."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from engines import model_catalog, param_sections
from engines.emitter import Emitter
from engines.protocol import RunSpec
from engines.torchkit.runtime import device, distributed
from engines.torchkit.runtime.context import Context, Params
from engines.torchkit.runtime.precision import Precision


def begin_run(spec: RunSpec, params: Params, emit: Emitter, run_dir: Path) -> Context[Params]:
    """Join the process group, configure and seed torch, send `Hello`; returns the context."""
    runtime = cast("param_sections.Runtime", params)  # a section of every engine that trains
    process_group = distributed.join_process_group()
    target = device.choose_device(spec.devices, process_group.local_rank, cpu=spec.cpu)
    device.configure_torch(runtime.threads, tf32=runtime.tf32, ranks=process_group.local_size)
    if getattr(params, "deterministic", False):  # a setting of some engines
        device.use_deterministic_kernels()
    device.reuse_freed_memory()
    device.seed_generators(spec.seed)
    device.send_hello(emit, spec, target, process_group.local_size)
    precision = Precision(runtime.precision, target, ranks=process_group.local_size)
    if sentence := precision.emulation_notice():
        emit.notice("precision-emulated", sentence)
    return Context(
        spec,
        params,
        precision,
        emit,
        run_dir,
        model_catalog.load(spec.model),
        process_group=process_group,
    )
