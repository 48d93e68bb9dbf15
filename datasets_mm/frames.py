"""From a video file to a few frames, evenly spaced: the only place where videos are decoded.

Like decode.py for pictures this is what an attacker reaches: only regular files inside the media
root, only containers of a short list (a playlist would open other files), a cap on pixels and on
size. Frames are chosen by their number in the file: its packets are counted first, without decoding
them, because headers lie about the number of frames. PyAV is in the extra `captions`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from datasets_mm.decode import MAX_PIXELS, Resample, UnusableError, fitted
from datasets_mm.source import SourceError

MAX_BYTES: Final = 4 << 30
FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,asf,flv"
"""FFmpeg would otherwise try over 300 demuxers, HLS and concat among them."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def need_av() -> Any:
    """PyAV, or SourceError with the remedy."""
    try:
        import av
    except ModuleNotFoundError:
        raise SourceError(
            "videos are read by PyAV, which is not installed; run: "
            "pip install 'workbench-mm[captions]'"
        ) from None
    return av


def digest(file: Any, length: int) -> bytes:
    """Digest of an open file, which is wound back."""
    file.seek(0)
    found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=length)).digest()
    file.seek(0)
    return found


def read(file: Any, frames: int, size: int, resample: Resample) -> Pixels:
    """uint8 [frames, size, size, 3] of an open video.

    Frame i is number round(i (n - 1) / (frames - 1)) of n: first and last are among them, and a
    video of fewer frames gives some of them twice.

    Raises:
        UnusableError: no video that can be decoded; the text is the reason.
    """
    av = need_av()
    try:
        with av.open(file, "r", options={"format_whitelist": FORMATS}) as container:
            if not container.streams.video:
                sound = bool(container.streams.audio)
                raise UnusableError("audio without a picture" if sound else "no video stream")
            return _read(container, frames, size, resample)
    except UnusableError:
        raise
    except Exception as error:
        # Demuxers and decoders meet hostile bytes: FFmpegError, ValueError, MemoryError and more.
        raise UnusableError(f"unreadable video ({type(error).__name__})") from None


def evenly(total: int, frames: int) -> list[int]:
    """Numbers of `frames` frames among `total`, first and last among them."""
    return [int(place) for place in np.linspace(0, total - 1, frames).round()]


def _read(container: Any, frames: int, size: int, resample: Resample) -> Pixels:
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx")
    times = sorted(t for p in container.demux(stream) if p.size and (t := _time(p)) is not None)
    if not times:
        raise UnusableError("zero frames")
    wanted = [times[number] for number in evenly(len(times), frames)]
    shown: dict[int, Pixels] = {}
    for time, frame in _frames_at(container, stream, sorted(set(wanted))):
        image = frame.to_image()
        if turn := int(getattr(frame, "rotation", 0) or 0):
            image = image.rotate(turn, expand=True)
        shown[time] = fitted(image, size, resample)
    if not shown:
        raise UnusableError("zero frames")
    return np.stack([shown[time] for time in _nearest(wanted, shown)])


def _frames_at(container: Any, stream: Any, times: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """(time asked for, the first frame at or after it), each once; keyframes are jumped to."""
    for time in times:
        container.seek(time, stream=stream, backward=True)
        later = (f for f in container.decode(stream) if (t := _time(f)) is not None and t >= time)
        found = next(later, None)
        if found is not None:
            yield time, found


def _nearest(wanted: Sequence[int], shown: dict[int, Pixels]) -> list[int]:
    """A frame that a damaged end has lost is stood in for by its nearest."""
    return [min(shown, key=lambda time: abs(time - one)) for one in wanted]


def _time(part: Any) -> int | None:
    """Presentation time of a packet or frame; AVI gives only that of decoding."""
    found: int | None = part.dts if part.pts is None else part.pts
    return found
