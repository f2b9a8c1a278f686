"""What a run found, as a table in Markdown and as a plot (SVG by hand; PNG if matplotlib is there)."""

import math
import statistics

COLOURS = ["#888888", "#d1242f", "#8250df", "#bf8700", "#0969da", "#1a7f37", "#bc4c00"]
HEADINGS = ["system", "messages/s (least to most)", "of the floor", "p50 ms", "p99 ms", "p99.9 ms", "messages per server-core-second"]
HEADINGS += ["device bytes per payload byte", "RSS, without file pages, MB"]


def median(runs, key):
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def cells(runs):
    """Runs by size, outstanding and system."""
    found = {}
    for run in runs:
        found.setdefault((run["size"], run["outstanding"]), {}).setdefault(run["system"], []).append(run)
    return found


def ratio_to_floor(runs, floor):
    """The median over rounds: each run is compared with the floor's of its own round, minutes away."""
    by_round = {run["round"]: run["msgs_per_s"] for run in floor}
    ratios = [run["msgs_per_s"] / by_round[run["round"]] for run in runs if by_round.get(run["round"])]
    return statistics.median(ratios) if ratios else None


def short(value, digits=3):
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def row(system, runs, floor):
    rates = [run["msgs_per_s"] for run in runs]
    spread = f"{short(statistics.median(rates))} ({short(min(rates))} to {short(max(rates))})"
    memory = [median(runs, "rss"), median(runs, "anon")]
    memory = ", ".join("-" if value is None else f"{value / 1e6:.0f}" for value in memory)
    ratio = ratio_to_floor(runs, floor)
    refused = sum(run.get("errors", 0) for run in runs)
    name = system + (f" ({refused} refused)" if refused else "")
    times = [short(median(runs, key)) for key in ("p50_ms", "p99_ms", "p999_ms")]
    per_core, device = short(median(runs, "per_core")), short(median(runs, "device_per_payload"))
    return [name, spread, short(ratio), *times, per_core, device, memory]


def markdown(found):
    lines = [f"`{found['command']}`, {found['when']}, {found['machine']}.", ""]
    lines += [f"- {note}" for note in found["notes"]] + [""]
    for (size, outstanding), systems in sorted(cells(found["runs"]).items()):
        lines += [f"### {size} bytes, {outstanding} outstanding", "", "| " + " | ".join(HEADINGS) + " |"]
        lines.append("|" + "---|" * len(HEADINGS))
        floor = systems.get("floor", [])
        lines += ["| " + " | ".join(row(name, runs, floor)) + " |" for name, runs in systems.items()] + [""]
    lines += ["### The limits, beside it", "", "| limit | median (least to most) |", "|---|---|"]
    for name in dict.fromkeys(limit["name"] for limit in found["limits"]):
        values = [limit["value"] for limit in found["limits"] if limit["name"] == name]
        lines.append(f"| {name} | {short(statistics.median(values))} ({short(min(values))} to {short(max(values))}) |")
    lines += ["", "### What an acknowledgement means", "", "| system | acknowledged when |", "|---|---|"]
    lines += [f"| {name} | {meaning} |" for name, meaning in found["acknowledged"].items()]
    return "\n".join(lines) + "\n"


def series(found, size):
    """Per system: points of outstanding, median, least, most."""
    lines = {}
    for (cell_size, outstanding), systems in sorted(cells(found["runs"]).items()):
        if cell_size == size:
            for name, runs in systems.items():
                rates = [run["msgs_per_s"] for run in runs]
                lines.setdefault(name, []).append((outstanding, statistics.median(rates), min(rates), max(rates)))
    return lines


def plotted_size(found):
    """The size with the most points."""
    sizes = [size for size, _ in cells(found["runs"])]
    return max(sizes, key=lambda size: (sizes.count(size), size == 1024))


def svg(found):
    width, height, left, right, top, bottom = 860, 480, 80, 240, 40, 60
    size = plotted_size(found)
    lines = series(found, size)
    rates = [rate for points in lines.values() for point in points for rate in point[1:] if rate > 0]
    levels = sorted({point[0] for points in lines.values() for point in points})
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    x_of = lambda level: left + (width - left - right) * (levels.index(level) / max(1, len(levels) - 1))
    y_of = lambda rate: height - bottom - (height - top - bottom) * (math.log10(max(rate, 10**low)) - low) / max(1, high - low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">']
    out.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    text = lambda x, y, words, more="": out.append(f'<text x="{x:.1f}" y="{y:.1f}" {more}>{words}</text>')
    text(left, 22, f"Acknowledged messages a second, {size} bytes, three nodes on one machine", 'font-size="15"')
    for power in range(low, high + 1):
        y = y_of(10**power)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}" stroke="#ddd"/>')
        text(left - 8, y + 4, f"{10**power:,}", 'text-anchor="end"')
    for level in levels:
        text(x_of(level), height - bottom + 20, f"{level:,}", 'text-anchor="middle"')
    text((left + width - right) / 2, height - 14, "messages outstanding", 'text-anchor="middle"')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_of(p[0]):.1f},{y_of(p[1]):.1f}" for p in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for level, middle, least, most in points:
            x = x_of(level)
            out.append(f'<line x1="{x:.1f}" y1="{y_of(least):.1f}" x2="{x:.1f}" y2="{y_of(most):.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y_of(middle):.1f}" r="4" fill="{colour}"/>')
        y = top + 14 + 22 * number
        out.append(f'<rect x="{width - right + 20}" y="{y - 9}" width="14" height="10" fill="{colour}"/>')
        text(width - right + 40, y, name)
    return "\n".join([*out, "</svg>"]) + "\n"


def png(found, path):
    """Writes a PNG; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = plotted_size(found)
    figure, axes = pyplot.subplots(figsize=(9, 5))
    for number, (name, points) in enumerate(series(found, size).items()):
        levels, middle, least, most = zip(*points)
        spread = [[m - l for m, l in zip(middle, least)], [h - m for m, h in zip(middle, most)]]
        axes.errorbar(levels, middle, spread, label=name, marker="o", capsize=3, color=COLOURS[number % len(COLOURS)])
    axes.set(xscale="log", yscale="log", xlabel="messages outstanding", ylabel="acknowledged messages a second")
    axes.set_title(f"{size} bytes, three nodes on one machine")
    axes.set_xticks(levels, [str(level) for level in levels])
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110, bbox_inches="tight")
    return True
