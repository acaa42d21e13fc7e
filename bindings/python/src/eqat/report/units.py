"""How numbers are written."""

import math

from .figure import Quantity


def plain(value: float, digits: int = 4) -> str:
    """Significant digits, without an exponent where that is short."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 6:
        return f"{value:.{max(0, digits - 1 - size)}f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def tick(value: float) -> str:
    """A round number of an axis."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)) + 1e-9)
    if size >= 6 or size < -3:
        return f"{value / 10.0**size:.3g}e{size}"
    return f"{value:.10f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    value = share * 100
    if not math.isfinite(value):
        return "–"
    return f"{value:.0f}%" if abs(value) >= 99.5 else f"{value:.3g}%"


def size(count: float) -> str:
    """Bytes in decimal units."""
    if not math.isfinite(count):
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{plain(count / scale, 3)} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{plain(seconds, 2 if seconds < 1 else 3)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def quantity(value: float, digits: int = 4) -> Quantity:
    return Quantity(value, plain(value, digits))


def whole(value: float) -> Quantity:
    return Quantity(value, f"{value:.0f}" if math.isfinite(value) else "–")


def percentage(share: float) -> Quantity:
    return Quantity(share, percent(share))


def bytes_(count: float) -> Quantity:
    return Quantity(count, size(count))


def seconds(value: float) -> Quantity:
    return Quantity(value, duration(value))
