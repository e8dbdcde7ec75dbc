"""How much a small file may unpack to."""

from __future__ import annotations

import gzip
import io

MAX_RATIO = 1032  # bytes that deflate can make of one, at most


def can_hold(compressed: int, content: int) -> bool:
    """Whether so many compressed bytes can unpack to so many, by the best that deflate can do."""
    return content <= MAX_RATIO * (compressed + 64)


class Bounded(io.RawIOBase):
    """A stream that ends with an error after `limit` bytes.

    Raises:
        OSError: on reading, there is more.
    """

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        content = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise OSError(f"it unpacks to more than {self._limit} bytes")
        return content
