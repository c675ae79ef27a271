"""The schema's history: Alembic migrations, shipped in the package and run by the writer when it opens a store."""

from pathlib import Path

from sqlalchemy import Connection, inspect

from labbridge.store.engine import StoreError
from labbridge.store.schema import HEAD


def migrate(connection: Connection) -> None:
    """Bring a store to the schema of this version, all or nothing; raises StoreError if a newer version made it."""
    with connection.begin():
        made = inspect(connection).has_table("alembic_version")
        if made and connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == HEAD:
            return
        # Slow to import, and needed only now.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(f"a newer version of labbridge made this store; install that one ({error})") from None
