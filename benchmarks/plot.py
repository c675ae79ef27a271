"""Line charts as SVG files, made of text alone: nothing to install, the same bytes for the same numbers."""

from math import ceil, floor, log10
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 50, 55  # margins
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind too
Point = tuple[float, float]


class Line(NamedTuple):
    """One line of a chart; lines of one ``group`` have one colour, and the second of them is dashed."""

    name: str
    points: list[Point]
    group: int = 0
    dashed: bool = False


class Axis:
    """Where a value stands between two ends, and which values are named."""

    def __init__(self, values: list[float], low: int, high: int, log: bool, least: float | None = None) -> None:
        self.low, self.high, self.log = low, high, log
        first, last = min(values), max(values)
        if log:
            steps = [m * 10.0**e for e in range(floor(log10(first)), ceil(log10(last)) + 1) for m in (1, 2, 5)]
        else:
            first = min(first, least) if least is not None else first
            step = 10.0 ** floor(log10((last - first) / 4 or 1))
            step *= next((m for m in (1, 2, 5) if (last - first) / (step * m) <= 6), 10)
            steps = [step * n for n in range(floor(first / step), ceil(last / step) + 1)]
        begin = max((s for s in steps if s <= first * (1 + 1e-9)), default=steps[0])
        end = min((s for s in steps if s >= last * (1 - 1e-9)), default=steps[-1])
        self.ticks = [s for s in steps if begin <= s <= end]
        self.begin, self.span = self._scaled(begin), self._scaled(end) - self._scaled(begin) or 1.0

    def _scaled(self, value: float) -> float:
        return log10(value) if self.log else value

    def at(self, value: float) -> float:
        """The place of a value in the picture."""
        return round(self.low + (self._scaled(value) - self.begin) / self.span * (self.high - self.low), 1)


def chart(title: str, x_name: str, y_name: str, lines: list[Line], *, log_x: bool = True, log_y: bool = True) -> str:
    """The picture; on a logarithmic axis every value is more than 0, on another the picture begins at 0."""
    lines = [line for line in lines if line.points]
    if not lines:
        raise ValueError("a chart needs a point")
    x = Axis([p[0] for line in lines for p in line.points], LEFT, WIDTH - RIGHT, log_x, 0)
    y = Axis([p[1] for line in lines for p in line.points], HEIGHT - BOTTOM, TOP, log_y, 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 28, title, "start", ' font-size="15"'),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_name),
        _text(18, (TOP + HEIGHT - BOTTOM) / 2, y_name, "middle", f' transform="rotate(-90 18 {(TOP + HEIGHT - BOTTOM) / 2})"'),
    ]
    for tick in x.ticks:
        parts.append(f'<path d="M{x.at(tick)} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(_text(x.at(tick), HEIGHT - BOTTOM + 18, f"{tick:,.10g}"))
    for tick in y.ticks:
        parts.append(f'<path d="M{LEFT} {y.at(tick)}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y.at(tick) + 4, f"{tick:,.10g}", "end"))
    for place, line in enumerate(lines):
        parts += _line(line, place, x, y)
    return "\n".join((*parts, "</svg>\n"))


def _line(line: Line, place: int, x: Axis, y: Axis) -> list[str]:
    """One line, its points, its name beside the picture."""
    style = f'stroke="{COLORS[line.group % len(COLORS)]}" stroke-width="2"' + (' stroke-dasharray="6 4"' if line.dashed else "")
    places = [(x.at(one), y.at(other)) for one, other in line.points]
    drawn = "L".join(f"{one} {other}" for one, other in places)
    below = TOP + 8 + place * 20
    return [
        f'<path d="M{drawn}" fill="none" {style}/>',
        *(f'<circle cx="{one}" cy="{other}" r="3" fill="{COLORS[line.group % len(COLORS)]}"/>' for one, other in places),
        f'<path d="M{WIDTH - RIGHT + 12} {below}h24" fill="none" {style}/>',
        _text(WIDTH - RIGHT + 42, below + 4, line.name, "start"),
    ]


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#222"{more}>{escape(text)}</text>'
