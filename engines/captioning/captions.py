"""Old path of `datasets_mm.media_types.is_video`, kept for one release."""

from datasets_mm.media_types import is_video

__all__ = ["is_video"]
