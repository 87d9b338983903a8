"""What the demo shows: the live table, and the summary in words. Draws; measures nothing."""

from collections import defaultdict
from typing import Any

from rich.table import Table
from rich.text import Text

WHERE = {"SERVER": "serves", "CLIENT": "calls"}


def service_table(
    rows: list[dict[str, Any]], before: list[dict[str, Any]], between_s: float, load: dict[str, Any], total: int
) -> Table:
    """One line per service, kind and protocol. before: the rows of between_s seconds ago; load: the generator's report."""
    earlier = {_key(row): row["requests"] for row in before}
    title = f"{load['answered']:,} of {total:,} requests answered"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("service", "", "protocol"):
        table.add_column(name, no_wrap=True)
    for name in ("requests", "req/s", "p50", "p99", "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(rows, key=_key):
        rate = (row["requests"] - earlier.get(_key(row), 0)) / between_s if between_s > 0 else 0.0
        table.add_row(
            row["service"] or "?",
            WHERE.get(row["kind"], row["kind"].lower()),
            row["protocol"],
            f"{row['requests']:,}",
            f"{rate:,.0f}",
            milliseconds(row["p50_ns"]),
            milliseconds(row["p99_ns"]),
            Text(f"{row['errors']:,}", style="red" if row["errors"] else ""),
        )
    return table


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["service"] or "", row["kind"], row["protocol"]


def milliseconds(ns: float) -> str:
    return f"{ns / 1e6:.2f} ms"


def summary_table(summary: dict[str, Any]) -> Table:
    """The summary in words."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    sent, captured = summary["requests_sent"], summary["requests_captured"]
    share = f"{100 * captured / sent:.2f} %" if sent else "-"
    table.add_row("requests", _good(captured == sent, f"{captured:,} captured of {sent:,} sent ({share})"))
    table.add_row("lost", _good(summary["events_lost"] == 0, f"{summary['events_lost']:,} events {summary['losses'] or ''}"))
    table.add_row("ledger", _good(summary["ledger_balanced"], "balances" if summary["ledger_balanced"] else "does not balance"))
    complete, incomplete, wrong = (summary[f"traces_{kind}"] for kind in ("complete", "incomplete", "wrong"))
    table.add_row("traces", _good(wrong == 0, f"{complete:,} complete, {incomplete:,} incomplete, {wrong:,} with a wrong parent"))
    for reason, n in list(summary["incomplete_because"].items())[:4]:
        table.add_row("", f"{n:,} without {reason}")
    if incomplete:
        table.add_row("", "[dim]where requests meet in one event loop (asyncio), a parent is left open rather than guessed[/dim]")
    for name, link in summary["links"].items():
        table.add_row("link", f"{name}: " + ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(link.items(), reverse=True)))
    table.add_row("spans", ", ".join(f"{service} {n:,}" for service, n in summary["spans_by_service"].items()))
    table.add_row(
        "agent",
        f"{100 * summary['agent_cpu_share']:.1f} % of a processor, {summary['agent_rss_peak_bytes'] / (1 << 20):.0f} MiB at most",
    )
    others = {name: summary[f"{name}_cpu_s"] for name in ("server", "services", "load")}
    table.add_row("others", ", ".join(f"{name} {cpu_s:.1f} s" for name, cpu_s in others.items()) + " of processor time")
    latency = summary["latency_ms"]
    if latency["p50"] is not None:
        table.add_row("latency", f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, as the load generator saw it")
    return table


def _good(good: bool, text: str) -> Text:
    return Text(text.rstrip(), style="green" if good else "bold red")


def counted(links: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Counters as plain dictionaries, for JSON."""
    plain: dict[str, dict[str, int]] = defaultdict(dict)
    for name, counter in links.items():
        plain[name] = dict(counter)
    return dict(plain)
