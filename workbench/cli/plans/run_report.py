"""What `workbench plan` says of one run: steps, settings, memory, or a JSON line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import typer

from workbench.cli.plans import output

if TYPE_CHECKING:
    from engines.memory_query import MemoryEstimate
    from engines.protocol import RunSpec
    from workbench.memory_estimate.fit_check import HostMemory
    from workbench.memory_estimate.gpus import GpuModel
    from workbench.memory_estimate.memory_check import TargetDevice
    from workbench.memory_estimate.plan_estimate import StepCounts

NO_SUBSET: Final = "rows"
"""Subset of a run that was asked about by its number of rows alone."""


class RunReport:
    """Output about one run of a plan: tables or a JSON line."""

    def __init__(
        self,
        spec: RunSpec,
        origins: dict[str, str],
        rows: int | None,
        device: TargetDevice,
        host_bytes: int,
    ) -> None:
        self.spec, self.origins, self.rows = spec, origins, rows
        self.device, self.host_bytes = device, host_bytes

    def print(
        self, memory_estimate: MemoryEstimate | None, *, markdown: bool, as_json: bool
    ) -> bool:
        """Print the run; whether it fits, as far as is known. `memory_estimate` None: unknown."""
        from workbench.memory_estimate import plan_estimate

        params = self.spec.params
        steps = None
        if self._trains and self.rows and "batch" in params:
            steps = plan_estimate.count_steps(params, self.rows)
        if as_json:
            self._print_json(steps, memory_estimate)
        else:
            self._print_tables(steps, memory_estimate, markdown=markdown)
        return self._fits(memory_estimate)

    @property
    def _stage_steps(self) -> dict[str, StepCounts]:
        """Steps by stage, where the run has stages and its rows are known."""
        from workbench.memory_estimate import plan_estimate

        if not (self._trains and self.rows):
            return {}
        return plan_estimate.count_stage_steps(self.spec.params, self.rows)

    @property
    def _trains(self) -> bool:
        return self.spec.task in ("train", "probe")

    def _fits(self, memory_estimate: MemoryEstimate | None) -> bool:
        from workbench.memory_estimate import fit_check, memory_check
        from workbench.memory_estimate.fit_check import HostMemory

        if (
            memory_estimate is None
            or isinstance(self.device, memory_check.UnknownDevice)
            or memory_estimate.problem
        ):
            return True
        on_host = isinstance(self.device, HostMemory)
        host_fits = on_host or sum(memory_estimate.host.values()) <= self.host_bytes
        return host_fits and fit_check.peak_phase(memory_estimate, self.device).fits

    def _print_tables(
        self, steps: StepCounts | None, memory_estimate: MemoryEstimate | None, *, markdown: bool
    ) -> None:
        from workbench.memory_estimate import checklist, gpus, memory_check
        from workbench.memory_estimate.fit_check import HostMemory

        spec, device = self.spec, self.device
        subset = "" if spec.subset == NO_SUBSET else spec.subset
        title = " · ".join(part for part in (spec.engine, spec.model, subset, spec.label) if part)
        output.print_text(f"## {title}\n" if markdown else f"\n{title}\n", markdown=markdown)
        subject = (
            f"what is forecast: this program's engine `{spec.engine}`, task `{spec.task}`, with "
            f"`{spec.model}`; another program with these settings needs other memory"
        )
        output.print_paragraph(subject, markdown=markdown)
        if isinstance(device, gpus.GpuModel) and device.instance:
            machine = (
                f"machine: {device.instance} with {device.name} of "
                f"{device.memory_bytes / (1 << 30):.1f} GiB, host memory "
                f"{self.host_bytes / (1 << 30):.0f} GiB"
            )
            output.print_text(machine, markdown=markdown)
        self._print_steps(steps, markdown=markdown)
        if setting_lines := checklist.setting_lines(spec.params):
            output.print_list(
                "Settings of training and prediction", setting_lines, markdown=markdown
            )
        output.print_heading("Memory", "###", markdown=markdown)
        if isinstance(device, HostMemory):
            output.print_text(
                "no GPU here and none named: memory is the host's; --gpu A10G asks about a GPU",
                markdown=markdown,
            )
        if isinstance(device, memory_check.UnknownDevice):
            output.print_text(
                f"memory: n/a ({device.reason}); give --gpu, as --gpu A10G", markdown=markdown
            )
        elif memory_estimate is None:
            output.print_text("memory: n/a (not asked)", markdown=markdown)
        elif memory_estimate.problem:
            output.print_text(f"memory: n/a ({memory_estimate.problem})", markdown=markdown)
        else:
            self._print_memory(memory_estimate, device, markdown=markdown)

    def _print_steps(self, steps: StepCounts | None, *, markdown: bool) -> None:
        """Print rows, batch and steps, of a run with stages by stage, or why there are none."""
        from workbench.memory_estimate import table

        params = self.spec.params
        output.print_heading("Data and steps", "###", markdown=markdown)
        if self._stage_steps:
            output.print_table(table.stages_table(self._stage_steps, params), markdown=markdown)
        elif steps:
            shown = table.steps_table(
                steps, self.origins, early_stopping=bool(params.get("early_stopping"))
            )
            output.print_table(shown, markdown=markdown)
        elif not self._trains:
            row_count = f"rows: {self.rows:,}; " if self.rows else ""
            output.print_text(f"{row_count}task {self.spec.task} trains nothing", markdown=markdown)
        else:
            output.print_text(
                "steps: the subset's rows are not known here; give --rows", markdown=markdown
            )

    def _print_memory(
        self, memory_estimate: MemoryEstimate, device: GpuModel | HostMemory, *, markdown: bool
    ) -> None:
        from workbench import paths
        from workbench.memory_estimate import checklist, fit_check, plan_estimate, table
        from workbench.memory_estimate.fit_check import HostMemory

        names = {"train": "batch", "predict": "eval_batch_size"}
        batches = {
            phase: self.spec.params[name]
            for phase, name in names.items()
            if name in self.spec.params
        }
        memory = table.memory_table(memory_estimate, device, batches)
        output.print_table(memory, markdown=markdown)
        peak = fit_check.peak_phase(memory_estimate, device)
        if isinstance(device, HostMemory):
            output.print_text(fit_check.describe_fit(peak, device), markdown=markdown)
        else:
            output.print_table(
                table.host_table(memory_estimate, self.host_bytes), markdown=markdown
            )
            output.print_text(fit_check.describe_fit(peak, device), markdown=markdown)
            self._print_audited(memory_estimate, device, markdown=markdown)
        if not peak.fits:
            reductions = plan_estimate.estimate_reductions(
                self.spec, device, paths.cache_root(), peak.phase
            )
            output.print_table(table.reductions_table(reductions), markdown=markdown)
        elif not isinstance(device, HostMemory):
            remedies = checklist.remedy_lines(self.spec, peak.phase)
            output.print_list(
                "If memory does not suffice all the same", remedies, markdown=markdown
            )
        host_need = sum(memory_estimate.host.values())
        if not isinstance(device, HostMemory) and host_need > self.host_bytes:
            output.print_text(
                "host memory does not suffice: close other programs, or lower num_workers",
                markdown=markdown,
            )

    def _print_audited(
        self, memory_estimate: MemoryEstimate, device: GpuModel, *, markdown: bool
    ) -> None:
        """Print the audit's estimate beside ours, and the parts between them, where it has one."""
        from workbench import paths
        from workbench.memory_estimate import audited_prediction, estimator_process, memory_check

        if not audited_prediction.is_audited(self.spec, memory_estimate, device):
            return
        sentence = audited_prediction.describe(memory_estimate, device)
        output.print_paragraph(sentence, markdown=markdown)
        query = memory_check.build_query(self.spec, device, **audited_prediction.UNCACHED)
        (uncached,) = estimator_process.request_estimates([query], paths.cache_root())
        gap = audited_prediction.gap_table(memory_estimate, uncached, device)
        output.print_table(gap, markdown=markdown)

    def _print_json(self, steps: StepCounts | None, memory_estimate: MemoryEstimate | None) -> None:
        from results.text.sanitize import escape_json
        from workbench.memory_estimate import fit_check, memory_check
        from workbench.memory_estimate.fit_check import HostMemory

        device = self.device
        report: dict[str, Any] = {"engine": self.spec.engine, "model": self.spec.model}
        report["subset"] = self.spec.subset
        report["params"], report["origins"] = self.spec.params, self.origins
        report["steps"] = steps._asdict() if steps and not self._stage_steps else None
        if self._stage_steps:
            report["stages"] = {name: row._asdict() for name, row in self._stage_steps.items()}
        if memory_estimate is not None and not isinstance(device, memory_check.UnknownDevice):
            report["need"] = memory_estimate.model_dump()
            if isinstance(device, HostMemory):
                report["host"] = device._asdict()
            else:
                report["gpu"] = device.model_dump()
            if not memory_estimate.problem:
                peak = fit_check.peak_phase(memory_estimate, device)
                report["verdict"] = {**peak._asdict(), "fits": peak.fits}
        typer.echo(escape_json(json.dumps(report)))
