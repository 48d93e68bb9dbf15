"""Log root, cache and temporary files: free space, file systems, access, suites and locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from results.text import formats
from workbench import paths
from workbench.doctor.finding import Finding, note, ok, problem
from workbench.paths import nearest_existing
from workbench.processes import device_locks as processes_device_locks
from workbench.processes import lock_folder, logout
from workbench.suites import preflight, suite, warden_file

MIB: Final = 1 << 20
LEAST_FREE_BYTES: Final = {"log root": 512 * MIB, "cache": 1024 * MIB, "temporary files": 128 * MIB}
"""Free bytes below which a run is likely to fill the disk: one checkpoint, one image cache."""
NOTE_FACTOR: Final = 10
"""A note is given below this multiple of `LEAST_FREE_BYTES`."""
SKEW_SECONDS: Final = 2.0


def storage_findings(log_root: Path, cache_root: Path) -> Iterator[Finding]:
    """All findings about the log root, the cache and the folder for temporary files."""
    temporary = Path(tempfile.gettempdir())
    folders = {"log root": log_root, "cache": cache_root, "temporary files": temporary}
    for name, folder in folders.items():
        yield space_finding(name, folder)
        yield from network_findings(name, folder)
    yield from surroundings_findings(log_root)
    yield from access_findings("log root", log_root)
    yield from access_findings("cache", cache_root)
    yield from suite_findings(log_root)
    yield from device_lock_findings(paths.lock_root())
    if sentence := logout.find_problem():
        text, _, remedy = sentence.partition("; ")
        yield note("logout", text, remedy)


def space_finding(name: str, folder: Path) -> Finding:
    """Free bytes and file entries of a folder's disk."""
    try:
        free = shutil.disk_usage(nearest_existing(folder)).free
        entries = os.statvfs(nearest_existing(folder))
    except OSError as error:
        return problem(name, f"{folder}: {error.strerror}", "choose another folder")
    text = f"{formats.size(free)} free for {folder}"
    if entries.f_files and entries.f_favail < 1000:
        return problem(name, f"{text}, but no file entries are left", "delete some small files")
    remedy = "delete old suites and caches, or move it (see docs/doctor.md)"
    if free < LEAST_FREE_BYTES[name]:
        return problem(name, text, remedy)
    return (
        note(name, text, remedy) if free < NOTE_FACTOR * LEAST_FREE_BYTES[name] else ok(name, text)
    )


def network_findings(
    name: str, folder: Path, mounts: Path = lock_folder.MOUNTS
) -> Iterator[Finding]:
    """A note if the folder lies on a network file system."""
    kind = lock_folder.file_system_type(nearest_existing(folder), mounts)
    if kind in lock_folder.NETWORK_FILE_SYSTEMS:
        log_root_remedy = "log roots work there (append-only files, one writer each), but slower"
        text = f"{folder} lies on a network file system ({kind})"
        remedy = (
            log_root_remedy
            if name == "log root"
            else "keep it on a local disk: it is memory-mapped"
        )
        yield note(name, text, remedy)


def surroundings_findings(log_root: Path) -> Iterator[Finding]:
    """Problems that keep a suite from running here, by the same checks as `workbench run`."""
    for sentence in preflight.check_surroundings(log_root):
        text, _, remedy = sentence.rpartition("; ")
        yield problem("surroundings", text, remedy)


def access_findings(name: str, folder: Path) -> Iterator[Finding]:
    """Whether others may write to a folder, and whether its disk's clock agrees with ours."""
    if not folder.is_dir():
        return
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        skew = os.fstat(file.fileno()).st_mtime - time.time()
        if abs(skew) > SKEW_SECONDS:
            yield note(
                name, f"the disk's clock is {skew:+.0f} s off", "set the file server's clock"
            )
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        yield problem(name, f"{folder} can be written by others", f"run `chmod 700 {folder}`")


def suite_findings(log_root: Path) -> Iterator[Finding]:
    """Suites of the log root: their number, those at work, lost wardens, and the records."""
    folders = suite.list_suites(log_root) if log_root.is_dir() else []
    working: list[str] = []
    dead: list[str] = []
    for folder in folders:
        try:
            warden = warden_file.read_warden(folder)
        except suite.SuiteError as error:
            yield note("suites", str(error), "other suites are listed all the same")
            continue
        if warden is not None and warden.state not in ("ended", "lost"):
            (working if warden_file.is_alive(warden) else dead).append(folder.name)
    if dead:
        text = f"{len(dead)} suites have lost their warden: {', '.join(dead[:3])}"
        yield problem("suites", text, "run `workbench ps`: it ends what is left and says so")
    at_work = f", at work: {', '.join(working[:3])}" if working else ""
    yield ok("suites", f"{len(folders)} in {log_root}{at_work}")
    yield from record_findings(log_root / "results.jsonl")


def record_findings(path: Path) -> Iterator[Finding]:
    """Whether results.jsonl can be read completely."""
    from results.records import store

    if not path.exists():
        return
    if path.stat().st_size > 64 * MIB:
        yield ok("records", f"{path} has {formats.size(path.stat().st_size)}; not read here")
        return
    try:
        lines = store.read_records(path)
        count = sum(1 for _ in lines)
    except (store.NewerSchemaError, OSError) as error:
        yield problem("records", str(error), "use the version of the workbench that wrote them")
        return
    if lines.trouble:
        yield note("records", lines.trouble, "nothing to do: whole records are read all the same")
    else:
        yield ok("records", f"{count:,} in {path}")


def device_lock_findings(folder: Path) -> Iterator[Finding]:
    """Whether locks hold in the folder, and who has one; none is stale: it ends with its holder."""
    if text := lock_folder.find_problem(folder):
        yield problem("device locks", f"{folder}: {text}", "name another in WORKBENCH_LOCKS")
    else:
        yield ok("device locks", f"flock holds in {folder}")
    for path in sorted(folder.glob("device-*.lock")) if folder.is_dir() else []:
        device = path.stem.removeprefix("device-")
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = processes_device_locks.read_holder(path)
            yield note("devices", f"{device} is used by {holder}", "new suites queue behind it")
        except OSError as error:
            yield problem("devices", f"{path}: {error.strerror}", f"delete {path}")


def variable_findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Environment variables that change what is measured."""
    for name in ("LD_PRELOAD", "CUDA_LAUNCH_BLOCKING", "NCCL_DEBUG"):
        if environment.get(name):
            yield note("environment", f"{name} is set", f"unset {name} before measuring")
