"""Plots as plain SVG, just enough for the reports: bars on a logarithmic scale, and lines on two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = {"fresh": "#1f6fb2", "reuse": "#1b9e77", "pg_cron": "#d95f02", "floor": "#8a8a8a"}
FALLBACK = "#555555"
FONT = 'font-family="sans-serif" font-size="12"'


def _colour(key: str) -> str:
    return COLOURS.get(key.split(":")[0], FALLBACK)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {FONT}>{escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _label(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """Groups of bars: label → side → (least, median, greatest), on a logarithmic scale."""
    values = [value for group in groups.values() for three in group.values() for value in three if value > 0]
    if not values:
        return _svg(300, 40, [_text(10, 25, f"{title}: nothing was measured")])
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    left, width, row = 190, 420, 17

    def place(value: float) -> float:
        return left + (math.log10(max(value, 10.0**low)) - low) / (high - low) * width

    parts, y = [_text(10, 20, f"{title} ({unit})")], 44
    top = y - 10
    for label, group in groups.items():
        parts.append(_text(10, y + 10, label))
        for side, (least, middle, greatest) in group.items():
            x = place(middle)
            parts.append(
                f'<rect x="{left}" y="{y}" width="{max(1.0, x - left):.1f}" height="{row - 4}" fill="{_colour(side)}"/>'
                f'<line x1="{place(least):.1f}" x2="{place(greatest):.1f}" y1="{y + 6.5}" y2="{y + 6.5}" stroke="black"/>'
            )
            parts.append(_text(max(x, place(greatest)) + 5, y + 11, f"{_label(middle)}  {side}"))
            y += row
        y += 8
    grid = [
        f'<line x1="{place(10.0**e):.1f}" x2="{place(10.0**e):.1f}" y1="{top}" y2="{y}" stroke="#dddddd"/>'
        + _text(place(10.0**e), y + 14, f"{10.0**e:g}", "middle")
        for e in range(low, high + 1)
    ]
    return _svg(left + width + 130, y + 25, [*grid, *parts])


def lines(title: str, x_name: str, y_name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines through points, both scales logarithmic: "side" or "side: what" → points."""
    points = [point for line in series.values() for point in line if point[0] > 0 and point[1] > 0]
    if not points:
        return _svg(300, 40, [_text(10, 25, f"{title}: nothing was measured")])
    left, top, width, height = 70, 40, 420, 260
    x_low, x_high = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    y_low = math.floor(math.log10(min(y for _, y in points)))
    y_high = max(y_low + 1, math.ceil(math.log10(max(y for _, y in points))))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / ((x_high - x_low) or 1)
        up = (math.log10(max(y, 10.0**y_low)) - y_low) / (y_high - y_low)
        return left + across * width, top + height - up * height

    parts = [_text(10, 20, f"{title} ({y_name})"), _text(left + width / 2, top + height + 34, x_name, "middle")]
    lowest = 0.0
    for e in range(y_low, y_high + 1):
        y = place(10**x_low, 10.0**e)[1]
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(left - 6, y + 4, f"{10.0**e:g}", "end"))
    for x in sorted({x for x, _ in points}):
        across = place(x, 10.0**y_low)[0]
        parts.append(_text(across, top + height + 16, f"{x:,g}", "middle"))
    drawn = {name: [place(x, y) for x, y in line if x > 0 and y > 0] for name, line in series.items()}
    # From the top down, so that each name can stand below the one before.
    for name, placed in sorted(drawn.items(), key=lambda item: item[1][-1][1] if item[1] else 0.0):
        if not placed:
            continue
        lowest = max(lowest + 14, placed[-1][1] + 4)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        dash = ' stroke-dasharray="5 3"' if ":" in name else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_colour(name)}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_colour(name)}"/>' for x, y in placed]
        parts.append(_text(placed[-1][0] + 8, lowest, name))
    return _svg(left + width + 170, top + height + 50, parts)
