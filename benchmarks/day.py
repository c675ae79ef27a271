"""A laboratory's day (laboratory.py), replayed many times as fast as it happened, through to the hospital.

    day.py [--speed 60] [--hours 0 24] [--part 1.0] [--folder DIR]

The whole day at 60 takes 24 minutes; `--hours 8 10` is the morning's peak in two. Prints one JSON line: messages,
delivered and held (each checked against what must come of the day), ``queue_p99_s`` and ``queue_max_s`` (from the commit of a
delivery to the commit of the hospital's answer), ``cpu_share`` of one core, the answers to the analyzers, memory.
"""

import argparse
import sys
from collections.abc import Iterator

import laboratory
from bed import Row, arrived, bed, drained, ended, parser, percentile, refusals, run

_AGES = """
    SELECT max(attempt.at) - delivery.at FROM delivery JOIN attempt ON delivery_id = delivery.id
    GROUP BY delivery.id ORDER BY 1"""
_STATES = "SELECT state, count(*) FROM {} GROUP BY state"


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """The one line."""
    with bed(args.folder, "day.toml") as place:
        (place.folder / "mappings" / "bench-line.csv").write_text(laboratory.mapping())
        sink, daemon = place.hospital(), place.daemon()
        ports = [place.ports[name] for name in laboratory.SPECIMENS]
        cpu = daemon.cpu_s()
        options = ("--speed", args.speed, "--hours", *args.hours, "--part", args.part)
        sent = place.start("replay.py", "day", *ports, *options).line()
        counts = drained(sink, sent["messages"] - sent["held"])
        took, cpu = max(counts["last"], sent["ended"]) - sent["began"], daemon.cpu_s() - cpu
        memory = daemon.memory_mb()
        problems = refusals(sent) + arrived(sink, sent["messages"] - sent["held"], sent["results"]) + ended(daemon)
        reports, deliveries = (dict(place.ask(_STATES.format(table))) for table in ("report", "delivery"))
        ages = [age / 1e6 for (age,) in place.ask(_AGES)]
        due = {"held": sent["held"], "released": sent["messages"] - sent["held"]}
        if reports != {state: count for state, count in due.items() if count}:
            problems.append(f"of the reports should be {due}, are {reports}")
        if set(deliveries) != {"delivered"}:
            problems.append(f"all deliveries should be delivered, are {deliveries}")
        yield {
            "what": "day",
            "speed": args.speed,
            "hours": args.hours,
            "seconds": round(took, 1),
            "messages": sent["messages"],
            "results": counts["results"],
            "delivered": deliveries.get("delivered", 0),
            "held": reports.get("held", 0),
            "queue_p99_s": round(percentile(ages, 0.99), 4),
            "queue_max_s": round(max(ages, default=0.0), 4),
            "cpu_share": round(cpu / took, 4),
            "memory_mb": memory,
            "behind_ms": sent["behind_ms"],
            "links": sent["links"],
            "problems": problems,
        }


if __name__ == "__main__":
    options = parser(__doc__)
    laboratory.options(options)
    sys.exit(run(measure, options.parse_args()))
