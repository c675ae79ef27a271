"""The structure of what labbridge sends, validated by hl7apy: an implementation that is not ours."""

from hl7apy import set_default_validation_level
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message


def validity(payload: bytes, charset: str = "utf-8") -> str:
    """ "valid", or what hl7apy finds wrong with the message's structure. Slow (milliseconds): for people and tests."""
    set_default_validation_level(VALIDATION_LEVEL.TOLERANT)
    try:
        message = parse_message(payload.decode(charset, "backslashreplace"), find_groups=True)
        message.validate()
    except HL7apyException as error:
        return f"not valid: {error}"
    return "valid"
