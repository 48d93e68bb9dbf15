"""The child process that computes memory estimates, and the cache of its results.

The cache key is a digest of the query, the model's and the subsets' files, the engine's source and
the libraries' versions, so that only the first run with given sizes waits for an estimate.
"""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import engines
from datasets_mm.atomic_files import write_atomic
from engines import model_catalog
from engines.memory_query import MemoryEstimate, MemoryQuery
from engines.trained_weights import PATH_PREFIX
from workbench import paths

ENGINES_FOLDER: Final = Path(str(engines.__file__)).parent
TIMEOUT_SECONDS: Final = 300.0
"""A 7B model takes some seconds; loading torch and transformers takes five."""
CLOSING_SECONDS: Final = 5.0

ProgressCallback = Callable[[str], None]


def request_estimates(queries: Sequence[MemoryQuery], cache_root: Path) -> list[MemoryEstimate]:
    """The estimate of each query, in order; a failed one has a `problem`. Successes are cached."""
    query_by_path = {_cache_path(query, cache_root): query for query in queries}
    estimates = {path: estimate for path in query_by_path if (estimate := _read_cached(path))}
    missing = [path for path in query_by_path if path not in estimates]
    computed = run_estimator([query_by_path[path] for path in missing]) if missing else []
    for path, estimate in zip(missing, computed, strict=True):
        estimates[path] = estimate
        if not estimate.problem:
            _write_cached(path, estimate)
    return [estimates[_cache_path(query, cache_root)] for query in queries]


def cached_estimate(query: MemoryQuery, cache_root: Path) -> MemoryEstimate | None:
    """The estimate of a query if it is in the cache, else None; starts no process."""
    return _read_cached(_cache_path(query, cache_root))


class _EstimatorProcess:
    """The child process: answers queries until it is closed, and loads torch once."""

    def __init__(self) -> None:
        environment = {**os.environ, **paths.module_path(os.environ)}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engines.memory_estimator"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._stderr, env=environment, bufsize=0,
        )  # fmt: skip
        self._buffer = b""
        self.lost = False
        """It ended, or was killed, before its input ended."""

    def estimate(self, query: MemoryQuery) -> MemoryEstimate:
        """The child's estimate; with a `problem` if it fails or exceeds `TIMEOUT_SECONDS`."""
        if self._process.stdin is None:
            raise RuntimeError("the child was started without a pipe")
        try:
            self._process.stdin.write(f"{query.model_dump_json()}\n".encode())
            return MemoryEstimate.model_validate_json(
                self._read_line(time.monotonic() + TIMEOUT_SECONDS)
            )
        except TimeoutError:
            self.lost = True
            self._process.kill()
            return MemoryEstimate(
                problem=f"the memory estimate has not ended within {TIMEOUT_SECONDS:g} s"
            )
        except (OSError, EOFError, ValueError):
            self.lost = True
            return MemoryEstimate(
                problem=f"the memory estimate failed: {self._failure_reason()[:300]}"
            )

    def _read_line(self, deadline: float) -> bytes:
        pipe = self._process.stdout
        if pipe is None:
            raise EOFError
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([pipe], [], [], remaining)[0]:
                raise TimeoutError
            if not (chunk := pipe.read(65_536)):
                raise EOFError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _failure_reason(self) -> str:
        """Wait for the child's end; its last line on stderr, or its exit status."""
        code = self._wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return (lines or [f"it ended with {code}"])[-1]

    def close(self) -> None:
        """Close the child's input, which ends it, and wait."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._wait()
        self._stderr.close()

    def _wait(self) -> int:
        try:
            return self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class _SharedProcess:
    """The child process of a `share_process` context, started at the first query."""

    def __init__(self, report: ProgressCallback) -> None:
        self.report = report
        self.child: _EstimatorProcess | None = None


_shared_processes: list[_SharedProcess] = []


@contextmanager
def share_process(report: ProgressCallback) -> Iterator[None]:
    """Let all queries of this context share one process; `report` gets a line for each query."""
    _shared_processes.append(_SharedProcess(report))
    try:
        yield
    finally:
        shared = _shared_processes.pop()
        if shared.child is not None:
            shared.child.close()


def run_estimator(queries: Sequence[MemoryQuery]) -> list[MemoryEstimate]:
    """Estimates from the shared process, which is started again after it was lost."""
    if not _shared_processes:
        with share_process(lambda _: None):
            return run_estimator(queries)
    shared = _shared_processes[-1]
    estimates = []
    for number, query in enumerate(queries, 1):
        if shared.child is not None and shared.child.lost:
            shared.child.close()
            shared.child = None
        shared.child = shared.child or _EstimatorProcess()
        shared.report(
            f"estimating the memory of a step of {query.model}, {number} of {len(queries)} …"
        )
        estimates.append(shared.child.estimate(query))
    return estimates


def _cache_path(query: MemoryQuery, cache_root: Path) -> Path:
    cpu_flags = _cpu_half_precision_flags() if query.target == "cpu" else ""
    content = repr(
        [
            _source_digest(query.engine),
            _input_files(query),
            _library_versions(),
            query.model_dump_json(),
            cpu_flags,
        ]
    )
    digest = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
    return cache_root / "fit" / f"{digest}.json"


@cache
def _library_versions() -> list[str]:
    """Versions of the libraries that an estimate executes, of those that are installed."""
    versions = []
    for name in ("torch", "transformers"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(metadata.version(name))
    return versions


@cache
def _cpu_half_precision_flags() -> str:
    """CPU flags for half precision, by which `precision = auto` chooses on a CPU."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return ""
    return " ".join(sorted(word for word in words if "bf16" in word or "avx512f" in word))


@cache
def _source_digest(engine: str) -> str:
    """Digest of all source that an estimate executes."""
    folders = (ENGINES_FOLDER / "torchkit", ENGINES_FOLDER / engine)
    paths = [
        *ENGINES_FOLDER.glob("*.py"),
        *(path for folder in folders for path in folder.rglob("*")),
    ]
    files = sorted(path for path in paths if path.suffix in (".py", ".toml"))
    return hashlib.blake2b(b"".join(map(Path.read_bytes, files)), digest_size=12).hexdigest()


def _input_files(query: MemoryQuery) -> list[object]:
    """What an estimate reads: the model's entry, and state of model and subset files."""
    try:
        entry = model_catalog.load(query.model)
    except (LookupError, ValueError):
        return []  # the estimate will have a problem, and is not cached
    setting_texts = [str(value) for value in query.params.values()]
    folders = [
        Path(text.removeprefix(PATH_PREFIX)).expanduser()
        for text in setting_texts
        if text.startswith(PATH_PREFIX)
    ]
    folders += [folder for part in (entry, entry.vision, entry.llm) if part
               if (folder := model_catalog.weights_folder(part))]  # fmt: skip
    paths = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    paths += [Path(folder) / "records.arrow" for folder in query.subsets]
    return [entry.model_dump_json(), *map(_file_state, paths)]


def _file_state(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_size, status.st_mtime_ns


def _read_cached(path: Path) -> MemoryEstimate | None:
    try:
        return MemoryEstimate.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write_cached(path: Path, estimate: MemoryEstimate) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, estimate.model_dump_json())
    except OSError:
        return  # an estimate that cannot be cached is still valid
