"""A store that was migrated is what the schema says; one that cannot be migrated is left as it is."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from labbridge.store import Store, StoreError
from labbridge.store import migrations as migrations_package
from labbridge.store.engine import parse, writing
from labbridge.store.migrations import migrate
from labbridge.store.schema import HEAD, metadata

from .support import behind, open_ready


def _shape(connection: Connection) -> dict[str, Any]:
    """Every table's columns, key and indices, the conditions of partial indices included."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "indices": sorted(
                (i["name"], i["column_names"], i["unique"], [str(option) for option in i["dialect_options"].values()])
                for i in inspector.get_indexes(table)
            ),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def test_migrated_is_fresh(new_url: str) -> None:
    """The migrations lead to the schema: the same tables, columns and indices as made from it directly."""
    url = parse(new_url)
    engine = writing(url)
    with engine.connect() as connection:
        migrate(connection)
        migrated = _shape(connection)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        connection.rollback()
        with connection.begin():
            metadata.drop_all(connection)
            metadata.create_all(connection)
        assert migrated == _shape(connection)
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations_package.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_a_newer_store_is_refused(new_url: str) -> None:
    """A store that a newer version made is not touched, and the text says what to do."""
    store = Store(new_url)
    open_ready(store)
    assert store.close()
    with behind(new_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    newer = Store(new_url)
    with pytest.raises(StoreError, match="a newer version of labbridge made this store"):
        open_ready(newer)
    newer.close()


def test_a_migration_is_all_or_nothing(new_url: str) -> None:
    """A migration that fails leaves nothing of itself."""
    with behind(new_url) as connection:
        connection.exec_driver_sql("CREATE TABLE spool (id int)")
    broken = Store(new_url)
    with pytest.raises(StoreError, match="spool"):
        open_ready(broken)
    broken.close()
    with behind(new_url) as connection:
        assert inspect(connection).get_table_names() == ["spool"]
