"""`workbench doctor`: findings about this machine, each with a remedy of one sentence.

Child processes check what is slow or may hang (NVIDIA's driver, the caches) while this process
checks the rest; all of it takes about a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from results.text.sanitize import clean, clean_line
from workbench.doctor import caches, gpus, machine, slurm, software, storage, terminal
from workbench.doctor.finding import Finding, problem
from workbench.exit_codes import ExitCode
from workbench.suites import preflight

__all__ = ["Finding", "examine", "run"]


def examine_machine(log_root: Path, cache_root: Path) -> Iterator[Finding]:
    """All findings, in their order of display; only one if Python or /proc is unusable."""
    basic = [("Python", preflight.check_interpreter()), ("/proc", preflight.check_proc())]
    for name, sentences in basic:
        for sentence in sentences:
            text, _, remedy = sentence.rpartition("; ")
            yield problem(name, text, remedy)
            return
    driver, cache = gpus.start_sampler(), caches.start_check(cache_root)
    try:
        yield from software.software_findings()
        yield from machine.machine_findings()
        yield from storage.variable_findings(terminal.process_environment())
        yield from gpus.driver_findings(driver)
        yield from slurm.slurm_findings(terminal.process_environment())
        yield from storage.storage_findings(log_root, cache_root)
        yield from caches.cache_findings(cache)
        yield from terminal.terminal_findings(terminal.process_environment())
    finally:
        for child in (driver, cache):
            if child.poll() is None:
                child.kill()
                child.wait()


def print_report(log_root: Path, cache_root: Path, *, as_json: bool) -> ExitCode:
    """Print every finding; exit status 1 if one of them is a problem."""
    findings = print_findings(examine_machine(log_root, cache_root), as_json=as_json)
    problems = sum(finding.standing == "problem" for finding in findings)
    notes = sum(finding.standing == "note" for finding in findings)
    counted = [f"{problems} problem{'s' * (problems != 1)}", f"{notes} note{'s' * (notes != 1)}"]
    print(f"workbench: {', '.join(counted)}", file=sys.stderr)
    return ExitCode.FAILED if problems else ExitCode.COMPLETED


def print_findings(findings: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Print findings as they come, as lines or JSON; returns them all."""
    printed = []
    for finding in findings:
        printed.append(finding)
        if as_json:
            print(json.dumps(asdict(finding)), flush=True)
            continue
        print(clean_line(f"{finding.standing:<8} {finding.name:<16} {finding.text}"), flush=True)
        if finding.remedy:
            print(clean(f"{'':<8} {'':<16} → {finding.remedy}"), flush=True)
    return printed
