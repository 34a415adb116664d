"""Numbers of bytes as people read them."""

from __future__ import annotations


def shown_size(size: int) -> str:
    """In GB, MB or bytes, by powers of ten."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
