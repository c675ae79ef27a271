"""The LIS01-A2 (ASTM E1381) link as a table of transitions. Theory of operation.

One line, two stations, one of them sending. A station that wants to send bids with ENQ; ACK opens the transfer, in
which every frame waits for its ACK; EOT closes it. Either side of a link here can do both; only contention (both bid
at once) tells host from instrument: the host yields and waits ``contention_time`` (20 s) for the instrument's next
bid, the instrument bids again after its own (1 s).

Receiving: three rules stand above the standard's.

1. Nothing is acknowledged before it is durable. A good frame goes up as a Part (or, when it ends the message, as a
   Received holding the whole message) and the link is SETTLING: it owes an ACK that only ``settle`` can give. What
   arrives meanwhile stays unread, bounded by ``max_message``; so the order of the stream is the order of events, and
   streams whose sender does not wait are read all the same. A frame sent again before its answer left shares that
   answer: two ACKs for one frame would confirm the next frame before it is stored.
2. The peer never waits too long. After ``answer_time`` the link sends NAK itself and is LATE: the token lives on, the
   same frame sent again goes back to SETTLING without coming up again, and when the store accepts meanwhile, the frame
   counts as the last accepted one, so that its repeat is acknowledged at once. Other frames get NAK until then.
3. One token at a time. A session that ends while its last token is unsettled is FINISHING; the next bid is then held
   (ENQ HELD) until the store has answered, or refused with NAK when that takes longer than ``answer_time``.

What ends a message: the frame ended by ETX whose last record ``ends_message``; else the next frame that begins with a
header record; else EOT. An EOT makes a whole message only of frames that are beyond doubt: the last one ended with
ETX, nothing was refused after it, and EOT came promptly (``reply_time`` less ``answer_time``): a sender that gave up,
having missed our ACK, sends EOT as well. Otherwise, and when the session breaks off, the message is Abandoned.

Frame numbers. The next number is a new frame. The last number with the last content is a repeat, because our ACK was
lost: acknowledged, not kept again. The last number with *other* content is kept as a new frame, with a Note: some
analyzers send two records in a row under one number, and to drop one would lose a result without a trace, while the
other possible cause (a frame damaged so that its checksum still fits, and its ACK lost as well) leaves both contents
for a person to see. Any other number is refused: a frame is missing; from then on a number is not used twice.
With ``numbered`` off any number is a new frame, unless number and content are the last ones.

ENQ between frames is a sender that restarted: what it had sent is Abandoned, and it is heard. ENQ or EOT inside an
unfinished frame may as well be a damaged letter. An ACK for such an ENQ would confirm the frame, so it gets NAK, and
the session goes on; a sender that did restart bids again. Such an EOT ends the session but never makes a message whole.

Sending: a message is one session. A frame that is refused (NAK or noise) is sent again, ``refusals`` times (6) at most;
no reply within ``reply_time`` (15 s) ends the session with EOT. EOT in reply to a frame accepts it and asks for the
line: the message is finished, then no bid for ``interrupt_time`` (15 s). ENQ in reply to a frame is a peer that
restarted and wants to send: the message has failed, the peer is heard. Whether to send again is the caller's to say.

TRANSITIONS holds all this as data: ``TRANSITIONS[state][input] = (action, next state)``. The link looks up every
input here, and ignores one that has no row. Each action is a method of Lis01Link; each state has one timer (TIMERS),
started anew by every transition.
"""

from collections.abc import Iterator

from labbridge.wire.lis01_frames import ACK, BAD, ENQ, ENQ_INSIDE, EOT, EOT_INSIDE, FLOOD, NAK, TOO_LONG, TOO_LONG_END

# States
IDLE = "idle"
RECEIVING = "receiving"
SETTLING = "settling"
LATE = "late"
REFUSING = "refusing"
FINISHING = "finishing"
ENQ_HELD = "ENQ held"
BIDDING = "bidding"
SENDING = "sending"
CONTENTION = "contention"
CLOSED = "closed"

