"""The figures as a Markdown table."""

from typing import Any

# Decimals of larger figures are noise.
_LARGE = 100


def table(summary: dict[str, Any]) -> str:
    """The table of a workload, and below it what it was measured on and who is missing."""
    played = [each for each in summary["contestants"] if "rate" in each or "figures" in each]
    with_latencies = any("latency_ms" in each for each in played)
    columns = _LATENCY if with_latencies else _THROUGHPUT
    if summary["is_about_memory"]:
        columns = columns | _MEMORY
    if played and "figures" in played[0]:
        columns = {name: _figure(name) for name in played[0]["figures"]}
    lines = [
        "| " + " | ".join(["contestant", *columns]) + " |",
        "|---|" + "---:|" * len(columns),
        *(_row(each, columns) for each in played),
        "",
        _measured_on(summary),
    ]
    lines += [
        f"\nNot measured: {each['name']} ({each['failure']})."
        for each in summary["contestants"]
        if each["failure"]
    ]
    return "\n".join(lines) + "\n"


def _latency(quantile: str) -> Any:
    return lambda each: f"{each['latency_ms'][quantile]:.2f}"


def _figure(name: str) -> Any:
    return lambda each: _rounded(each["figures"][name])


def _rounded(value: float) -> str:
    if value >= _LARGE:
        return f"{value:,.0f}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


_SHARED = {
    "worker CPU, s / 100,000": lambda each: f"{each['worker_cpu']:.2f}",
    "server CPU, s / 100,000": lambda each: f"{each['server_cpu']:.2f}",
    "peak RSS, MiB": lambda each: f"{each['rss_mib']}",
}
_THROUGHPUT = {
    "messages / s": lambda each: f"{each['rate']:,}",
    "of the limit": lambda each: "" if each["of_limit"] is None else f"{each['of_limit']:.2f}",
    **_SHARED,
    "messages": lambda each: f"{each['messages']:,}",
}
_MEMORY = {"grown by, MiB": lambda each: f"{each['rss_growth_mib']:.1f}"}
_LATENCY = {
    f"{quantile}, ms": _latency(quantile) for quantile in ("p50", "p90", "p99", "p99.9", "max")
} | _SHARED


def _row(each: dict[str, Any], columns: dict[str, Any]) -> str:
    return "| " + " | ".join([each["name"], *(show(each) for show in columns.values())]) + " |"


def _measured_on(summary: dict[str, Any]) -> str:
    machine = summary["machine"]
    versions = [
        f"{package} {version}" + (f" ({name})" if package == "python" else "")
        for name, packages in machine["versions"].items()
        for package, version in packages.items()
    ]
    servers = [f"{name} {version}" for name, version in machine["servers"].items()]
    return (
        f"{summary['date']}, commit {machine['commit']}, "
        f"medians of {summary['rounds']} interleaved rounds, "
        f"{machine['cores']} cores ({machine['cpu']}), {machine['system']}, "
        f"{', '.join(servers)}; {', '.join(dict.fromkeys(versions))}."
    )
