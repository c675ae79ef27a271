"""For every test: a real PostgreSQL on demand (``postgresql_server``, ``postgresql_url``)."""

from tests.store.postgres import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]
