"""labbridge: analyzers to hospital; every message kept, no result lost, none mixed up."""

__version__ = "0.1.0"
