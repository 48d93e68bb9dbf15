"""Evenly spaced frames of a video file: the only module that decodes videos.

Only regular files inside the media root, only containers of a short list (a playlist would open
other files), a cap on pixels and on size. Frames are chosen by their number in the file: its
packets are counted first, without decoding them, because headers lie about the number of frames. A
frame that a seek returns is used only if it has the requested timestamp: in MPEG-TS, FLV and AVI
seeks land elsewhere. Cover images are ignored, non-square pixels are stretched, transparency
becomes white. PyAV is in the extra `captioning`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from datasets_mm.media.decode import (
    MAX_PIXELS,
    MAX_VIDEO_BYTES,
    Resample,
    UnusableError,
    center_crop,
    composite_on_white,
)
from datasets_mm.media_types import HEAD_BYTES, describe_other_content
from datasets_mm.sources.fingerprint import SourceError

MAX_BYTES: Final = MAX_VIDEO_BYTES
FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,asf,flv"
"""FFmpeg would otherwise try over 300 demuxers, HLS and concat among them."""

MAX_DECODED: Final = 20_000
"""Frames that are decoded from the start where seeks fail: 11 minutes at 30 a second."""
BACK_SECONDS: Final = (0, 2, 20)
"""Distances before the requested time at which seeks are aimed, one try after the other."""
NO_TIMES: Final = frozenset({"avi"})
"""Containers that store no presentation times: with B-frames theirs are guesses."""
ATTACHED_PICTURE: Final = 1 << 10
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC."""
LEAST_LOSS: Final = 0.25
"""Missing seconds at the end of a file from which on they are reported, if they are 5 % or more."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def require_av() -> Any:
    """PyAV, or SourceError with the remedy."""
    try:
        import av
    except ModuleNotFoundError:
        raise SourceError(
            "videos are read by PyAV, which is not installed; run: "
            "pip install 'workbench-mm[captioning]'"
        ) from None
    return av


def digest_file(file: Any, length: int) -> bytes:
    """Digest of an open file, which is wound back."""
    file.seek(0)
    digest_bytes = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=length)).digest()
    file.seek(0)
    return digest_bytes


@dataclass(frozen=True)
class Clip:
    """Frames of one video. `pixels`: uint8 [frames, size, size, 3]."""

    pixels: Pixels
    substitutes: str = ""
    """How many frames are stand-ins for others and which is the first; whether the file is cut off
    before its stated end, so that later frames are not among them. "": neither."""


def read_frames(file: Any, frames: int, size: int, resample: Resample) -> Pixels:
    """The pixels of `read_clip`.

    Raises:
        UnusableError: no video that can be decoded; the text is the reason.
    """
    return read_clip(file, frames, size, resample).pixels


def read_clip(file: Any, frames: int, size: int, resample: Resample) -> Clip:
    """`frames` frames of an open video.

    Frame i is number round(i (n - 1) / (frames - 1)) of n: first and last are among them, and a
    video of fewer frames gives some of them twice.

    Raises:
        UnusableError: no video that can be decoded; the text is the reason.
    """
    require_av()
    try:
        return _read_clip(file, frames, size, resample)
    except UnusableError:
        raise
    except Exception as error:
        # Demuxers and decoders meet hostile bytes: FFmpegError, ValueError, MemoryError and more.
        file.seek(0)
        content = describe_other_content(file.read(HEAD_BYTES))
        raise UnusableError(content or f"unreadable video ({type(error).__name__})") from None


def evenly_spaced(total: int, frames: int) -> list[int]:
    """Numbers of `frames` frames among `total`, first and last among them."""
    return [int(position) for position in np.linspace(0, total - 1, frames).round()]


@contextmanager
def _open_video(file: Any) -> Iterator[tuple[Any, Any]]:
    """(container, video stream) of the file from its start."""
    file.seek(0)
    with require_av().open(file, "r", options={"format_whitelist": FORMATS}) as container:
        stream = next(
            (candidate for candidate in container.streams.video if not _is_cover(candidate)), None
        )
        if stream is None:
            sound = bool(container.streams.audio)
            raise UnusableError("audio without a picture" if sound else "no video stream")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise UnusableError(f"more than {MAX_PIXELS // 1_000_000} Mpx")
        yield container, stream


def _is_cover(stream: Any) -> bool:
    """A picture of a disc's or a video's cover, which FFmpeg lists as a video, often the first."""
    return bool(int(getattr(stream, "disposition", 0)) & ATTACHED_PICTURE)


def _read_clip(file: Any, frames: int, size: int, resample: Resample) -> Clip:
    with _open_video(file) as (container, stream):
        times, is_ordered, end = _read_times(container, stream)
        loss, aspect = _describe_loss(container, stream, end), _pixel_aspect(stream)
        if not times:
            raise UnusableError("zero frames")
        guessed = container.format.name in NO_TIMES and bool(stream.codec_context.has_b_frames)
        by_time = is_ordered and not guessed
        matches = FrameMatch(
            {number: times[number] for number in evenly_spaced(len(times), frames)}
        )
        if by_time:
            _seek(container, stream, matches, budget=max(len(times), 1000))
    total = len(times)
    if not by_time:
        matches, total = _match_by_number(file, frames, total)
    elif not matches.is_exact:
        with _open_video(file) as (container, stream):
            _decode_all(container, stream, matches, total, by_time=True)
    if not matches.frames:
        raise UnusableError("zero frames")
    pixels = {
        number: _to_pixels(frame, aspect, size, resample)
        for number, frame in matches.frames.items()
    }
    notes = filter(None, [matches.describe_substitutes(total), loss])
    return Clip(
        np.stack([pixels[number] for number in evenly_spaced(total, frames)]), "; ".join(notes)
    )


def _read_times(container: Any, stream: Any) -> tuple[list[int], bool, float]:
    """(sorted presentation times, whether they identify all frames, end in seconds).

    Those of files that were joined jump back, and come twice. The end is that of sound too.
    """
    times: list[int] = []
    is_ordered, last, end = True, None, 0.0
    covers = {video.index for video in container.streams.video if _is_cover(video)}
    for packet in container.demux():
        time = _presentation_time(packet)
        if not packet.size or time is None or packet.stream.index in covers:
            continue
        end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index or packet.is_discard:
            continue
        times.append(time)
        if packet.dts is not None:
            is_ordered = is_ordered and (last is None or packet.dts >= last)
            last = packet.dts
    return sorted(times), is_ordered and len(set(times)) == len(times), end


def _describe_loss(container: Any, stream: Any, end: float) -> str:
    """One clause if the file ends long before the end that its header states; "": it does not."""
    stated = (container.duration or 0) / 1e6
    actual_end = max(end, end - (container.start_time or 0) / 1e6)  # Matroska counts from zero
    frame = 1 / float(stream.average_rate or 1)
    if stated - actual_end <= max(LEAST_LOSS, 0.05 * stated, 2 * frame):
        return ""
    return (
        f"the file ends after {actual_end:.1f} of {stated:.1f} seconds: copy or download it again"
    )


def _pixel_aspect(stream: Any) -> float:
    """Width of a pixel by its height; values that no screen has are not believed."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / 4 <= aspect <= 4 else 1.0


