"""Old path of `datasets_mm.media.decode`, kept for one release."""

from datasets_mm.media.decode import UnusableError, decode

__all__ = ["UnusableError", "decode"]
