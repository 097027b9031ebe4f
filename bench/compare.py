"""A run against the stored figures: ratios, because no two runs have the same machine."""

from typing import Any

_NOTEWORTHY = 0.10


def comparison(summary: dict[str, Any], stored: dict[str, Any]) -> str:
    """Each contestant's share of the limit, now and then."""
    before = {each["name"]: each.get("of_limit") for each in stored["contestants"]}
    lines = [f"Share of the limit, now and on {stored['date']}:"]
    for each in summary["contestants"]:
        now, then = each.get("of_limit"), before.get(each["name"])
        if now is None or not then:
            continue
        change = now / then - 1
        mark = "  <--" if abs(change) > _NOTEWORTHY else ""
        lines.append(f"  {each['name']:<32} {now:.2f}  {then:.2f}  {change:+.0%}{mark}")
    return "\n".join(lines) + "\n"
