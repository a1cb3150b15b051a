"""The figures as text for a terminal, and as one HTML file with charts that needs nothing else."""

import datetime
import html as escaped
import os
import pathlib
import subprocess

from targets import PGWEIR, program

YARDSTICK, FLOOR = "PgBouncer", "direct"
# Title, unit ({unit}: the case's own), value of the figures.
CHARTS = [
    ("Throughput", "{unit} per second", lambda figures: figures.rate),
    ("CPU of the proxy", "µs per {unit}", lambda figures: figures.cpu or None),
    ("CPU of proxy and servers", "µs per {unit}", lambda figures: figures.cpu_in_all),
    ("Latency, median", "ms", lambda figures: figures.p50),
    ("Latency, 99th percentile", "ms", lambda figures: figures.p99),
]
COLUMNS = ["rate", "p50 ms", "p99 ms", "proxy µs", "all µs"]
COLORS = {
    "direct": "#8a8f98", "relay": "#b9bec7", "echo": "#d3d7de", "PgBouncer": "#4c78a8", "Pgpool-II": "#e39a3b",
    "pgweir": "#2a9d6f", "pgweir split": "#7cc9a8",
}  # fmt: skip


def text(case, medians):
    """A table: each figure with its ratio to PgBouncer's and to the direct one."""
    head = f"\n{case.name} (rate in {plural(case.unit)} per second, CPU per {case.unit}; × PgBouncer, × direct)"
    lines = [head, f"  {'':<13}" + "".join(f"{column:>24}" for column in COLUMNS)]
    for name, figures in medians.items():
        cells = (with_ratios(medians, index, value) for index, value in enumerate(figures))
        lines.append(f"  {name:<13}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def memory_text(memory, count):
    lines = [f"\n{count:,} idle clients, KiB of memory for each (× PgBouncer)"]
    lines += [f"  {name:<13}{size / 1024:10.1f} {ratio(size, memory[YARDSTICK])}" for name, size in memory.items()]
    return "\n".join(lines)


def with_ratios(medians, index, value):
    if not value:
        return "–"
    return f"{number(value)} {ratio(value, medians[YARDSTICK][index])} {ratio(value, medians[FLOOR][index])}"


def ratio(value, other):
    return f"×{value / other:.2f}" if other else "–"


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def plural(unit):
    return {"query": "queries", "MB": "MB"}.get(unit, f"{unit}s")


def html(results, memory, options):
    sections = [
        f"<h2>{title}</h2><div class=charts>{''.join(charts(results, unit, value))}</div>" for title, unit, value in CHARTS
    ]
    if memory:
        sizes = {name: size / 1024 for name, size in memory.items()}
        title = f"{options.idle:,} idle clients"
        sections.append(f"<h2>Memory</h2><div class=charts>{chart(title, 'KiB per client', sizes)}</div>")
    tables = "".join(f"<pre>{escaped.escape(text(case, medians).strip())}</pre>" for case, medians in results)
    body = f"<h1>What a proxy costs</h1>{circumstances(options)}{''.join(sections)}<h2>All figures</h2>{tables}"
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>pgweir: what a proxy costs</title>{STYLE}{body}</html>\n"


def charts(results, unit, value):
    for case, medians in results:
        values = {name: value(figures) for name, figures in medians.items()}
        values = {name: value for name, value in values.items() if value is not None}
        if values:
            of = plural(case.unit) if unit.startswith("{") else case.unit
            yield chart(case.name, unit.format(unit=of), values)


def chart(title, unit, values):
    """Horizontal bars, one for each target."""
    widest, height = max(values.values()), 22 * len(values)
    bars = []
    for row, (name, value) in enumerate(values.items()):
        top, width = 22 * row, 190 * value / widest if widest else 0
        label = f"{number(value)} {ratio(value, values.get(YARDSTICK))}"
        bars.append(
            f'<text x=92 y={top + 14} class=name>{name}</text>'
            f'<rect x=98 y={top + 2} width={width:.1f} height=16 fill="{COLORS[name]}"/>'
            f"<text x={102 + width:.1f} y={top + 14}>{label}</text>"
        )
    picture = f'<svg viewBox="0 0 400 {height}" role=img>{"".join(bars)}</svg>'
    return f"<figure><figcaption>{escaped.escape(title)} <small>{unit}</small></figcaption>{picture}</figure>"


def circumstances(options):
    facts = [
        datetime.date.today().isoformat(),
        f"{os.cpu_count()} cores of {processor()}, Linux {os.uname().release}",
        *map(version, ["psql", "pgbouncer", "pgpool", PGWEIR]),
        f"medians over {options.rounds} rounds, {options.seconds} s for each run of pgbench",
        "bars are labelled with the value and its ratio to PgBouncer's",
    ]
    return f"<p>{'; '.join(map(escaped.escape, facts))}.</p>"


def version(name):
    """The first line that a program says of itself."""
    said = subprocess.run([program(name), "--version"], capture_output=True, text=True)
    return (said.stdout or said.stderr).partition("\n")[0]


def processor():
    names = [line.partition(":")[2] for line in pathlib.Path("/proc/cpuinfo").open() if line.startswith("model name")]
    return names[0].strip() if names else os.uname().machine


STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1300px; margin: 2em auto; padding: 0 1em; color: #1d2430; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(380px, 1fr)); gap: 1.2em; }
figure { margin: 0; } figcaption { font-weight: 600; } small, pre { color: #5b6472; }
svg { width: 100%; } svg text { font: 11px system-ui, sans-serif; fill: #1d2430; } .name { text-anchor: end; }
pre { overflow-x: auto; }
</style>"""
