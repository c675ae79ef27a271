"""What came from outside, for people: nothing of it is obeyed or hidden, and none of it is longer than a screen bears."""

from labbridge.formats import charset

ON_A_LINE = 200  # characters of one text; the whole of it is in the raw view


def shown(text: str) -> str:
    """The text with what a screen would obey or hide written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(text: str, most: int = ON_A_LINE) -> str:
    """``shown``, cut where it is too long for one line."""
    return shown(text[:most]) + ("…" if len(text) > most else "")


def readable(data: bytes) -> str:
    """Bytes as text, in the character set that they name or else UTF-8; a byte that is of neither is written ``\\xhh``."""
    text, wrong = charset.decode(data, ("UTF-8",))
    return data.decode("utf-8", "backslashreplace") if wrong else text
