"""Every request passes here first: who asks, from which page, and what the answer forbids the browser to do.

Only the login, the files of the framework and the icon are for everybody. A change comes over the websocket, or by one of
the two forms; both must come from a page of ours, which ``Origin`` tells.
"""

import secrets
from urllib.parse import parse_qs, quote, urlsplit

from nicegui import Client
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labbridge.console import session
from labbridge.views.texts import _

OPEN = ("/login", "/favicon.ico", "/_nicegui/")
SOCKET = "/_nicegui_ws/"
# The framework compiles its templates in the browser, and sets styles: without "unsafe-eval" nothing would show.
_POLICY = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; media-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # "no-referrer" would take the Origin from our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request pass, or answers it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        session.asked.set(scope)
        socket = scope["type"] == "websocket"
        answer = send if socket else _Answer(send)
        refusal = await _refusal(HTTPConnection(scope), socket)
        if refusal is None:
            await self._app(scope, receive, answer)
        elif socket:
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, answer)


async def _refusal(asked: HTTPConnection, socket: bool) -> Response | None:
    """The answer to what may not pass; notes whose request it is where it may."""
    scope, path = asked.scope, asked.scope["path"]
    if (socket or scope["method"] not in ("GET", "HEAD")) and not _same_origin(asked.headers):
        return PlainTextResponse("not from a page of labbridge", 403)
    if path.startswith(OPEN):
        return None
    if path.startswith(SOCKET) and not socket:
        return PlainTextResponse("websocket only", 403)
    try:
        scope[session.KEY] = found = await session.whose(asked.cookies.get(session.COOKIE, ""))
    except session.Silent:
        return PlainTextResponse(_("labbridge does not answer. Please try again."), 503, {"Refresh": "3"})
    if found is None:
        return RedirectResponse("/login?next=" + quote(quote(path), safe=""), 303)
    wanted = parse_qs(scope["query_string"].decode("latin-1")).get("client_id", [""])[0]  # read as the framework does
    client = Client.instances.get(wanted) if socket else None
    owner = client.request.scope.get(session.KEY) if client else None
    if owner is not None and owner.session != found.session:
        return PlainTextResponse("another session's page", 403)
    return None


def _same_origin(headers: Headers) -> bool:
    """Whether a page of ours made the request, as the browser says."""
    origin = urlsplit(headers.get("origin", "")).netloc
    return bool(origin) and origin == headers.get("host") and headers.get("sec-fetch-site", "same-origin") == "same-origin"


class _Answer:
    """Sends an answer with the headers, and a page with the nonce in its own scripts: any other does not run."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._nonce = secrets.token_urlsafe(16)
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            headers.update(_HEADERS)
            headers["Content-Security-Policy"] = _POLICY.format(nonce=self._nonce)
            if headers.get("content-type", "").startswith("text/html"):
                self._start = message
                return
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = self._body.replace(b"<script", b'<script nonce="%s"' % self._nonce.encode())
            MutableHeaders(raw=self._start["headers"])["Content-Length"] = str(len(body))
            await self._send(self._start)
            message = {"type": "http.response.body", "body": body}
        await self._send(message)
