"""A flame graph of what `perf script` prints: width is the share of samples, the root is below."""

import re
from html import escape

ROW, WIDTH, LEAST = 17, 1200, 0.0008


def stacks(script):
    """Each sample's functions, from the outermost to the innermost."""
    stack = []
    for line in script.splitlines():
        if not line.strip():
            if stack:
                yield list(reversed(stack))
            stack = []
        elif line.startswith(("\t", "  ")):
            found = re.match(r"\s*[0-9a-f]+ (.*?)(?:\+0x[0-9a-f]+)? \(.*\)$", line)
            # Without a name a frame only makes the tower higher.
            if found and found.group(1) != "[unknown]":
                stack.append(short(found.group(1)))
    if stack:
        yield list(reversed(stack))


def short(name):
    name = re.sub(r"::h[0-9a-f]{16}$", "", name)
    return re.sub(r"<(.*) as .*>::", r"\1::", name)


def tree(script):
    root = {"count": 0, "children": {}}
    for stack in stacks(script):
        node = root
        node["count"] += 1
        for name in stack:
            node = node["children"].setdefault(name, {"count": 0, "children": {}})
            node["count"] += 1
    return root


def draw(title, root):
    boxes, deepest = [], 0

    def place(name, node, x, depth):
        nonlocal deepest
        width = node["count"] / root["count"]
        if width < LEAST:
            return
        deepest = max(deepest, depth)
        boxes.append((name, node["count"], x, width, depth))
        for child, below in sorted(node["children"].items()):
            place(child, below, x, depth + 1)
            x += below["count"] / root["count"]

    place("all", root, 0, 0)
    height = (deepest + 1) * ROW + 40
    lines = []
    for name, count, x, width, depth in boxes:
        left, top, wide = x * WIDTH, height - (depth + 1) * ROW - 4, width * WIDTH
        hue = 20 + sum(map(ord, name)) % 35
        text = escape(name if len(name) * 6.4 < wide else name[:max(int(wide / 6.4) - 1, 0)])
        lines.append(f'<g><title>{escape(name)}: {100 * width:.1f} % ({count})</title>'
                     f'<rect x="{left:.1f}" y="{top}" width="{max(wide - 0.5, 0.3):.1f}" height="{ROW - 1}" fill="hsl({hue} 85% 66%)"/>'
                     f'<text x="{left + 3:.1f}" y="{top + 12}">{text if wide > 24 else ""}</text></g>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<style>text { font: 11px monospace; fill: #1f2328 } .title { font: 600 14px system-ui, sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/><text class="title" x="8" y="22">{escape(title)}</text>',
        *lines, "</svg>", ""])
