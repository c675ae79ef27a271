"""Counters and gauges for Prometheus: numbers only, never patient data. Labels are configured names."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """Everything that is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.messages = Counter("labbridge_messages", "Messages stored", ["analyzer", "kind"], registry=registry)
        self.reports = Counter("labbridge_reports", "Reports decided", ["analyzer", "state"], registry=registry)
        self.overdue = Counter("labbridge_overdue", "Answers given before the store's", ["analyzer"], registry=registry)
        self.refused_peers = Counter("labbridge_peers_refused", "Connections refused", ["analyzer"], registry=registry)
        self.store_failures = Counter("labbridge_store_failures", "Batches that could not be stored", registry=registry)
        self.answers = Counter(
            "labbridge_answers", "Answers of destinations, by outcome", ["destination", "outcome"], registry=registry
        )
        self.timeouts = Counter("labbridge_timeouts", "Destinations that did not answer", ["destination"], registry=registry)
        self.clock_skew = Gauge("labbridge_clock_skew_seconds", "How far ahead a clock is", ["analyzer"], registry=registry)
        self.links = Gauge("labbridge_links", "Open connections", ["analyzer"], registry=registry)
        self.queue = Gauge("labbridge_queue", "Deliveries that wait", ["destination"], registry=registry)
        self.oldest = Gauge("labbridge_queue_oldest_seconds", "Age of the oldest delivery", ["destination"], registry=registry)

    def counted(self, analyzer: str, what: str, kind: str, count: int) -> None:
        """Adds to an analyzer's messages of a kind or reports of a state."""
        counter = self.messages if what == "message" else self.reports
        counter.labels(analyzer, kind).inc(count)
