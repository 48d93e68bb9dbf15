"""From a video file to a few frames, evenly spaced: the only place where videos are decoded.

Like decode.py for pictures this is what an attacker reaches: only regular files inside the media
root, only containers of a short list (a playlist would open other files), a cap on pixels and on
size. Frames are chosen by their number in the file: its packets are counted first, without decoding
them, because headers lie about the number of frames. A frame that a seek returns is taken only if
its timestamp is the one that was wanted: in MPEG-TS, FLV and AVI seeks land elsewhere. A cover
picture is no video, pixels that are no squares are shown as they are meant, transparency is white.
PyAV is in the extra `captions`.
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
    fitted,
    on_white,
)
from datasets_mm.media_types import HEAD_BYTES, other_content
from datasets_mm.sources.fingerprint import SourceError

MAX_BYTES: Final = MAX_VIDEO_BYTES
FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,asf,flv"
"""FFmpeg would otherwise try over 300 demuxers, HLS and concat among them."""

MAX_DECODED: Final = 20_000
"""Frames that are decoded from the start where seeks fail: 11 minutes at 30 a second."""
BACK_SECONDS: Final = (0, 2, 20)
"""How far before the wanted time a seek is aimed, one try after the other."""
NO_TIMES: Final = frozenset({"avi"})
"""Containers that store no presentation times: with B-frames theirs are guesses."""
ATTACHED_PICTURE: Final = 1 << 10
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC."""
LEAST_LOSS: Final = 0.25
"""Seconds at the end of a file whose loss is told, and more where they are less than 5 %."""

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


@dataclass(frozen=True)
class Clip:
    """Frames of one video. `pixels`: uint8 [frames, size, size, 3]."""

    pixels: Pixels
    substitutes: str = ""
    """How many frames are stand-ins for others and which is the first; whether the file is cut off
    before its stated end, so that later frames are not among them. "": neither."""


def read(file: Any, frames: int, size: int, resample: Resample) -> Pixels:
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
    need_av()
    try:
        return _read(file, frames, size, resample)
    except UnusableError:
        raise
    except Exception as error:
        # Demuxers and decoders meet hostile bytes: FFmpegError, ValueError, MemoryError and more.
        file.seek(0)
        other = other_content(file.read(HEAD_BYTES))
        raise UnusableError(other or f"unreadable video ({type(error).__name__})") from None


def evenly(total: int, frames: int) -> list[int]:
    """Numbers of `frames` frames among `total`, first and last among them."""
    return [int(place) for place in np.linspace(0, total - 1, frames).round()]


@contextmanager
def _opened(file: Any) -> Iterator[tuple[Any, Any]]:
    """(container, video stream) of the file from its start."""
    file.seek(0)
    with need_av().open(file, "r", options={"format_whitelist": FORMATS}) as container:
        stream = next((one for one in container.streams.video if not _is_cover(one)), None)
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


def _read(file: Any, frames: int, size: int, resample: Resample) -> Clip:
    with _opened(file) as (container, stream):
        times, is_ordered, end = _times(container, stream)
        loss, aspect = _loss(container, stream, end), _pixel_aspect(stream)
        if not times:
            raise UnusableError("zero frames")
        guessed = container.format.name in NO_TIMES and bool(stream.codec_context.has_b_frames)
        by_time = is_ordered and not guessed
        match = Match({number: times[number] for number in evenly(len(times), frames)})
        if by_time:
            _seek(container, stream, match, budget=max(len(times), 1000))
    total = len(times)
    if not by_time:
        match, total = _by_number(file, frames, total)
    elif not match.exact:
        with _opened(file) as (container, stream):
            _decode_all(container, stream, match, total, by_time=True)
    if not match.frames:
        raise UnusableError("zero frames")
    shown = {
        number: _fitted(frame, aspect, size, resample) for number, frame in match.frames.items()
    }
    notes = filter(None, [match.account(total), loss])
    return Clip(np.stack([shown[number] for number in evenly(total, frames)]), "; ".join(notes))


def _times(container: Any, stream: Any) -> tuple[list[int], bool, float]:
    """(presentation times in their order, whether they tell all frames apart, last end in seconds).

    Those of files that were joined jump back, and come twice. The end is that of sound too.
    """
    times: list[int] = []
    is_ordered, last, end = True, None, 0.0
    covers = {one.index for one in container.streams.video if _is_cover(one)}
    for packet in container.demux():
        time = _time(packet)
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


