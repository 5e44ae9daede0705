"""Bars as SVG, for light and dark pages: the colours are in one style sheet inside."""

from html import escape

STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 15px }
  .quiet { fill: #57606a; font-size: 12px }
  .ours { fill: #0969da } .theirs { fill: #afb8c1 }
  .spread { stroke: #24292f }
  .paper { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #9198a1 } .ours { fill: #4493f8 } .theirs { fill: #59636e }
    .spread { stroke: #e6edf3 } .paper { fill: #0d1117 }
  }
</style>"""
LABEL, WIDTH, BAR, GAP, HEAD = 250, 430, 18, 8, 34


def bars(title, groups, unit):
    """`groups`: (name, rows); a row: (name, lowest, median, highest, is ours). Each group has a
    scale of its own, since what is compared stands in one group."""
    lines, y = [], HEAD
    for name, rows in groups:
        y += 22
        lines.append(f'<text class="title" x="12" y="{y}">{escape(name)}</text>')
        y += 10
        scale = WIDTH / (max(row[3] for row in rows) or 1)
        for label, low, middle, high, ours in rows:
            kind = "ours" if ours else "theirs"
            at = lambda value: LABEL + value * scale
            lines.append(f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>')
            lines.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{max(middle * scale, 1.5):.1f}" height="{BAR}" rx="2"/>')
            if high > low:
                lines.append(f'<line class="spread" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{y + BAR / 2}" y2="{y + BAR / 2}"/>')
            end = at(max(high, middle)) + 6
            lines.append(f'<text x="{end:.1f}" y="{y + 13}">{number(middle)} {escape(unit)}</text>')
            y += BAR + GAP
        y += 4
    height, width = y + 8, LABEL + WIDTH + 110
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        STYLE, f'<rect class="paper" width="{width}" height="{height}" rx="6"/>',
        f'<text class="quiet" x="12" y="24">{escape(title)}</text>', *lines, "</svg>", ""])


def number(value):
    """Three figures, as people write them."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"
