"""Asks the child that can rehearse a step, and remembers what it said.

An answer is a function of the question, of the model's and the subsets' files, of the engine's
source and of the libraries' versions; that is its name in the cache, so a forecast before every run
costs nothing but the first time.
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
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import engines
from engines import model_catalog
from engines.memory_query import Need, Want
from workbench import paths

ENGINES: Final = Path(str(engines.__file__)).parent
SECONDS: Final = 300.0
"""One rehearsal of a 7B model takes some seconds, and loading torch and transformers five."""
CLOSING_SECONDS: Final = 5.0

Say = Callable[[str], None]


def ask(wants: Sequence[Want], cache_root: Path) -> list[Need]:
    """An answer for each question, in order; those that fail say why. Equal ones are asked once."""
    asked = {_place(want, cache_root): want for want in wants}
    found = {place: need for place in asked if (need := _read(place))}
    missing = [place for place in asked if place not in found]
    made = _child([asked[place] for place in missing]) if missing else []
    for place, need in zip(missing, made, strict=True):
        found[place] = need
        if not need.problem:
            _keep(place, need)
    return [found[_place(want, cache_root)] for want in wants]


def remembered(want: Want, cache_root: Path) -> Need | None:
    """The answer, if it was given before: asking costs no time then."""
    return _read(_place(want, cache_root))


class _Rehearser:
    """The child that rehearses, for as long as there are questions: it loads torch once."""

    def __init__(self) -> None:
        environment = {**os.environ, **paths.module_path(os.environ)}
        self._last_words = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engines.estimate_memory"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._last_words, env=environment, bufsize=0,
        )  # fmt: skip
        self._read = b""
        self.lost = False
        """It has ended, or was ended, before its input did."""

    def answer(self, want: Want) -> Need:
        """What the child says, or why it says nothing; it is ended where it takes too long."""
        if self._process.stdin is None:
            raise RuntimeError("the child was started without a pipe")
        try:
            self._process.stdin.write(f"{want.model_dump_json()}\n".encode())
            return Need.model_validate_json(self._line(time.monotonic() + SECONDS))
        except TimeoutError:
            self.lost = True
            self._process.kill()
            return Need(problem=f"the rehearsal has not ended within {SECONDS:g} s")
        except (OSError, EOFError, ValueError):
            self.lost = True
            return Need(problem=f"the rehearsal failed: {self._why()[:300]}")

    def _line(self, until: float) -> bytes:
        out = self._process.stdout
        if out is None:
            raise EOFError
        while b"\n" not in self._read:
            left = until - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise TimeoutError
            if not (more := out.read(65_536)):
                raise EOFError
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _why(self) -> str:
        """The child's last words; it ends now, if it has not."""
        code = self._end()
        self._last_words.seek(0)
        said = self._last_words.read().decode("utf-8", "replace").strip().splitlines()
        return (said or [f"it ended with {code}"])[-1]

    def close(self) -> None:
        """End the child: it reads until its input ends."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._end()
        self._last_words.close()

    def _end(self) -> int:
        try:
            return self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class _Kept:
    """The child of a `kept_open` context, once it was needed."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.child: _Rehearser | None = None


_kept: list[_Kept] = []


@contextmanager
def kept_open(say: Say) -> Iterator[None]:
    """Questions of this context have one child. `say` hears each that takes time."""
    _kept.append(_Kept(say))
    try:
        yield
    finally:
        kept = _kept.pop()
        if kept.child is not None:
            kept.child.close()


def _child(wants: Sequence[Want]) -> list[Need]:
    """Ask the child; what it did not answer has its last words as a reason."""
    if not _kept:
        with kept_open(lambda _: None):
            return _child(wants)
    kept = _kept[-1]
    found = []
    for number, want in enumerate(wants, 1):
        if kept.child is not None and kept.child.lost:
            kept.child.close()
            kept.child = None
        kept.child = kept.child or _Rehearser()
        kept.say(f"rehearsing a step of {want.model} on fake tensors, {number} of {len(wants)} …")
        found.append(kept.child.answer(want))
    return found


def _place(want: Want, cache_root: Path) -> Path:
    versions = [metadata.version(name) for name in ("torch", "transformers") if _has(name)]
    cpu = _half_of_cpu() if want.target == "cpu" else ""
    content = repr([_source(want.engine), _files(want), versions, want.model_dump_json(), cpu])
    mark = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
    return cache_root / "fit" / f"{mark}.json"


@cache
def _half_of_cpu() -> str:
    """The CPU's instructions for half precision, by which `precision = auto` chooses there."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return ""
    return " ".join(sorted(word for word in words if "bf16" in word or "avx512f" in word))


@cache
def _source(engine: str) -> str:
    """Of everything that a rehearsal runs."""
    folders = (ENGINES / "torchkit", ENGINES / engine)
    paths = [*ENGINES.glob("*.py"), *(path for folder in folders for path in folder.rglob("*"))]
    files = sorted(path for path in paths if path.suffix in (".py", ".toml"))
    return hashlib.blake2b(b"".join(map(Path.read_bytes, files)), digest_size=12).hexdigest()


def _files(want: Want) -> list[object]:
    """What the answer reads: sizes and tokenizers of the models, rows of the subsets."""
    try:
        entry = model_catalog.load(want.model)
    except (LookupError, ValueError):
        return []  # the answer will say what is wrong, and is not kept
    named = [str(value) for value in want.params.values()]
    places = [Path(name[5:]).expanduser() for name in named if name.startswith("path:")]
    places += [place for one in (entry, entry.vision, entry.llm) if one
               if (place := model_catalog.weights_folder(one))]  # fmt: skip
    paths = [path for place in places for path in sorted(place.glob("*.json"))]
    paths += [Path(folder) / "records.arrow" for folder in want.subsets]
    return [entry.model_dump_json(), *map(_state, paths)]


def _state(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _read(place: Path) -> Need | None:
    try:
        return Need.model_validate_json(place.read_bytes())
    except (OSError, ValueError):
        return None


def _keep(place: Path, need: Need) -> None:
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = place.with_suffix(f".tmp-{os.getpid()}")
        draft.write_text(need.model_dump_json(), encoding="utf-8")
        draft.replace(place)
    except OSError:
        return  # a forecast that cannot be kept is still a forecast
