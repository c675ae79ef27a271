"""Whatever the peer sends, and whenever: a link raises nothing, remembers little, and every token can be settled."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.wire import Lis01Link, Lis01Settings, MllpLink, MllpSettings
from labbridge.wire.events import Answer, LocalProtocolError, Oversize, Part, Received
from tests.wire.replay import HEADER, LAST, MESSAGE, Link, frame

BYTES = [bytes([code]) for code in b"\x02\x03\x04\x05\x06\x0b\x15\x17\x1c\r\nH1A"]
STREAM = st.lists(
    st.sampled_from([*BYTES, b"\x0bMSH|^~\\&\r\x1c\r", frame(1, HEADER), frame(2, LAST), frame(1, MESSAGE), b"x" * 60]), max_size=6
).map(b"".join)
STEP = st.one_of(
    st.tuples(st.just("receive"), STREAM),
    st.tuples(st.just("tick"), st.sampled_from([0.5, 2.0, 13.0, 40.0])),
    st.tuples(st.just("settle"), st.booleans()),
    st.tuples(st.sampled_from(["send", "pause", "resume"]), st.none()),
)
LINKS = st.sampled_from(
    [
        lambda: Lis01Link(Lis01Settings(max_message=100)),
        lambda: Lis01Link(Lis01Settings(role="instrument", checksum=False, answer_time=None, refusals=1)),
        lambda: MllpLink(MllpSettings(max_message=100, refusal=lambda payload: payload[:4])),
        lambda: MllpLink(MllpSettings(release=2)),
        lambda: MllpLink(MllpSettings()),
    ]
)


@settings(max_examples=300, deadline=None)
@given(LINKS, st.lists(STEP, max_size=40))
def test_no_peer_makes_a_link_raise(make: Callable[[], Link], steps: list[tuple[str, object]]) -> None:
    # conformance: A23 C03
    link = make()
    now = 0.0
    tokens: list[int] = []
    for number, (what, value) in enumerate([*steps, ("closed", None), ("receive", b"\x05")]):
        match what, value:
            case "receive", bytes(data):
                events = link.receive(data, now)
            case "tick", float(seconds):
                now += seconds
                events = link.tick(now)
            case "settle", bool(accepted):
                events = link.settle(tokens.pop(0), Answer(accepted), now) if tokens else []
            case "send", _:
                events = link.send(number, b"MSH|1", now)
            case "closed", _:
                events = link.closed(now)
            case _:
                events = getattr(link, what)()
        tokens += [event.token for event in events if isinstance(event, Part | Received | Oversize)]
        assert link.deadline is None or link.deadline >= now - 40.0
    assert link.deadline is None
    for token in tokens:
        assert not any(hasattr(event, "data") for event in link.settle(token, Answer(True, ()), now))
        try:
            link.settle(token, Answer(True), now)
        except LocalProtocolError:
            continue
        raise AssertionError("a token was settled twice")
