"""Durations, memory and prices in words for people."""


def rough_duration(seconds: float) -> str:
    """As exact as an estimate is: to 5 s below a minute and a half, then to a quarter of a minute, minutes, ….

    >>> [rough_duration(s) for s in (3, 41, 118, 700, 5000)]
    ['3 s', '40 s', '2 min', '12 min', '1 h 20 min']
    """
    if seconds < 10:
        return f"{seconds:.0f} s"
    if seconds < 90:
        return f"{5 * round(seconds / 5)} s"
    if seconds < 5 * 60:
        quarters = round(seconds / 15)
        return f"{quarters // 4} min" + (f" {15 * (quarters % 4)} s" if quarters % 4 else "")
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    tens = round(minutes / 10)
    return f"{tens // 6} h" + (f" {10 * (tens % 6)} min" if tens % 6 else "")


def gigabytes(count: float) -> str:
    """Bytes in GB of 10^9."""
    return f"{count / 1e9:.1f} GB"


def dollars(value: float | None) -> str:
    """US dollars; a dash where no price is known."""
    return "–" if value is None else f"${value:.2f}" if value >= 0.1 else f"${value:.4f}"
