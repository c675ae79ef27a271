"""The command line: ``labbridge --help`` lists the commands, each with its own ``--help``.

Exit status: 0 well, 1 failed, 2 wrong usage, 78 wrong configuration.
"""

import typer

from labbridge.cli import acting, looking, mapping, proving, running, trying, users

app = typer.Typer(
    name="labbridge",
    help="Receives, keeps, maps, verifies and delivers a laboratory's results.",
    epilog="What is held: pending, trace. What you may do with it: release, reject, not-reportable, recollect, edit, comment, "
    "call-back, acknowledge; each --help says what the hospital receives, and --preview shows it. A wrong specimen id: correct-id, "
    "which another person confirms with confirm-id. What waits for the hospital: queue.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
queue = typer.Typer(no_args_is_help=True, help="What waits for the hospital: list, retry, cancel, release-mapped.")
maps = typer.Typer(no_args_is_help=True, help="The tables of the mappings: list, show, save, set; what is unmapped.")
user = typer.Typer(no_args_is_help=True, help="Accounts of the console: add, list, change.")
database = typer.Typer(no_args_is_help=True, help="The database: migrate it, say where it stands.")
simulate = typer.Typer(no_args_is_help=True, help="One simulator: an analyzer of any profile, or a hospital.")

app.command("run")(running.run)
app.command("check")(trying.check)
app.command("try")(trying.try_)
app.command("identify")(trying.identify)
app.command("test")(trying.test)
app.add_typer(simulate, name="simulate")
app.command("pending")(looking.pending)
app.command("release")(acting.release)
app.command("reject")(acting.reject)
app.command("not-reportable")(acting.not_reportable)
app.command("recollect")(acting.recollect)
app.command("edit", context_settings={"ignore_unknown_options": True})(acting.edit)  # a value may be negative
app.command("comment")(acting.comment)
app.command("call-back")(acting.call_back)
app.command("acknowledge")(acting.acknowledge)
app.command("viewed")(acting.viewed)
app.command("correct-id")(acting.correct_id)
app.command("confirm-id")(acting.confirm_id)
app.command("withdraw-id")(acting.withdraw_id)
app.add_typer(queue, name="queue")
app.add_typer(maps, name="map")
app.command("trace")(looking.trace)
app.command("init")(trying.init)
app.command("verify")(proving.verify)
app.add_typer(user, name="user")
app.add_typer(database, name="db")
queue.command("list")(looking.queue_list)
queue.command("retry")(acting.retry)
queue.command("send-again")(acting.send_again)
queue.command("cancel")(acting.cancel)
queue.command("release-mapped")(acting.release_mapped)
queue.command("pause")(acting.pause)
queue.command("resume")(acting.resume)
maps.command("list")(mapping.list_)
maps.command("show")(mapping.show)
maps.command("save")(mapping.save)
maps.command("set")(mapping.set_)
maps.command("unmapped")(mapping.list_unmapped)
user.command("add")(users.add)
user.command("list")(users.list_)
user.command("change")(users.change)
database.command("migrate")(acting.migrate)
simulate.callback()(running.simulate)
simulate.command("analyzer")(running.simulate_analyzer)
simulate.command("hospital")(running.simulate_hospital)


def main() -> None:
    """Runs the command line."""
    app()
