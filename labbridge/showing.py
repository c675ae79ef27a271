"""How text from outside is shown to a person: what a terminal or a page would obey or hide is written as an escape."""


def shown(text: str) -> str:
    """The text with every character that cannot be seen written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(text: str, most: int = 200) -> str:
    """The beginning of a text, shown; the whole of it stands elsewhere."""
    return shown(text) if len(text) <= most else f"{shown(text[:most])}…"
