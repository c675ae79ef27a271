from tests.loop import loop

__all__ = ["loop"]
