"""The LIS01-A2 (ASTM E1381) link as a table of transitions. Theory of operation.

One line, two stations, one of them sending. A station that wants to send bids with ENQ; ACK opens the transfer, in
which every frame waits for its ACK; EOT closes it. Either side of a link here can do both; only contention (both bid
at once) tells host from instrument: the host yields and waits ``contention_time`` (20 s) for the instrument's next
bid, the instrument bids again after its own (1 s).

Receiving: three rules stand above the standard's.

1. Nothing is acknowledged before it is durable. A good frame goes up as a Part (or, when it ends the message, as a
   Received holding the whole message) and the link is SETTLING: it owes an ACK that only ``settle`` can give. One token
   at a time: what arrives meanwhile, whatever it is, stays unread, bounded by ``max_message``; so the order of the stream
   is the order of events, and streams whose sender does not wait are read all the same.
2. The peer never waits too long. After ``answer_time`` the link sends NAK itself, and forgets what is unread. The token
   lives on. The same frame sent again is unread until the token is settled, then acknowledged without coming up a
   second time; after another ``answer_time`` it gets NAK again. So does a bid.
3. One reply for what the peer awaits one reply for. A frame sent again before its answer left shares that answer, and no
   reply leaves while a bid is unread: the peer would take it for the bid's, and the bid's for its first frame's, which
   were then confirmed before it is stored.

What ends a message: the frame ended by ETX whose last record ``ends_message``; else the next frame that begins with a
header record; else EOT. An EOT makes a whole message only of frames that are beyond doubt: the last one ended with
ETX, nothing was refused after it, and EOT came promptly (``reply_time`` less ``answer_time``): a sender that gave up,
having missed our ACK, sends EOT as well. Otherwise, and when the session breaks off, the message is Abandoned.

Frame numbers. The next number is a new frame. The last number with the last content is a repeat, because our ACK was
lost: acknowledged, not kept again. The last number with *other* content, when nothing was refused since, is kept as a
new frame, with a Note: some analyzers send two records in a row under one number, and to drop one would lose a result
without a trace, while the other possible cause (a frame damaged so that its checksum still fits, and its ACK lost as
well) leaves both contents for a person to see. Any other number is refused: a frame is missing. With ``numbered`` off
any number is a new frame, unless number and content are the last ones.

A frame that was refused is a Stray when the connection ends: resent if it came right before its transmission ended, and
no message of that broke off; else for a person to see.

A message above ``max_message`` comes up as Oversize; its frame is refused, and so are all others of the session. A
frame, or a peer that does not wait, that grows beyond it without end is cut off.

ENQ between frames is a sender that restarted: what it had sent is Abandoned, and it is heard. ENQ or EOT inside an
unfinished frame may as well be a damaged letter. An ACK for such an ENQ would confirm the frame, so it gets NAK, and
the session goes on; a sender that did restart bids again. Such an EOT ends the session but never makes a message whole.

Sending: a message is one session. A bid that is refused is repeated after ``busy_time`` (10 s). A frame that is refused
(NAK or noise) is sent again, ``refusals`` times (6) at most; no reply within ``reply_time`` (15 s) ends the session with
EOT. EOT in reply to a frame accepts it and asks for the line: the message is finished, then no bid for
``interrupt_time`` (15 s). ENQ in reply to a frame is a peer that restarted and wants to send: the message has failed, the
peer is heard. Whether to send again is the caller's to say.

TRANSITIONS holds all this as data: ``TRANSITIONS[state][input] = (action, next state)``. The link looks up every
input here, and ignores one that has no row. Each action is a method of Lis01Link; each state has one timer (TIMERS),
started anew by every transition.
"""

from collections.abc import Iterator

# States
IDLE = "idle"
RECEIVING = "receiving"
SETTLING = "settling"
BIDDING = "bidding"
SENDING = "sending"
CLOSED = "closed"

# Inputs: what the frame reader finds besides frames
ENQ, EOT, ACK, NAK = "ENQ", "EOT", "ACK", "NAK"
NOISE = "other bytes"
BAD = "bad frame"
TOO_LONG = "more than max_message without end"

# Inputs: what else happens
ENQ_BUSY = "ENQ while paused"
FRAME = "next frame"
HEADER = "frame with a new header"
REPEAT = "repeated frame"
EXCESS = "frame beyond the limit of the message"
EOT_WHOLE = "EOT after a message without end"
ACCEPTED = "settled: durable"
REJECTED = "settled: not stored"
BID = "something to send"
ACK_LAST = "ACK of the last frame"
REFUSED = "refused too often"
TIMER = "time is up"
GONE = "connection closed"

TRANSITIONS: dict[str, dict[str, tuple[str, str]]] = {
    IDLE: {ENQ: ("open_session", RECEIVING), ENQ_BUSY: ("refuse_session", IDLE), BID: ("bid", BIDDING), GONE: ("close", CLOSED)},
    RECEIVING: {
        FRAME: ("pass_up", SETTLING),
        HEADER: ("pass_up_before", SETTLING),
        EOT_WHOLE: ("pass_up_ended", SETTLING),
        EXCESS: ("pass_up_excess", SETTLING),
        REPEAT: ("acknowledge", RECEIVING),
        BAD: ("refuse_frame", RECEIVING),
        EOT: ("end_session", IDLE),
        ENQ: ("open_session", RECEIVING),
        ENQ_BUSY: ("refuse_session", IDLE),
        TOO_LONG: ("cut_off", CLOSED),
        TIMER: ("give_up", IDLE),
        GONE: ("close", CLOSED),
    },
    SETTLING: {
        ACCEPTED: ("keep", RECEIVING),
        REJECTED: ("reject", RECEIVING),
        TIMER: ("refuse_late", SETTLING),
        TOO_LONG: ("cut_off", CLOSED),
        GONE: ("close", CLOSED),
    },
    BIDDING: {
        ACK: ("transmit", SENDING),
        NAK: ("hold_off", IDLE),
        ENQ: ("yield_line", IDLE),
        TIMER: ("fail", IDLE),
        GONE: ("close", CLOSED),
    },
    SENDING: {
        ACK: ("advance", SENDING),
        ACK_LAST: ("complete", IDLE),
        NAK: ("transmit", SENDING),  # and any noise
        REFUSED: ("fail", IDLE),
        ENQ: ("yield_session", RECEIVING),
        TIMER: ("fail", IDLE),
        GONE: ("close", CLOSED),
    },
    CLOSED: {REJECTED: ("lose", CLOSED)},
}

# The setting that times each state; the others wait for ever. IDLE is timed only by what forbids a bid for a while.
TIMERS = {RECEIVING: "receive_time", SETTLING: "answer_time", BIDDING: "reply_time", SENDING: "reply_time"}


def transitions() -> Iterator[tuple[str, str, str, str]]:
    """Every row of the table: state, input, action, next state. The documentation's diagram is drawn from it."""
    for state, rows in TRANSITIONS.items():
        for item, (action, target) in rows.items():
            yield state, item, action, target
