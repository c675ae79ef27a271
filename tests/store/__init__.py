"""Promises of the store, each kept on SQLite and on PostgreSQL."""
