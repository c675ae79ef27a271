"""What the hospital will receive, as a person reads it: the observations and notes of a message. Pure."""

import re

_ESCAPES = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", ".br": " / "}


def lines_of(text: str) -> list[str]:
    """One line for each observation of an ORU as labbridge writes it, and for each note."""
    found = []
    for segment in re.split("[\r\n]+", text):
        fields = segment.split("|") + [""] * 12
        if fields[0] == "OBX":
            code, name = [*fields[3].split("^"), ""][:2]
            unit = fields[6].split("^")[0]
            parts = (code, name, fields[5].replace("^", " "), unit, fields[8], f"[{fields[11]}]")
            found.append(" ".join(_plain(part) for part in parts if part))
        elif fields[0] == "NTE":
            found.append(f"— {_plain(fields[3])}")
    return found


def _plain(text: str) -> str:
    """A field's text without its escapes."""
    return re.sub(r"\\([^\\]*)\\", lambda match: _ESCAPES.get(match[1], match[0]), text)
