"""The figures as a bar chart: an SVG without any library."""

from html import escape
from typing import Any

_WIDTH, _LABEL, _BAR, _GAP, _TOP = 980, 370, 18, 8, 40
_ROOM = _WIDTH - _LABEL - 110
_COLOURS = {"ours": "#2b6cb0", "Rust": "#a0aec0", "alone": "#a0aec0", "": "#ed8936"}


def chart(summary: dict[str, Any]) -> str:
    """One bar for each contestant, the longest first."""
    bars = sorted(_bars(summary), key=lambda bar: -bar[1])
    longest = max((value for _, value in bars), default=1.0)
    height = _TOP + len(bars) * (_BAR + _GAP) + _GAP
    title = f"{summary['workload']}: {_unit(summary)}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13">',
            f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
            f'<text x="8" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
            *(_bar(row, *bar, longest) for row, bar in enumerate(bars)),
            "</svg>\n",
        ]
    )


def _bars(summary: dict[str, Any]) -> list[tuple[str, float]]:
    played = [each for each in summary["contestants"] if "rate" in each or "figures" in each]
    return [(each["name"], _value(summary, each)) for each in played]


def _value(summary: dict[str, Any], contestant: dict[str, Any]) -> float:
    if "figures" in contestant:
        first, *_ = contestant["figures"].values()
        return float(first)
    if summary["is_about_memory"]:
        return float(contestant["rss_growth_mib"])
    return float(contestant.get("latency_ms", {}).get("p99") or contestant["rate"])


def _unit(summary: dict[str, Any]) -> str:
    own = [each["figures"] for each in summary["contestants"] if "figures" in each]
    if own:
        first, *_ = own[0]
        return str(first)
    if summary["is_about_memory"]:
        return "memory grown by, MiB"
    if any("latency_ms" in each for each in summary["contestants"]):
        return "p99 latency, milliseconds"
    return "messages per second"


def _bar(row: int, name: str, value: float, longest: float) -> str:
    top = _TOP + row * (_BAR + _GAP)
    length = max(1, round(_ROOM * max(value, 0) / longest))
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    colour = next(colour for word, colour in _COLOURS.items() if word in name)
    return (
        f'<text x="{_LABEL - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{_LABEL}" y="{top}" width="{length}" height="{_BAR}" fill="{colour}"/>'
        f'<text x="{_LABEL + length + 6}" y="{top + 14}">{shown}</text>'
    )
