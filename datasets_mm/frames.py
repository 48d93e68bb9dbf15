"""Old path of `datasets_mm.media.video_frames`, kept for one release."""

from datasets_mm.media.video_frames import evenly_spaced as evenly
from datasets_mm.media.video_frames import read_frames as read

__all__ = ["evenly", "read"]
