"""Frames that were refused: resent when they came right, else for a person to see."""

import pytest

from labbridge.wire import Lis01Link, Lis01Settings
from labbridge.wire.events import Stray
from tests.wire.replay import ENQ, EOT, HEADER, LAST, MESSAGE, PATIENT, SIZES, frame, payloads, play, session

every_size = pytest.mark.parametrize("size", SIZES)


def host() -> Lis01Link:
    return Lis01Link(Lis01Settings())


def damaged(number: int, text: bytes) -> bytes:
    """A frame whose checksum does not fit."""
    good = frame(number, text)
    return good[:-4] + (b"00" if good[-4:-2] != b"00" else b"11") + good[-2:]


def strays(link: Lis01Link, stream: bytes, size: int) -> list[Stray]:
    """What a connection leaves behind that sent this and closed."""
    play(link, stream, size)
    return [event for event in link.closed(1.0) if isinstance(event, Stray)]


REFUSED = {
    "bad checksum": damaged(2, PATIENT),
    "the number damaged": damaged(7, PATIENT),
    "twice": damaged(2, PATIENT) * 2,
    "wrong number": frame(5, PATIENT),
    "no number": b"\x02X" + frame(2, PATIENT)[2:],
    "begun anew": b"\x022P|1|" + damaged(2, PATIENT),
    "an ENQ inside": b"\x022P|1\x05|4711\r\x0304\r\n",
}


@every_size
@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_a_frame_that_was_refused_and_came_right_is_resent(refused: str, size: int) -> None:
    """Its bytes are told of, with nothing for a person to do."""
    texts = (HEADER, *[PATIENT] * 4, LAST)
    frames = [frame(number, text) for number, text in enumerate(texts, 1)]
    whole = ENQ + b"".join([frames[0], REFUSED[refused], *frames[1:]]) + EOT
    link = host()
    assert len(payloads(play(link, whole, size))) == 1
    [stray] = [event for event in link.closed(1.0) if isinstance(event, Stray)]
    assert stray == Stray(REFUSED[refused], len(REFUSED[refused]), resent=True)


@every_size
@pytest.mark.parametrize(
    "stream",
    [
        ENQ + frame(1, HEADER) + damaged(2, PATIENT) * 6 + EOT,  # it never came
        ENQ + damaged(1, HEADER) + EOT + session(HEADER, LAST),  # not in the same transmission
        ENQ + frame(1, HEADER) + damaged(2, PATIENT) + frame(2, PATIENT) + ENQ + EOT,  # the message broke off
        ENQ + frame(1, HEADER) + damaged(2, PATIENT) + frame(2, PATIENT),  # so did the connection
        ENQ + frame(1, MESSAGE) + damaged(2, HEADER) + frame(1, MESSAGE) + EOT,  # another came again
        ENQ + frame(1, MESSAGE) + frame(3, HEADER) + EOT,  # a frame is missing, and this one did not come again
    ],
)
def test_what_was_refused_and_never_came_right_is_for_a_person(stream: bytes, size: int) -> None:
    [stray] = strays(host(), stream, size)
    assert not stray.resent


@every_size
def test_a_repeat_that_was_damaged_is_resent_when_it_comes_right(size: int) -> None:
    """The answer to the last frame was lost, and so was the frame when it was sent again."""
    [stray] = strays(host(), ENQ + frame(1, MESSAGE) + damaged(1, MESSAGE) + frame(1, MESSAGE) + EOT, size)
    assert stray.resent


@every_size
def test_what_was_refused_does_not_hide_what_belongs_nowhere(size: int) -> None:
    """Garbage between transmissions, and a frame that never came, stand apart from what came right."""
    lost, right = damaged(1, HEADER), ENQ + damaged(1, MESSAGE) + frame(1, MESSAGE) + EOT
    told = strays(host(), right + b"GET /" + right + ENQ + lost + EOT, size)
    twice = damaged(1, MESSAGE) * 2
    assert told == [Stray(b"GET /" + lost, 5 + len(lost)), Stray(twice, len(twice), resent=True)]


@every_size
def test_what_was_refused_is_kept_in_part(size: int) -> None:
    """The first 4 KiB of all, and how many there were."""
    text = HEADER + b"M|1|" + b"A" * 3000 + b"\r" + LAST
    bad = damaged(1, text)
    [stray] = strays(host(), ENQ + bad * 2 + frame(1, text) + EOT, size)
    assert stray == Stray((bad * 2)[:4096], 2 * len(bad), resent=True)


def test_a_refused_frame_of_a_message_that_is_not_stored_is_for_a_person() -> None:
    """It came right, but the connection ended before its message was durable."""
    link = host()
    link.receive(ENQ + damaged(1, MESSAGE) + frame(1, MESSAGE), 0.0)
    assert [event.resent for event in link.closed(1.0) if isinstance(event, Stray)] == [False]
