"""The page docs/performance.md and its pictures, from the lines that the measurements printed.

A number of the page is the median of the runs; a ratio is made within each run, and then the median taken. Of what is asked of
a large and an empty store in turns, the best turn of each is compared.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bed import Row
from plot import Line, chart

from labbridge import __version__

KINDS = {
    "w1": "**labbridge, W1** (HL7, MLLP)",
    "sqlite": "floor: commits the raw message",
    "bare": "floor: answers, stores nothing",
    "python-hl7": "python-hl7 server, stores nothing",
    "hl7apy": "hl7apy server, stores nothing",
    "w2": "**labbridge, W2** (ASTM, LIS01)",
    "frames": "floor: acknowledges frames, stores nothing",
}
VOLUME = {
    "intake_cpu_us": "intake, CPU µs a message",
    "intake_per_second": "intake, messages a second",
    "drain_cpu_us": "drain, CPU µs a delivery",
    "drain_per_second": "drain, deliveries a second",
    "trace_ms": "trace, ms of reading",
    "trace_command_ms": "trace, ms of the command",
    "pending_ms": "pending, ms of reading",
    "pending_command_ms": "pending, ms of the command",
    "queue_ms": "queue list, ms of reading",
    "queue_command_ms": "queue list, ms of the command",
}
FLOODS = {"none": "nobody floods", "one link": "a flood on one link", "16 links": "a flood on 16 links"}


class Limit(NamedTuple):
    """What labbridge has to keep; ``most`` tells whether the limit is an upper one."""

    what: str
    value: float | None  # None: was not measured
    limit: float
    unit: str = ""
    most: bool = False

    @property
    def row(self) -> list[str]:
        """Its row in the table."""
        if self.value is None:
            return [self.what, f"{'≤' if self.most else '≥'} {self.limit:g}{self.unit}", "not measured", ""]
        kept = self.value <= self.limit if self.most else self.value >= self.limit
        return [
            self.what,
            f"{'≤' if self.most else '≥'} {self.limit:g}{self.unit}",
            number(self.value) + self.unit,
            "yes" if kept else "**no**",
        ]


class Lines:
    """The lines of all runs."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def find(self, **wanted: Any) -> list[Row]:
        """The lines that say just this."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())]

    def values(self, name: str, **wanted: Any) -> list[Any]:
        """What there is of a value, each once, rising."""
        return sorted({row[name] for row in self.find(**wanted) if name in row})

    def middle(self, name: str, **wanted: Any) -> float | None:
        """The median of one number."""
        found = [row[name] for row in self.find(**wanted) if name in row]
        return median(found) if found else None

    def ratio(self, name: str, one: Row, other: Row) -> float | None:
        """The median of the ratios of one line's number to another's, each pair of one run, in the order of the lines."""
        pairs = [pair for run in self.values("run") for pair in self._pairs(run, one, other)]
        ratios = [a[name] / b[name] for a, b in pairs if name in a and b.get(name)]
        return median(ratios) if ratios else None

    def _pairs(self, run: int, one: Row, other: Row) -> Iterator[tuple[Row, Row]]:
        return zip(self.find(run=run, **one), self.find(run=run, **other), strict=False)


def write(rows: list[Row], docs: Path) -> None:
    """Writes performance.md and images/*.svg into this folder."""
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    lines = Lines(rows)
    sections = [section(lines) for section in (head, limits, throughput, day, drain, links)]
    for name, section in (("latency", latency), ("volume", volume)):
        text, picture = section(lines)
        if picture:
            (images / f"{name}.svg").write_text(picture, encoding="utf-8")
            sections.append(text)
    (docs / "performance.md").write_text("\n\n".join(text for text in sections if text) + "\n", encoding="utf-8")


def head(lines: Lines) -> str:
    """What was measured where."""
    (about,) = lines.find(what="machine") or [{}]
    tiny = "\n\n**Made with next to nothing, to try the programs: these numbers say nothing.**" if about.get("tiny") else ""
    wrong = [f"- {row['part']}, run {row['run']}: {problem}" for row in lines.rows for problem in row.get("problems", ())]
    runs = ", ".join(f"{part} {len(lines.values('run', part=part))}" for part in _REPEATED)
    of = f"medians of so many runs:\n{runs}; of the day one, of the volume the best turns"
    made = f"{about.get('day', 'today')}, labbridge {__version__}, {of}"
    machine = [(name.replace("_gb", ", GB"), str(about[name])) for name in _MACHINE if name in about]
    text = f"""# Performance

Written by `make performance`: {made}. Generator, hospital
and what is measured share the machine, everything speaks over the loopback: compare ratios, not numbers of two machines. A
message counts once the hospital has acknowledged every result of it, mapped and verified; each run ends by comparing what
was acknowledged with what arrived.{tiny}

{table(["machine", ""], machine)}"""
    found = "\n".join(wrong)
    return f"{text}\n\n## What went wrong\n\n{found}" if wrong else text


_REPEATED = ("bench", "curve", "drain", "links")
_MACHINE = ("processor", "cores", "memory_gb", "kernel", "python", "sqlite")


def limits(lines: Lines) -> str:
    """The limits that labbridge sets itself."""

    def throughput(what: str, other: str, connections: int) -> float | None:
        return lines.ratio("per_second", bench(what, connections), bench(other, connections))

    rows = [
        Limit("W1 over 64 connections, of the floor that commits the raw message", throughput("w1", "sqlite", 64), 0.2),
        Limit("W1 over 64 connections, of python-hl7's server", throughput("w1", "python-hl7", 64), 8),
        Limit("W1 over 64 connections, p99 of the acknowledgement", lines.middle("p99_ms", **bench("w1", 64)), 30, " ms", True),
        Limit("W1 over 64 connections, memory", lines.middle("memory_mb", **bench("w1", 64)), 150, " MB", True),
        Limit("W1 over one connection, p50 of the acknowledgement", lines.middle("p50_ms", **bench("w1", 1)), 1, " ms", True),
        Limit("W1 over one connection, of the same floor", throughput("w1", "sqlite", 1), 0.4),
        Limit("W2 over 64 connections, of a receiver that only acknowledges frames", throughput("w2", "frames", 64), 0.25),
        Limit("a laboratory's day: oldest delivery", lines.middle("queue_max_s", what="day"), 5, " s", True),
        Limit("a laboratory's day: share of one core", lines.middle("cpu_share", what="day"), 0.3, "", True),
        Limit("idle links: memory", lines.middle("more_mb", what="idle"), 30, " MB", True),
        *(
            Limit(f"{name}: another link's p99", lines.middle("p99_ms", what="flood", by=by), 200, " ms", True)
            for by, name in FLOODS.items()
            if by != "none"
        ),
    ]
    rows.append(Limit("`labbridge verify`, of a million facts", lines.middle("million_s", what="verify"), 60, " s", True))
    for largest in lines.values("beside", what="volume")[-1:]:
        for name, what in VOLUME.items():
            rate = name.endswith("_per_second")
            rows.append(
                Limit(
                    f"{largest:,} stored: {what}, of an empty store",
                    grown(lines, name, largest),
                    0.9 if rate else 1.1,
                    "",
                    not rate,
                )
            )
    return "## Limits\n\n" + table(["what", "limit", "measured", "kept"], [limit.row for limit in rows])


def bench(what: str, connections: int) -> Row:
    """What a line of bench.py says."""
    return {"part": "bench", "what": what, "connections": connections}


def throughput(lines: Lines) -> str:
    """The table of bench.py."""
    rows = []
    for connections in lines.values("connections", part="bench"):
        for what, name in KINDS.items():
            found = bench(what, connections)
            if lines.find(**found):
                floor, peer = bench("frames" if what == "w2" else "sqlite", connections), bench("python-hl7", connections)
                ratios = [lines.ratio("per_second", found, other) if what in ("w1", "w2") else None for other in (floor, peer)]
                numbers = [lines.middle(one, **found) for one in ("per_second", "p50_ms", "p99_ms", "cpu_us", "memory_mb")]
                rows.append([str(connections), name, *map(number, (*numbers, ratios[0], ratios[1] if what == "w1" else None))])
    if not rows:
        return ""
    columns = ["connections", "", "messages/s", "p50 ms", "p99 ms", "CPU µs", "MB", "of its floor", "of python-hl7"]
    return f"""## Throughput

Each connection sends a message, waits for its answer, sends the next. W1: 3 KB, 30 results, one MLLP block. W2: the same
results in 34 ASTM frames, each on the disk before its ACK. The floor of W1 commits the raw message, that of W2 answers frames
and stores nothing. hl7apy's server closes the connection after each answer.

{table(columns, rows)}"""


def day(lines: Lines) -> str:
    """The mixed day."""
    rows = [[one, number(lines.middle(name, what="day"))] for one, name in _DAY if lines.find(what="day")]
    if not rows:
        return ""
    found = lines.find(what="day")[0]
    begin, end = found["hours"]
    for name in found["links"]:
        p50, p99, worst = (
            median(row["links"][name][key] for row in lines.find(what="day")) for key in ("p50_ms", "p99_ms", "max_ms")
        )
        rows.append([f"`{name}`: answer to the analyzer, p50, p99, worst, ms", f"{number(p50)}, {number(p99)}, {number(worst)}"])
    return f"""## A laboratory's day

3,000 PCR samples on four GeneXpert links, a line that measures 200 tests on each of 1,000 specimens, two blood counters
with 800 specimens each, as they come from {begin:g} to {end:g} o'clock, {found["speed"]:g} times as fast.

{table(["", ""], rows)}"""


_DAY = (
    ("messages", "messages"),
    ("results delivered", "results"),
    ("deliveries", "delivered"),
    ("reports held for a person, as they should be", "held"),
    ("a delivery in the queue, p99, s", "queue_p99_s"),
    ("a delivery in the queue, longest, s", "queue_max_s"),
    ("processor, share of one core", "cpu_share"),
    ("memory, peak, MB", "memory_mb"),
)


def drain(lines: Lines) -> str:
    """The long queue."""
    names = (
        ("deliveries that waited", "deliveries"),
        ("intake while the hospital was down, messages/s", "intake_per_second"),
        ("the daemon starts anew with the full queue, s", "start_s"),
        ("memory while all wait, MB", "waiting_mb"),
        ("from the hospital's return to the first delivery, s", "reconnect_s"),
        ("deliveries/s", "per_second"),
        ("CPU µs a delivery", "cpu_us"),
        ("memory, peak, MB", "memory_mb"),
    )
    rows = [[one, number(lines.middle(name, what="drain"))] for one, name in names if lines.find(what="drain")]
    return f"## The hospital comes back\n\n{table(['', ''], rows)}" if rows else ""


def links(lines: Lines) -> str:
    """Idle links and floods."""
    if not lines.find(what="idle"):
        return ""
    count, alone, linked, more, share = (number(lines.middle(name, what="idle")) for name in _IDLE)
    rows = [
        [name, *(number(lines.middle(one, what="flood", by=by)) for one in ("flood_per_second", "p50_ms", "p99_ms", "max_ms"))]
        for by, name in FLOODS.items()
    ]
    rate = number(lines.middle("rate", what="flood"))
    return f"""## Many links, and one that says too much

{count} links that have sent a message each and are silent: {alone} MB before, {linked} MB with them, {more} MB more; they take
{share} of one core. W1 at {rate} a second on ten links, while another analyzer sends without waiting for answers:

{table(["", "flood, messages/s", "p50 ms", "p99 ms", "worst ms"], rows)}"""


_IDLE = ("links", "alone_mb", "linked_mb", "more_mb", "cpu_share")


def latency(lines: Lines) -> tuple[str, str]:
    """Latency against load: the section and its picture."""
    drawn, rows = [], []
    names = {"labbridge": "labbridge, to the hospital", "sqlite": "floor: commits the raw message"}
    for group, (of, name) in enumerate(names.items()):
        found = {"part": "curve", "of": of}
        middles = [[lines.middle(one, offered=rate, **found) or 0.0 for one in _CURVE] for rate in lines.values("offered", **found)]
        rows += [[name, *map(number, some)] for some in middles]
        steady = [some for some in middles if some[1] >= 0.95 * some[0]]
        for place, share in ((3, "p99"), (2, "p50")):
            drawn.append(Line(f"{of}, {share}", [(some[0], some[place]) for some in steady], group, share == "p50"))
    if not any(line.points for line in drawn):
        return "", ""
    text = f"""## Latency against load

W1 at an even rate over 64 links, sent when it is due whether the last was answered or not; the time is from then to the
acknowledgement. What does not keep up with the rate is in the table and not in the picture.

![Latency of the acknowledgement against messages a second](images/latency.svg)

{table(["", "offered/s", "messages/s", "p50 ms", "p99 ms", "CPU µs"], rows)}"""
    return text, chart("Acknowledgement of W1, 64 links", "messages a second", "milliseconds", drawn)


_CURVE = ("offered", "per_second", "p50_ms", "p99_ms", "cpu_us")


def volume(lines: Lines) -> tuple[str, str]:
    """Cost against what is stored: the section and its picture."""
    sizes = lines.values("beside", what="volume")
    if not sizes:
        return "", ""
    rows = []
    for name, what in VOLUME.items():
        empty, full = (best(lines, name, sizes[-1], count) for count in (0, sizes[-1]))
        rows.append([what, number(empty), number(full), *(number(grown(lines, name, size)) for size in sizes)])
    names = [name for name in VOLUME if not name.endswith(("_per_second", "_command_ms"))]
    drawn = [
        Line(VOLUME[name].partition(",")[0], [(s, grown(lines, name, s) or 0.0) for s in sizes], group)
        for group, name in enumerate(names)
    ]
    turns = len(lines.find(what="volume", stored=sizes[-1]))
    size = lines.middle("mb", what="volume", stored=sizes[-1])
    text = f"""## Cost against what is stored

A store with W1 messages of long ago, all delivered, beside one that has only what such turns bring, in {turns} turns
each; the largest file is {number(size)} MB. Of each number the best turn; the last columns are the ratio of the two, for each
number of messages stored.

![Cost as a ratio to an empty store, against messages stored](images/volume.svg)

{table(["", "empty", f"{sizes[-1]:,} stored", *(f"ratio at {size:,}" for size in sizes)], rows)}"""
    return text, chart("Cost beside an empty store", "messages stored", "ratio", drawn, log_y=False)


def grown(lines: Lines, name: str, stored: int) -> float | None:
    """How a number of the large store is to that of the empty one."""
    large, empty = (best(lines, name, stored, count) for count in (stored, 0))
    return large / empty if large is not None and empty else None


def best(lines: Lines, name: str, beside: int, stored: int) -> float | None:
    """The best of all turns on a store: what else the machine does makes them worse, and is none of the store's doing."""
    found = [row[name] for row in lines.find(what="volume", beside=beside, stored=stored) if name in row]
    return (max if name.endswith("_per_second") else min)(found) if found else None


def number(value: float | None) -> str:
    """A number with three digits that matter, or all of a large one."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{float(f'{value:.3g}'):g}"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
