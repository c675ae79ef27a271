"""What the console needs beside the facts: accounts, and corrections of specimen ids that wait for a second person."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "account",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "role", "language", "state", "hash")),
    )
    op.create_index("account_name", "account", ["name"], unique=True)
    op.create_table(
        "proposal",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("at", _WHOLE, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("actor", "state", "reason")),
        sa.Column("document", sa.LargeBinary(), nullable=False),
    )
    where = sa.text("state = 'open'")
    op.create_index("proposal_open", "proposal", ["id"], sqlite_where=where, postgresql_where=where)