def _match_by_number(file: Any, frames: int, total: int) -> tuple[FrameMatch, int]:
    """(frames by their number from the start, how many there are): packets may hold none."""
    while True:
        match = FrameMatch(dict.fromkeys(evenly_spaced(total, frames), 0))
        with _open_video(file) as (container, stream):
            count = _decode_all(container, stream, match, total, by_time=False)
        if match.is_exact or not 0 < count < min(total, MAX_DECODED):
            return match, total
        total = count


class FrameMatch:
    """The decoded frame nearest to each requested timestamp. `times`: frame number -> time."""

    def __init__(self, times: dict[int, int]) -> None:
        self.times = times
        self.frames: dict[int, Any] = {}
        self.distance: dict[int, int] = {}

    @property
    def is_exact(self) -> bool:
        """Every requested frame was decoded."""
        return all(self.distance.get(number) == 0 for number in self.times)

    def add_candidate(self, frame: Any, time: int) -> None:
        """Keep the frame where it is nearer than the present one; a corrupt one is never exact."""
        for number, target in self.times.items():
            distance = abs(time - target) + bool(frame.is_corrupt)
            if number not in self.distance or distance < self.distance[number]:
                self.distance[number], self.frames[number] = distance, frame

    def set_frame(self, number: int, frame: Any, distance: int) -> None:
        """Set the frame of a requested number."""
        self.distance[number], self.frames[number] = distance, frame

    def describe_substitutes(self, total: int) -> str:
        """One clause about substituted frames; "": there are none."""
        substituted = [number for number in sorted(self.times) if self.distance.get(number) != 0]
        if not substituted:
            return ""
        return (
            f"{len(substituted)} of {len(self.times)} frames could not be decoded and their "
            f"nearest stand in for them (first: frame {substituted[0] + 1} of {total})"
        )


def _seek(container: Any, stream: Any, match: FrameMatch, budget: int) -> None:
    """Match frames by seeking; a seek that lands too late is retried from further back."""
    for target in sorted(match.times.values()):
        for seconds in BACK_SECONDS:
            aim = target - int(seconds / stream.time_base) if seconds else target
            try:
                container.seek(aim, stream=stream, backward=True)
            except require_av().FFmpegError:
                continue  # no index, or no frame at this place: the file is decoded from its start
            first = None
            for frame in _frames(container, stream):
                budget -= 1
                if (time := _presentation_time(frame)) is None:
                    continue
                first = time if first is None else first
                match.add_candidate(frame, time)
                if time >= target or budget <= 0:
                    break
            if budget <= 0:
                return
            if first is not None and first <= target:
                break


def _decode_all(
    container: Any, stream: Any, match: FrameMatch, total: int, *, by_time: bool
) -> int:
    """Decode from the start; match by number if there are `total` frames, else by timestamp."""
    by_number: dict[int, Any] = {}
    count, last = 0, None
    for frame in _frames(container, stream):
        time = _presentation_time(frame)
        if count in match.times and not frame.is_corrupt:
            by_number[count] = frame
        if by_time and time is not None:
            match.add_candidate(frame, time)
        count, last = count + 1, frame
        if count >= MAX_DECODED:
            break
    if not by_time or count == total:
        for number in match.times:
            if number in by_number:
                match.set_frame(number, by_number[number], 0)
            elif not by_time and last is not None:
                match.set_frame(number, last, 1)
    return count


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Every frame from here on; a damaged packet costs its own frames only."""
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except require_av().FFmpegError:
            continue
        yield from decoded


def _to_pixels(frame: Any, aspect: float, size: int, resample: Resample) -> Pixels:
    """`aspect`: of a pixel, before the frame is turned."""
    if any(component.is_alpha for component in frame.format.components):
        image = composite_on_white(Image.fromarray(frame.to_ndarray(format="rgba")))
    else:
        image = frame.to_image()
    if turn := int(getattr(frame, "rotation", 0) or 0):
        image = image.rotate(turn, expand=True)
        aspect = 1 / aspect if turn % 180 else aspect
    return center_crop(image, size, resample, aspect)


def _presentation_time(part: Any) -> int | None:
    """Presentation time of a packet or frame; in AVI the decoding time."""
    time: int | None = part.dts if part.pts is None else part.pts
    return time
