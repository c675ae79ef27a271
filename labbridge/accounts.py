"""Accounts of the console: names, roles, passwords, and the commands that change them.

A password is kept as argon2id alone. Hashing takes a while on purpose, so it is done before the command's transaction, in a
thread of the daemon: what the functions here find in ``Request.password`` is a hash already (``prepared``). The audit tells of
every change, never of a password.
"""

import re
from collections.abc import Callable, Mapping

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from labbridge.commands import CommandError, Done, Request
from labbridge.pipeline import Moment, Revision
from labbridge.roles import ROLES
from labbridge.said import Said
from labbridge.store import Transaction
from labbridge.store.rows import Account

SHORTEST, LONGEST = 8, 256  # of a password
LANGUAGES = ("en", "zh")
_NAME = re.compile(r"[\w.@-]{1,40}")
DEMONSTRATION = {f"demo-{role}": role for role in ROLES}  # accounts of `labbridge run --simulate`
_RESERVED = {"rules", "labbridge", *DEMONSTRATION}  # who acts where nobody does
# 19 MiB and one thread: what OWASP asks for, and little beside a daemon that has analyzers to answer.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def named(text: str) -> str:
    """An account's name as it is kept: case and space around it do not matter."""
    return text.strip().lower()


def matches(hash: str, password: str) -> bool:
    """Tells whether this is the password; takes as long where there is no hash, so that nobody learns who has an account."""
    if len(password) > LONGEST:
        return False
    if not hash:
        _HASHER.hash(password)
        return False
    try:
        return _HASHER.verify(hash, password)
    except (VerificationError, InvalidHashError):
        return False


def prepared(request: Request) -> Request:
    """The request with the hash of its new password instead of it; raises CommandError where the password will not do."""
    password = request.password
    if not SHORTEST <= len(password) <= LONGEST:
        why = Said("too short") if len(password) < SHORTEST else Said("too long")
        raise CommandError("the password is {why}: {least} to {most} characters", why=why, least=SHORTEST, most=LONGEST)
    if password.lower() == named(request.account):
        raise CommandError("the password is the account's name: choose another")
    return msgspec.structs.replace(request, password=hashed(password), known="")


def add(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Makes an account."""
    name = named(request.account)
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise CommandError('"{name}" is no name for an account: up to 40 letters, digits and . _ - @', name=request.account[:40])
    if not request.password:
        raise CommandError("an account needs a password")
    if tx.account(name):
        raise CommandError("there is an account {name}: change it, or choose another name", name=name)
    account = Account(0, name, _known(request.role), request.language or "en", "active", request.password)
    return _kept(tx, request, actor, None, account, Said("account {name} added: {role}", name=name, role=Said(account.role)))


def change(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Gives an account another role, password or language, or disables or enables it (``value``: disabled, active)."""
    old = _found(tx, request)
    if request.value not in ("", "active", "disabled"):
        raise CommandError('an account is active or disabled, not "{state}"', state=request.value[:40])
    new = msgspec.structs.replace(
        old,
        role=_known(request.role) if request.role else old.role,
        language=request.language or old.language,
        state=request.value or old.state,
        hash=request.password or old.hash,
    )
    if _rules(old) and not _rules(new) and not any(_rules(one) for one in tx.accounts() if one.id != old.id):
        raise CommandError("{name} is the last administrator: make another one first", name=old.name)
    changed = [what for what in ("role", "language", "state") if getattr(old, what) != getattr(new, what)]
    said = [Said("{what} {now}", what=Said(what), now=Said(getattr(new, what))) for what in changed]
    said += [Said("a new password")] * bool(request.password)
    if not said:
        return Done(answer=_answer(old))
    return _kept(tx, request, actor, old, new, Said("account {name}: {told}", name=old.name, told=said))


def password(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Gives one's own account another password; the old one was asked for before."""
    old = _found(tx, request)
    if not request.password:
        raise CommandError("there is no new password")
    told = Said("account {name}: {told}", name=old.name, told=Said("a new password"))
    return _kept(tx, request, actor, old, msgspec.structs.replace(old, hash=request.password), told)


def language(tx: Transaction, revision: Revision, moment: Moment, request: Request, actor: str) -> Done:
    """Gives one's own account another language."""
    old = _found(tx, request)
    new = msgspec.structs.replace(old, language=request.language or old.language)
    told = Said("{what} {now}", what=Said("language"), now=new.language)
    return _kept(tx, request, actor, old, new, Said("account {name}: {told}", name=old.name, told=told))


def demonstrate(tx: Transaction, hashes: Mapping[str, str]) -> bool:
    """Makes the accounts of the demonstration, with these hashes of new passwords, where nobody else has an account."""
    there = {account.name: account for account in tx.accounts()}
    if there.keys() - DEMONSTRATION.keys():
        return end_demonstration(tx)
    for name, role in DEMONSTRATION.items():
        number = there[name].id if name in there else 0
        tx.keep_account(Account(number, name, role, there[name].language if number else "en", "active", hashes[name]))
        tx.audit(actor="labbridge", action="demonstration", subject=f"account {name}", new="active")
    return True


def end_demonstration(tx: Transaction) -> bool:
    """Disables the accounts of a demonstration, whose password somebody may remember; there is none from now on."""
    for account in tx.accounts():
        if account.name in DEMONSTRATION and account.state == "active":
            tx.keep_account(msgspec.structs.replace(account, state="disabled"))
            tx.audit(actor="labbridge", action="demonstration", subject=f"account {account.name}", old="active", new="disabled")
    return False


def hashed(password: str) -> str:
    """The hash that is kept of a password."""
    return _HASHER.hash(password)


def _known(role: str) -> str:
    if role not in ROLES:
        raise CommandError('"{role}" is no role: {roles}', role=role[:40], roles=[Said(one) for one in ROLES])
    return role


def _found(tx: Transaction, request: Request) -> Account:
    account = tx.account(named(request.account))
    if account is None:
        raise CommandError("there is no account {name}", name=request.account[:40])
    return account


def _rules(account: Account) -> bool:
    """Whether it is an administrator who can log in."""
    return (account.role, account.state) == ("administrator", "active")


def _kept(tx: Transaction, request: Request, actor: str, old: Account | None, new: Account, said: Said) -> Done:
    """Keeps an account as it is now, with its line in the audit."""
    if new.language not in LANGUAGES:
        wrong, known = new.language[:40], list(LANGUAGES)
        raise CommandError('"{language}" is no language of the screens: {languages}', language=wrong, languages=known)
    tx.keep_account(new)
    told = {"old": _told(old) if old else "", "new": _told(new, password=bool(request.password))}
    tx.audit(actor=actor, action=request.command, subject=f"account {new.name}", reason=request.reason, **told)
    return Done([said], _answer(new))


def _told(account: Account, password: bool = False) -> str:
    about = {"role": account.role, "language": account.language, "state": account.state}
    return msgspec.json.encode({**about, **({"password": "changed"} if password else {})}).decode()


def _answer(account: Account) -> dict[str, str]:
    return {"account": account.name, "role": account.role, "language": account.language, "state": account.state}


COMMANDS: dict[str, Callable[[Transaction, Revision, Moment, Request, str], Done]] = {
    "account-add": add,
    "account-change": change,
    "password": password,
    "language": language,
}
