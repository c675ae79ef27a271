"""``python -m labbridge``: the command line."""

from labbridge.cli import main

main()
