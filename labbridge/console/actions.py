"""What people do, in words: the actions of the table of roles, and those that only the audit knows."""

from labbridge.views.texts import _


def pages() -> dict[str, str]:
    """The pages one may see."""
    return {
        "see line": _("see the line"),
        "see pending": _("see what is pending"),
        "see specimen": _("see a specimen"),
        "see queue": _("see the queue"),
        "see unmapped": _("see what is unmapped"),
        "see mappings": _("see the mappings"),
        "see audit": _("see the audit"),
        "see accounts": _("see the accounts"),
    }


def commands() -> dict[str, str]:
    """The commands."""
    return {
        "release": _("release results"),
        "reject": _("reject results"),
        "not-reportable": _("make results not reportable"),
        "recollect": _("ask for a new specimen"),
        "edit": _("edit or enter a value"),
        "comment": _("comment"),
        "call-back": _("note a call about a critical value"),
        "acknowledge": _("silence the signal"),
        "correct-id": _("propose another specimen id"),
        "confirm-id": _("confirm another specimen id"),
        "withdraw-id": _("withdraw a proposed specimen id"),
        "export": _("export a specimen"),
        "viewed": _("open a specimen"),
        "retry": _("retry a delivery"),
        "cancel": _("cancel a delivery"),
        "send-again": _("send again"),
        "pause": _("pause a destination"),
        "resume": _("resume a destination"),
        "release-mapped": _("release what was mapped"),
        "map": _("change a mapping"),
        "reload": _("reload the configuration"),
        "account-add": _("add an account"),
        "account-change": _("change an account"),
        "password": _("change one's password"),
        "language": _("change one's language"),
        "status": _("see how labbridge stands"),
    }


def others() -> dict[str, str]:
    """What is in the audit and nobody's command."""
    return {
        "login": _("logged in"),
        "logout": _("logged out"),
        "login-failed": _("wrong password"),
        "account-locked": _("locked after wrong passwords"),
        "settle": _("settled a message"),
        "demonstration": _("account of a demonstration"),
        "retention": _("deleted what is old"),
    }
