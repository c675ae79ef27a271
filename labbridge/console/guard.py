"""Every request passes here first: who asks, from which page, and what the answer forbids the browser to do.

Only the login, the files of the framework and the icon are for everybody. A change comes over the websocket, or by one of
the two forms; both must come from a page of ours, which ``Origin`` tells.
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, urlsplit

from nicegui import Client
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
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
        headers, path = Headers(scope=scope), scope["path"]
        session.asked.set(scope)
        answer = send if scope["type"] == "websocket" else _Answer(send)
        changes = scope["type"] == "websocket" or scope.get("method") not in ("GET", "HEAD")
        if changes and not same_origin(headers):
            await _refuse(scope, receive, answer, PlainTextResponse("not from a page of labbridge", 403))
            return
        if path.startswith(SOCKET) and scope["type"] == "http":
            await _refuse(scope, receive, answer, PlainTextResponse("websocket only", 403))
            return
        if not path.startswith(OPEN):
            refusal = await self._known(scope, headers)
            if refusal is None and path.startswith(SOCKET) and not _own_page(scope):
                refusal = PlainTextResponse("another session's page", 403)
            if refusal is not None:
                await _refuse(scope, receive, answer, refusal)
                return
        await self._app(scope, receive, answer)

    async def _known(self, scope: Scope, headers: Headers) -> PlainTextResponse | RedirectResponse | None:
        """Notes whose request it is; the answer to who is nobody."""
        try:
            scope[session.KEY] = found = await session.whose(token(headers))
        except session.Silent:
            return PlainTextResponse(_("labbridge does not answer. Please try again."), 503, {"Refresh": "3"})
        return None if found is not None else RedirectResponse("/login?next=" + quote(quote(scope["path"]), safe=""), 303)


def token(headers: Headers) -> str:
    """The session's token in the cookie."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(session.COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def same_origin(headers: Headers) -> bool:
    """Whether a page of ours made the request, as the browser says."""
    origin = urlsplit(headers.get("origin", "")).netloc
    return bool(origin) and origin == headers.get("host") and headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _own_page(scope: Scope) -> bool:
    """Whether the page that a websocket belongs to was made for the same session."""
    asked = parse_qs(scope["query_string"].decode("latin-1")).get("client_id", [""])[0]
    client = Client.instances.get(asked)
    owner = client.request.scope.get(session.KEY) if client else None
    return owner is None or owner.session == scope[session.KEY].session


async def _refuse(scope: Scope, receive: Receive, send: Send, response: PlainTextResponse | RedirectResponse) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await response(scope, receive, send)


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