# Inputs, besides those that the frame reader finds
ENQ_BUSY = "ENQ while paused"
FRAME = "next frame"
HEADER = "frame with a new header"
REPEAT = "repeated frame"
REPEAT_HELD = "repeat of a frame just answered"
OWED = "the frame owed an answer, again"
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
    IDLE: {ENQ: ("open_session", RECEIVING), ENQ_BUSY: ("refuse", IDLE), BID: ("bid", BIDDING), GONE: ("close", CLOSED)},
    RECEIVING: {
        FRAME: ("pass_up", SETTLING),
        HEADER: ("pass_up_before", SETTLING),
        REPEAT: ("confirm_again", RECEIVING),
        REPEAT_HELD: ("absorb", RECEIVING),
        BAD: ("refuse_frame", RECEIVING),
        ENQ_INSIDE: ("refuse", RECEIVING),
        EXCESS: ("report_excess", REFUSING),
        TOO_LONG: ("skip_frame", RECEIVING),
        TOO_LONG_END: ("report_excess", REFUSING),
        FLOOD: ("cut_off", CLOSED),
        EOT: ("end_session", IDLE),
        EOT_WHOLE: ("pass_up_whole", FINISHING),
        EOT_INSIDE: ("end_session", IDLE),
        ENQ: ("restart_session", RECEIVING),
        ENQ_BUSY: ("refuse_restart", IDLE),
        TIMER: ("give_up", IDLE),
        GONE: ("close", CLOSED),
    },
    SETTLING: {
        ACCEPTED: ("confirm", RECEIVING),
        REJECTED: ("reject", RECEIVING),
        TIMER: ("refuse_late", LATE),
        ENQ: ("hold_bid", ENQ_HELD),
        FLOOD: ("cut_off", CLOSED),
        GONE: ("close", CLOSED),
    },
    LATE: {
        OWED: ("wait_again", SETTLING),
        BAD: ("refuse_frame", LATE),
        ENQ_INSIDE: ("refuse", LATE),
        TOO_LONG: ("skip_frame", LATE),
        TOO_LONG_END: ("refuse_excess", LATE),
        FLOOD: ("cut_off", CLOSED),
        ACCEPTED: ("keep", RECEIVING),
        REJECTED: ("let_go", RECEIVING),
        EOT: ("leave_session", FINISHING),
        EOT_INSIDE: ("leave_session", FINISHING),
        ENQ: ("hold_bid", ENQ_HELD),
        TIMER: ("give_up", FINISHING),
        GONE: ("close", CLOSED),
    },
    REFUSING: {
        BAD: ("refuse_frame", REFUSING),
        ENQ_INSIDE: ("refuse", REFUSING),
        TOO_LONG: ("skip_frame", REFUSING),
        TOO_LONG_END: ("refuse_excess", REFUSING),
        FLOOD: ("cut_off", CLOSED),
        EOT: ("end_session", IDLE),
        EOT_INSIDE: ("end_session", IDLE),
        ENQ: ("restart_session", RECEIVING),
        ENQ_BUSY: ("refuse_restart", IDLE),
        TIMER: ("give_up", IDLE),
        GONE: ("close", CLOSED),
    },
    FINISHING: {ENQ: ("hold_bid", ENQ_HELD), ACCEPTED: ("keep", IDLE), REJECTED: ("lose", IDLE), GONE: ("close", CLOSED)},
    ENQ_HELD: {
        ENQ: ("hold_bid", ENQ_HELD),
        ACCEPTED: ("keep", IDLE),
        REJECTED: ("lose", IDLE),
        TIMER: ("refuse_late", FINISHING),
        FLOOD: ("cut_off", CLOSED),
        GONE: ("close", CLOSED),
    },
    BIDDING: {
        ACK: ("begin", SENDING),
        NAK: ("hold_off", IDLE),
        ENQ: ("yield_line", CONTENTION),
        REFUSED: ("fail_busy", IDLE),
        TIMER: ("fail_unanswered", IDLE),
        GONE: ("close", CLOSED),
    },
    SENDING: {
        ACK: ("advance", SENDING),
        ACK_LAST: ("complete", IDLE),
        NAK: ("transmit", SENDING),  # and any noise
        REFUSED: ("fail_refused", IDLE),
        ENQ: ("yield_session", RECEIVING),
        TIMER: ("fail_unanswered", IDLE),
        GONE: ("close", CLOSED),
    },
    CONTENTION: {
        ENQ: ("open_session", RECEIVING),
        ENQ_BUSY: ("refuse", CONTENTION),
        TIMER: ("end_contention", IDLE),
        GONE: ("close", CLOSED),
    },
    CLOSED: {ACCEPTED: ("keep", CLOSED), REJECTED: ("lose", CLOSED)},
}

# The setting that times each state; the others wait for ever. IDLE is timed only by what forbids a bid for a while.
TIMERS = {
    RECEIVING: "receive_time",
    REFUSING: "receive_time",
    LATE: "receive_time",
    SETTLING: "answer_time",
    ENQ_HELD: "answer_time",
    BIDDING: "reply_time",
    SENDING: "reply_time",
    CONTENTION: "contention_time",
}

FRAMED = frozenset((RECEIVING, LATE, REFUSING))  # states in which frames are looked for
HOLDING = frozenset((SETTLING, ENQ_HELD, CLOSED))  # states in which what arrives stays unread


def transitions() -> Iterator[tuple[str, str, str, str]]:
    """Every row of the table: state, input, action, next state. The documentation's diagram is drawn from it."""
    for state, rows in TRANSITIONS.items():
        for item, (action, target) in rows.items():
            yield state, item, action, target