def _loss(container: Any, stream: Any, end: float) -> str:
    """One clause if the file ends long before the end that its header states; "": it does not."""
    stated = (container.duration or 0) / 1e6
    there = max(end, end - (container.start_time or 0) / 1e6)  # Matroska counts from zero
    frame = 1 / float(stream.average_rate or 1)
    if stated - there <= max(LEAST_LOSS, 0.05 * stated, 2 * frame):
        return ""
    return f"the file ends after {there:.1f} of {stated:.1f} seconds: copy or download it again"


def _pixel_aspect(stream: Any) -> float:
    """Width of a pixel by its height; values that no screen has are not believed."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / 4 <= aspect <= 4 else 1.0


def _by_number(file: Any, frames: int, total: int) -> tuple[Match, int]:
    """(frames by their number from the start, how many there are): packets may hold none."""
    while True:
        match = Match(dict.fromkeys(evenly(total, frames), 0))
        with _opened(file) as (container, stream):
            count = _decode_all(container, stream, match, total, by_time=False)
        if match.exact or not 0 < count < min(total, MAX_DECODED):
            return match, total
        total = count


class Match:
    """The decoded frame nearest to each wanted one, by timestamp. `times`: number -> its time."""

    def __init__(self, times: dict[int, int]) -> None:
        self.times = times
        self.frames: dict[int, Any] = {}
        self.distance: dict[int, int] = {}

    @property
    def exact(self) -> bool:
        """Every wanted frame was decoded."""
        return all(self.distance.get(number) == 0 for number in self.times)

    def offer(self, frame: Any, time: int) -> None:
        """Keep the frame wherever it is nearer than what is there; a corrupt one is never exact."""
        for number, target in self.times.items():
            distance = abs(time - target) + bool(frame.is_corrupt)
            if number not in self.distance or distance < self.distance[number]:
                self.distance[number], self.frames[number] = distance, frame

    def put(self, number: int, frame: Any, distance: int) -> None:
        """Set the frame of a wanted number."""
        self.distance[number], self.frames[number] = distance, frame

    def account(self, total: int) -> str:
        """One clause about the stand-ins; "": there is none."""
        lost = [number for number in sorted(self.times) if self.distance.get(number) != 0]
        if not lost:
            return ""
        return (
            f"{len(lost)} of {len(self.times)} frames could not be decoded and their nearest stand "
            f"in for them (first: frame {lost[0] + 1} of {total})"
        )


def _seek(container: Any, stream: Any, match: Match, budget: int) -> None:
    """Offer what seeks return; one that lands behind its aim is tried again from further back."""
    for target in sorted(match.times.values()):
        for seconds in BACK_SECONDS:
            aim = target - int(seconds / stream.time_base) if seconds else target
            try:
                container.seek(aim, stream=stream, backward=True)
            except need_av().FFmpegError:
                continue  # no index, or no frame at this place: the file is decoded from its start
            first = None
            for frame in _frames(container, stream):
                budget -= 1
                if (time := _time(frame)) is None:
                    continue
                first = time if first is None else first
                match.offer(frame, time)
                if time >= target or budget <= 0:
                    break
            if budget <= 0:
                return
            if first is not None and first <= target:
                break


def _decode_all(container: Any, stream: Any, match: Match, total: int, *, by_time: bool) -> int:
    """How many frames come from the start: by number if they are `total`, else by timestamp."""
    by_number: dict[int, Any] = {}
    count, last = 0, None
    for frame in _frames(container, stream):
        time = _time(frame)
        if count in match.times and not frame.is_corrupt:
            by_number[count] = frame
        if by_time and time is not None:
            match.offer(frame, time)
        count, last = count + 1, frame
        if count >= MAX_DECODED:
            break
    if not by_time or count == total:
        for number in match.times:
            if number in by_number:
                match.put(number, by_number[number], 0)
            elif not by_time and last is not None:
                match.put(number, last, 1)
    return count


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Every frame from here on; a damaged packet costs its own frames only."""
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except need_av().FFmpegError:
            continue
        yield from decoded


def _fitted(frame: Any, aspect: float, size: int, resample: Resample) -> Pixels:
    """`aspect`: of a pixel, before the frame is turned."""
    if any(component.is_alpha for component in frame.format.components):
        image = on_white(Image.fromarray(frame.to_ndarray(format="rgba")))
    else:
        image = frame.to_image()
    if turn := int(getattr(frame, "rotation", 0) or 0):
        image = image.rotate(turn, expand=True)
        aspect = 1 / aspect if turn % 180 else aspect
    return fitted(image, size, resample, aspect)


def _time(part: Any) -> int | None:
    """Presentation time of a packet or frame; AVI gives only that of decoding."""
    time: int | None = part.dts if part.pts is None else part.pts
    return time
