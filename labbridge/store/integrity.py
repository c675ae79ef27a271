"""What stands around the rows: the file's header, its pages and indices, the schema, the version of the schema.

The ledger covers the facts; here is checked what finds them. SQLite looks at every page itself (``integrity_check``):
each index holds each row and nothing else. Of a file's header every field is checked that has one right value. Not
checked, since they say nothing of what is stored: bytes that no page uses, the schema cookie, the number of the SQLite
library that wrote last. PostgreSQL checks its pages itself (``data_checksums``).
"""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine

from .engine import StoreError
from .migrations import migrate
from .reader import Reader
from .schema import HEAD, metadata

_SCHEMA = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name"
_DAMAGE = (
    "malformed",
    "not a database",
    "corrupt",
    "encrypted",
    "disk I/O error",
    "invalid page",
    "datatype mismatch",
    "no such table",
    "no such column",
    "unsupported file format",
    "syntax error",
)

# Offset and value of what never changes in a store's header; https://www.sqlite.org/fileformat2.html, 1.3.
_HEADER = {
    0: b"SQLite format 3\x00",
    20: b"\x00\x40\x20\x20",  # reserved space, payload fractions
    44: (4).to_bytes(4, "big"),  # schema format
    48: bytes(8),  # cache size, largest root page
    56: (1).to_bytes(4, "big"),  # UTF-8
    60: bytes(32),  # user version, vacuum, application id, reserved
}

_LOG = {b"\x02\x02", b"\x01\x01"}  # a write-ahead log, or none: in a copy that VACUUM INTO made, until labbridge opens it


def is_damage(error: StoreError) -> bool:
    """Whether a store could not be read because it is not what was written."""
    return any(word in str(error) for word in _DAMAGE)


def problems(reader: Reader) -> Iterator[str]:
    """What is wrong with a store beside its facts."""
    try:
        if reader.file:
            yield from _header(reader.file)
            yield from _pages(reader)
        yield from _schema(reader)
        with reader.snapshot() as snapshot:
            versions = [row[0] for row in snapshot.exec_driver_sql("SELECT version_num FROM alembic_version")]
        if versions != [HEAD]:
            yield f"the schema's version is {', '.join(map(str, versions)) or 'gone'}, expected {HEAD}"
    except StoreError as error:
        if not is_damage(error):
            raise
        yield f"the database is damaged: {error}"


def _header(file: Path) -> Iterator[str]:
    wal = file.with_name(file.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        return  # the page that counts may be in the log, which has checksums of its own
    with file.open("rb") as opened:
        header = opened.read(100)
    for offset, value in _HEADER.items():
        if header[offset : offset + len(value)] != value:
            yield f"the file's header was changed at byte {offset}"
    if header[18:20] not in _LOG:
        yield "the file's header was changed at byte 18"
    if header[24:28] != header[92:96]:
        yield "the file's header was changed: its change counter is not what its size was written with"
    page = int.from_bytes(header[16:18], "big")
    if int.from_bytes(header[28:32], "big") * (page if page > 1 else 65536) != file.stat().st_size:
        yield "the file's size is not what its header says: it was cut, or joined"


def _pages(reader: Reader) -> Iterator[str]:
    for row in reader.stream("PRAGMA integrity_check(20)"):
        if row[0] != "ok":
            yield from (f"the database is damaged: {line}" for line in str(row[0]).splitlines())


def _schema(reader: Reader) -> Iterator[str]:
    if not reader.file:
        # Slow to import, and needed only now.
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        ours = {"include_name": lambda name, kind, _: kind != "table" or name in metadata.tables}
        with reader.snapshot() as snapshot:
            changes = compare_metadata(MigrationContext.configure(snapshot, opts=ours), metadata)
        for change in changes:
            parts = change if isinstance(change, tuple) else change[0]
            words = [str(getattr(one, "name", one)) for one in parts if one is not None]
            yield f"the schema is not this version's: {' '.join(words)}"
        return
    engine = create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            migrate(connection)
            expected = {tuple(row) for row in connection.exec_driver_sql(_SCHEMA)}
    finally:
        engine.dispose()
    found = {tuple(row) for row in reader.stream(_SCHEMA)}
    for kind, name in sorted({(str(kind), str(name)) for kind, name, *_ in expected ^ found}):
        yield f"the schema is not this version's: {kind} {name}"
