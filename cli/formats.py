"""Sizes, ages and durations as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

_FOREVER_DAYS = 20 * 365


def format_size(size: float) -> str:
    """Decimal units: `98 MB`, `1.3 GB`."""
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    if value >= 10 or round(value, 1) == int(value):
        return f"{int(value)} {unit}"
    return f"{value:.1f} {unit}"


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time of the API; None for the zero time and for what is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment if moment.year > 1 else None


def format_age(moment: datetime | None, now: datetime) -> str:
    """`3 weeks ago`, as `list` shows it."""
    return "Never" if moment is None else _format_distance(moment, now)


def format_expiry(moment: datetime | None, now: datetime) -> str:
    """`4 minutes from now`, as `ps` shows it; None never expires."""
    if moment is None or (moment - now).days > _FOREVER_DAYS:
        return "Forever"
    return "Stopping..." if moment <= now else _format_distance(moment, now)


def format_processor(size: int, size_vram: int) -> str:
    """Which part of a model is where: `100% GPU`, `48%/52% CPU/GPU`."""
    if size <= 0:
        return "Unknown"
    if size_vram <= 0:
        return "100% CPU"
    if size_vram >= size:
        return "100% GPU"
    on_cpu = min(99, max(1, round((size - size_vram) / size * 100)))
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def format_duration(nanoseconds: int) -> str:
    """`1.234s`, `85.2ms`, `2m3.4s`."""
    seconds = nanoseconds / 1e9
    if seconds < 1:
        return f"{nanoseconds / 1e6:.1f}ms" if nanoseconds >= 1e5 else f"{nanoseconds / 1e3:.1f}µs"
    if seconds < 60:
        return f"{seconds:.3f}s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{seconds:.1f}s" if hours else f"{minutes}m{seconds:.1f}s"


def _format_distance(moment: datetime, now: datetime) -> str:
    seconds = (moment - now).total_seconds()
    return f"{_format_span(abs(seconds))} {'from now' if seconds > 0 else 'ago'}"


def _format_span(seconds: float) -> str:
    if seconds < 1:
        return "Less than a second"
    minutes, hours, days = int(seconds / 60), int(seconds / 3600), int(seconds / 86400)
    if minutes == 0:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    if minutes == 1:
        return "About a minute"
    if hours == 0:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 2 * 365:
        return f"{days // 30} months"
    return f"{days // 365} years"
