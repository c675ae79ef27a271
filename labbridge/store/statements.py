"""The SQL of the writer in one place, as texts whose parameters count by position.

The driver runs these texts itself, so that a batch pays for its rows and not for building statements. ``?`` stands for
a parameter; ``{texts}`` and ``{numbers}`` for a list that is one parameter, as the rows ``wanted.value``.
"""

from typing import Any

from sqlalchemy import Dialect, insert

from .rows import Earlier
from .schema import FACTS, ledger, report, spool

HISTORY = 200  # so many earlier reports of one key are looked at, the newest

EARLIER = [report.c["id" if name == "report_id" else name] for name in Earlier.__struct_fields__[:-1]]

# The newest first; each half has an index of its own.
_REPORTS_OF = """
    SELECT {earlier} FROM report WHERE key = {specimen}
    UNION ALL
    SELECT {earlier} FROM report WHERE specimen = {specimen} AND specimen != key
    ORDER BY id DESC LIMIT {history}"""

_HISTORY = """
    SELECT {earlier} FROM {texts} JOIN report ON report.key = wanted.value AND report.id >= coalesce(
        (SELECT id FROM report WHERE key = wanted.value ORDER BY id DESC LIMIT 1 OFFSET {history} - 1), 0)
    ORDER BY report.id"""

_REPORT = "SELECT {earlier} FROM report WHERE id = ?"

_DECISIONS = """
    SELECT report_id, document FROM {numbers} JOIN decision ON decision.report_id = wanted.value ORDER BY decision.id"""

_WAITING = """
    SELECT id, at, destination, lane, report_id, decision_id, control_id, due, state FROM delivery
    WHERE state IN ('queued', 'refused') ORDER BY id"""

_PAYLOADS = "SELECT delivery.id, payload FROM {numbers} JOIN delivery ON delivery.id = wanted.value"

_HELD = "SELECT {earlier} FROM report WHERE state = 'held' ORDER BY id"

_MESSAGE_STATE = "SELECT state FROM message WHERE id = ?"

_SPOOLED_BODY = "SELECT body FROM spool WHERE session = ? ORDER BY id"

_INCOMPLETE = """
    SELECT id, body FROM message WHERE state = 'open' AND analyzer = ? AND kind = 'incomplete' ORDER BY id"""

_SET_STATE = "UPDATE {table} SET state = ? WHERE id = ?"

_WORDS: dict[str, Any] = {"earlier": ", ".join(f"report.{column.name}" for column in EARLIER), "history": HISTORY}

_LISTS = {
    "sqlite": {"texts": "json_each(?) AS wanted", "numbers": "json_each(?) AS wanted"},
    "postgresql": {
        "texts": "unnest(CAST(? AS text[])) AS wanted(value)",
        "numbers": "unnest(CAST(? AS bigint[])) AS wanted(value)",
    },
}


def reports_of(specimen: str) -> str:
    """The reports known by this specimen id or key, newest first; ``specimen`` is how the parameter is written."""
    return _REPORTS_OF.format(specimen=specimen, **_WORDS)


class Statements:
    """Every statement of the writer for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        def text(template: str, table: str = "") -> str:
            words = {**_WORDS, **_LISTS[dialect.name]}
            return template.format(table=table, **words).replace("?", mark)

        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        self.lists_are_json = dialect.name == "sqlite"
        self.inserts = [str(insert(fact.table).compile(dialect=dialect)) for fact in FACTS]
        self.insert_ledger = str(insert(ledger).compile(dialect=dialect))
        self.insert_spool = str(insert(spool).compile(dialect=dialect))
        self.last_ids = [
            text("SELECT coalesce(max(id), 0) FROM {table}", table.name) for table in (*(fact.table for fact in FACTS), spool)
        ]
        self.last_link = text("SELECT sequence, hash FROM ledger ORDER BY sequence DESC LIMIT 1")
        self.set_message = text(_SET_STATE, "message")
        self.set_report = text(_SET_STATE, "report")
        self.set_delivery = text(_SET_STATE, "delivery")
        self.clear_spool = text("DELETE FROM spool WHERE session = ?")
        self.spooled = text("SELECT session, analyzer, at, body FROM spool ORDER BY id")
        self.history = text(_HISTORY)
        self.decisions = text(_DECISIONS)
        self.report = text(_REPORT)
        self.reports_of = text(reports_of("?"))
        self.delivery = text("SELECT * FROM delivery WHERE id = ?")
        self.deliveries_of = text("SELECT * FROM delivery WHERE report_id = ? ORDER BY id")
        self.incomplete = text(_INCOMPLETE)
        self.waiting = text(_WAITING)
        self.payloads = text(_PAYLOADS)
        self.held = text(_HELD)
        self.message_state = text(_MESSAGE_STATE)
        self.spooled_body = text(_SPOOLED_BODY)
        self.revision = text("SELECT id FROM revision WHERE digest = ?")
