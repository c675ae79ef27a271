"""The first schema: facts with their derived states, the ledger and the spool."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KINDS: dict[str, sa.types.TypeEngine[Any]] = {"t": sa.Text(), "b": sa.LargeBinary()}


def upgrade() -> None:
    """Make every table and index."""
    for name, columns in _TABLES.items():
        op.create_table(name, *_columns(columns))
    for index, table, columns, condition in _INDICES:
        where = sa.text(condition) if condition else None
        op.create_index(index, table, columns.split(), sqlite_where=where, postgresql_where=where)
    op.create_index("revision_digest", "revision", ["digest"], unique=True)


def _columns(words: str) -> list[sa.Column[Any]]:
    """Columns from words: the key first; :t is text, :b bytes, all others whole numbers."""
    key, *others = words.split()
    made: list[sa.Column[Any]] = [sa.Column(key, _WHOLE, primary_key=True, autoincrement=False)]
    for word in others:
        name, _, kind = word.partition(":")
        made.append(sa.Column(name, _KINDS.get(kind, _WHOLE), nullable=False))
    return made


_TABLES = {
    "message": "id at direction:t analyzer:t link:t kind:t control_id:t digest:b size note:t state:t body:b",
    "report": "id message_id at analyzer:t key:t specimen:t patient:t role:t digest:b content:b state:t document:b",
    "decision": "id report_id at actor:t revision document:b",
    "delivery": "id at destination:t lane:t report_id decision_id control_id:t due state:t payload:b",
    "attempt": "id delivery_id at outcome:t reply:b",
    "revision": "id at digest:b body:b",
    "audit": "id at actor:t action:t subject:t reason:t old:t new:t",
    "ledger": "sequence writer:t at previous:b hash:b facts:b",
    "spool": "id session:t analyzer:t at body:b",
}

_INDICES = (
    ("message_open", "message", "analyzer id", "state = 'open'"),
    ("report_key", "report", "key id", ""),
    ("report_specimen", "report", "specimen id", "specimen != key"),
    ("report_patient", "report", "patient id", "patient != ''"),
    ("report_held", "report", "id", "state = 'held'"),
    ("decision_report", "decision", "report_id", ""),
    ("delivery_waiting", "delivery", "destination state id", "state IN ('queued', 'refused')"),
    ("delivery_report", "delivery", "report_id", ""),
    ("attempt_delivery", "attempt", "delivery_id", ""),
    ("spool_session", "spool", "session", ""),
)
