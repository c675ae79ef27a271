"""For every test: a real PostgreSQL on demand (``postgresql_server``, ``postgresql_url``), and the same examples."""

from hypothesis import settings

from tests.store.postgres import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]

# The same examples in every run; `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
