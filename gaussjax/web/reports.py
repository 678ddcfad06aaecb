"""Reports of runs as pages: tables that sort, curves, pairs of pictures under a wipe. Values in, HTML out."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gaussjax.web import pages

WIDTH, HEIGHT = 640, 360  # of a plot, in CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 60, 150, 12, 44  # of its margins, the right one for the names of curves
HUES = ("#3b7dd8", "#d9822b", "#3f9a6b", "#b452a4", "#c0392b", "#8a8f98", "#c9a227", "#3aa6b9")


class Pair(NamedTuple):
  """Two pictures of one size to be compared, as addresses (`pages.address`)."""

  original: str
  drawn: str
  words: str  # what they are, for who cannot see them


class Plot(NamedTuple):
  """Curves of (x, y) points by name."""

  x: str  # what is on the axis, with its unit
  y: str
  curves: Mapping[str, Sequence[tuple[float, float]]]
  log_x: bool = False


class Table(NamedTuple):
  """Rows of text, numbers (shown to `digits`), pairs of pictures and None."""

  columns: Sequence[str]
  rows: Sequence[Sequence[Any]]
  digits: int = 3


def report(title: str, parts: Sequence[tuple[str, Any]]) -> str:
  """A page of parts, each a heading and a Table, a Plot, a Pair or text, in their order."""
  body = "\n".join(f"<h2>{html.escape(heading)}</h2>\n{_part(part)}" for heading, part in parts)
  return page(title, body, "report.js")


def page(title: str, body: str, program: str, *, connect: str = "") -> str:
  """A page of a `body` in HTML; `connect` is more of its policy of content."""
  style, script = pages.source("report.css"), pages.script(program)
  values = {"title": html.escape(title), "style": style, "body": body, "script": script, "connect": connect}
  return pages.filled(pages.source("report.html"), values)


def _part(part: Any) -> str:
  if isinstance(part, Table):
    return _table(part)
  if isinstance(part, Plot):
    return f"<figure>{plot(part)}</figure>"
  return _pair(part) if isinstance(part, Pair) else f'<p class="note">{html.escape(str(part))}</p>'


def _table(table: Table) -> str:
  heads = "".join(_head(name, [row[i] for row in table.rows]) for i, name in enumerate(table.columns))
  rows = "\n".join(f"<tr>{''.join(_cell(value, table.digits) for value in row)}</tr>" for row in table.rows)
  whole = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
  return f'<div class="wide">{whole}</div>'


def _head(name: str, values: Sequence[Any]) -> str:
  kind = ' class="text"' if any(isinstance(value, str | Pair) for value in values) else ""
  return f'<th scope="col"{kind}><button type="button">{html.escape(name)}</button></th>'


def _cell(value: Any, digits: int) -> str:
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return '<td data-value="">-</td>'
  if isinstance(value, Pair):
    return f'<td class="text" data-value="">{_pair(value)}</td>'
  if isinstance(value, float):
    return f'<td data-value="{value!r}">{value:.{digits}f}</td>'
  kind = "" if isinstance(value, int) else ' class="text"'
  return f"<td{kind}>{html.escape(str(value))}</td>"


def _pair(pair: Pair) -> str:
  words = html.escape(pair.words)
  return (
    f'<div class="pair"><img src="{pair.drawn}" alt="{words}" loading="lazy">'
    f'<img src="{pair.original}" alt="" loading="lazy"><input type="range" min="0" max="100" step="any" value="50" '
    f'aria-label="Wipe from {words} to its original"></div>'
  )


def plot(plot: Plot) -> str:
  """An SVG of curves, with axes and names."""
  curves = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in plot.curves.items()}
  points = [point for of in curves.values() for point in of if not plot.log_x or point[0] > 0]
  if not points:
    return "<p>no points</p>"
  warp = math.log10 if plot.log_x else float
  (x0, x1), (y0, y1) = (_span([f(p[i]) for p in points]) for i, f in ((0, warp), (1, float)))
  across = lambda x: LEFT + (WIDTH - LEFT - RIGHT) * (warp(x) - x0) / (x1 - x0)
  down = lambda y: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y0) / (y1 - y0)
  parts = _axes(plot, across, down, (x0, x1), (y0, y1))
  for index, (name, of) in enumerate(curves.items()):
    hue, places = HUES[index % len(HUES)], [(across(x), down(y), x, y) for x, y in of if not plot.log_x or x > 0]
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in places)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{hue}" stroke-width="1.6"/>')
    tell = lambda x, y, name=name: html.escape(f"{name}: {x:.4g}, {y:.4g}")
    for px, py, x, y in places if len(places) <= 60 else []:
      parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{hue}"><title>{tell(x, y)}</title></circle>')
    at = TOP + 10 + 18 * index
    parts.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{at - 8}" width="10" height="10" fill="{hue}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT + 28}" y="{at + 1}">{html.escape(name)}</text>')
  words = html.escape(f"{plot.y} against {plot.x}: {', '.join(curves)}")
  return (
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{words}">{"".join(parts)}</svg>'
  )


def _span(values: Sequence[float]) -> tuple[float, float]:
  """The least and the greatest value, apart."""
  low, high = min(values), max(values)
  return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axes(plot: Plot, across: Any, down: Any, xs: tuple[float, float], ys: tuple[float, float]) -> list[str]:
  right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
  parts = []
  for y in _ticks(*ys):
    parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>')
    parts.append(f'<text x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
  powers = (
    [float(f"{10**x:.2g}") for x in (xs[0] + (xs[1] - xs[0]) * i / 4 for i in range(5))] if plot.log_x else []
  )
  for x in powers or _ticks(*xs):
    parts.append(f'<line class="grid" y1="{TOP}" y2="{bottom}" x1="{across(x):.1f}" x2="{across(x):.1f}"/>')
    parts.append(f'<text x="{across(x):.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>')
  middle = (LEFT + right) / 2
  parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(plot.x)}</text>')
  upright = f'transform="translate(14 {(TOP + bottom) / 2}) rotate(-90)"'
  parts.append(f'<text {upright} text-anchor="middle">{html.escape(plot.y)}</text>')
  return parts


def _ticks(low: float, high: float) -> list[float]:
  """Four to ten round numbers within a span."""
  rough = (high - low) / 5
  unit = 10 ** math.floor(math.log10(rough))
  step = next(unit * by for by in (1, 2, 5, 10) if unit * by >= rough)
  return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
