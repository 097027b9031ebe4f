"""A run against the stored figures: ratios, because no two runs have the same machine."""

from typing import Any

_NOTEWORTHY = 0.10
# Latencies are compared with its.
_LIMIT = "async-nats pull (Rust)"


def comparison(summary: dict[str, Any], stored: dict[str, Any]) -> str:
    """Each contestant's ratio to its limit, now and then; empty where nothing can be compared."""
    now, then = _ratios(summary), _ratios(stored)
    both = [name for name in now if then.get(name)]
    if not both:
        return ""
    rows = [(name, now[name], then[name], now[name] / then[name] - 1) for name in both]
    lines = [f"{_what(summary)}, in this run and in the stored one of {stored['date']}:"]
    for name, new, old, change in rows:
        mark = "  <-- changed" if abs(change) > _NOTEWORTHY else ""
        lines.append(f"  {name:<44} {new:.2f}  {old:.2f}  {change:+.0%}{mark}")
    changed = sum(abs(change) > _NOTEWORTHY for *_, change in rows)
    lines.append(
        f"{changed or 'None'} of {len(rows)} changed by more than {_NOTEWORTHY:.0%}"
        " (a disturbed run may, without any reason in the code)."
    )
    return "\n".join(lines) + "\n"


def _ratios(summary: dict[str, Any]) -> dict[str, float]:
    """By contestant; where messages come at a pace, all rates are the same and latencies count."""
    played = [each for each in summary["contestants"] if "rate" in each]
    timed = [each for each in played if "latency_ms" in each]
    if not timed:
        return {each["name"]: each["of_limit"] for each in played if each["of_limit"]}
    if timed[0]["name"] != _LIMIT:
        return {}
    limit = timed[0]["latency_ms"]["p50"]
    return {each["name"]: each["latency_ms"]["p50"] / limit for each in timed}


def _what(summary: dict[str, Any]) -> str:
    if any("latency_ms" in each for each in summary["contestants"]):
        return f"The p50 latency as a multiple of {_LIMIT}'s"
    return "The share of the limit"
