"""Checkpoints: safetensors for tensors, JSON for the rest, written atomically.

A folder is written under a temporary name, synced, read back and then renamed, so every `step-…`
folder is complete. Tensors are streamed into the file while they are hashed: saving copies at most
one tensor of a GPU at a time.
"""

# safetensors' own `save_file` (0.8) keeps host copies of all tensors of a file until it is written:
# 500 MiB more for 500 MiB on a GPU, which would show up in the run's own memory peak.

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor

from engines.trained_weights import LAST, STATE

SUFFIX: Final = ".safetensors"
FOREIGN: Final = {"format": "pt"}
"""Metadata that other libraries expect in a file of weights."""

_NAMES: Final = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class WrittenFile:
    """A written file with its SHA-256 and its size in bytes."""

    path: Path
    sha256: str
    size: int


def save(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    texts: Mapping[str, str] | None = None,
) -> list[WrittenFile]:
    """Write a checkpoint folder: `<name>.safetensors` per group, other files, state.json last.

    It appears whole. An earlier folder of that name is removed just before; a process that is
    killed between the two leaves neither; a resumed run makes it again.

    Raises:
        OSError: the disk is full or a file read back differs from what was written.
    """
    named = {f"{name}{SUFFIX}": group for name, group in tensors.items()}
    return _write_whole(folder, named, texts or {}, state)


def write_folder(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, str]
) -> list[WrittenFile]:
    """Write a folder for another library in the same way: files of tensors and of text, by name.

    Raises:
        OSError: as `save`.
    """
    return _write_whole(folder, tensors, texts, None)


def _write_whole(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    state: Mapping[str, Any] | None,
) -> list[WrittenFile]:
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True, mode=0o700)
    try:
        written = _write_draft(temporary, tensors, texts, state)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:  # a draft would keep a full disk full
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(folder.parent)
    return [WrittenFile(folder / f.path.name, f.sha256, f.size) for f in written]


def _write_draft(
    temporary: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    state: Mapping[str, Any] | None,
) -> list[WrittenFile]:
    about = {} if state is not None else FOREIGN
    written = [write_safetensors(temporary / name, group, about) for name, group in tensors.items()]
    for file in written:
        _verify(file.path, tensors[file.path.name])
    files = {f.path.name: {"sha256": f.sha256, "size": f.size} for f in written}
    for name, text in texts.items():
        written.append(_write(temporary / name, [text.encode()]))
    if state is not None:
        content = json.dumps({**state, "files": files}, indent=1).encode()
        written.append(_write(temporary / STATE, [content]))
    return written


def load(folder: Path, device: torch.device) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """All tensors by group, on `device`, and the state.

    Raises:
        ValueError: a file is missing or has another size than state.json says.
    """
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    groups: dict[str, dict[str, Tensor]] = {}
    for name, facts in state["files"].items():
        path = folder / name
        if not _own_file(folder, name) or path.stat().st_size != facts["size"]:
            raise ValueError(f"{path}: is not the file that was saved; remove {folder}")
        with safe_open(path, framework="pt", device=str(device)) as file:
            groups[path.stem] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return groups, state


def newest_first(root: Path) -> list[Path]:
    """Checkpoints to resume from, the highest step first; then `last`, the final weights."""
    folders = sorted((p for p in root.glob("step-*") if (p / STATE).is_file()), reverse=True)
    return [*folders, *(p for p in (root / LAST,) if (p / STATE).is_file())]


def read_stage(folder: Path) -> int:
    """Number of the stage that a checkpoint belongs to, from 1; 0: its training has none."""
    return int(json.loads((folder / STATE).read_text(encoding="utf-8")).get("stage", 0))


def find_problem(folder: Path) -> str:
    """Damage of a checkpoint, by type and SHA-256 of its files; empty: none.

    Reading and hashing a GiB takes about a second; it is done once, when a run is resumed.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        expected = {name: facts["sha256"] for name, facts in state["files"].items()}
        for name, digest in expected.items():
            if not _own_file(folder, name):
                return f"{folder / name}: is not the file that was saved"
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{folder / name}: is not the file that was saved"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{folder / STATE}: is damaged"
    return ""


def _own_file(folder: Path, name: str) -> bool:
    """Whether a name of state.json is a regular file of this folder: no path, link or pipe."""
    return Path(name).name == name and stat.S_ISREG((folder / name).lstat().st_mode)


def step_folder(root: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` steps; names sort by step."""
    return root / f"step-{step:09d}"


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> WrittenFile:
    """One file in safetensors format (8-byte length, JSON header, raw little-endian data).

    `about`: metadata of the whole file.
    """
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data starts aligned
    head = [struct.pack("<Q", len(text)), text]
    return _write(path, chain(head, map(raw_bytes, tensors.values())))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimizer state as named tensors `<parameter index>.<name>`."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Continue an optimizer from `optimizer_tensors`; its settings are the new run's."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        if name == "step":  # read on the host in every step, a wait each; a fused one is moved back
            value = value.cpu()  # noqa: PLW2901
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def random_state() -> dict[str, Tensor]:
    """State of torch's generators, CPU and current GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Continue torch's generators."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def raw_bytes(tensor: Tensor) -> memoryview:
    """The tensor's bytes, copied to the CPU where needed."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _write(path: Path, chunks: Iterable[Any]) -> WrittenFile:
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            del chunk  # before the next one is copied from the GPU
        file.flush()
        os.fsync(file.fileno())
    return WrittenFile(path, digest.hexdigest(), size)


def _verify(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if shapes != {name: tuple(t.shape) for name, t in tensors.items()}:
        raise OSError(f"{path}: reads back differently from what was written")


def _sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename is durable; ignored where unsupported (CIFS, FUSE)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(fd)


def remove_others(root: Path, kept: Path) -> None:
    """Remove all `step-…` checkpoints but one, and drafts that a killed process left."""
    for folder in (*root.glob("step-*"), *root.glob(".step-*.tmp")):
        if folder != kept:
            shutil.rmtree(folder)
