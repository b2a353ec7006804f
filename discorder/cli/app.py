"""The typer application: which commands there are, in the order of the help."""

from __future__ import annotations

import typer

from discorder.cli import budget, check_config, demo, diagram, init, keygen, replay, send, serve, simulate, tail, verify

app = typer.Typer(
    name="discorder",
    help=(
        "A control plane for the Discord gateway: holds a bot's sessions through every failure and publishes each event.\n\n"
        "Start with 'discorder demo' (no token needed), then 'discorder init' and 'discorder serve --config discorder.toml'."
    ),
    epilog=(
        "Exit codes: 0 asked to stop, 1 internal error, 2 usage, 69 gateway unreachable, 74 log or store not writable, "
        "75 identify budget spent, 76 failure under fail_on_error, 77 token or intents refused, 78 configuration."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("serve")(serve.serve)
app.command("budget")(budget.budget)
app.command("demo")(demo.demo)
app.command("simulate")(simulate.simulate)
app.command("tail")(tail.tail)
app.add_typer(send.send, name="send")
app.command("keygen")(keygen.keygen)
app.command("replay")(replay.replay)
app.command("verify")(verify.verify)
app.command("diagram")(diagram.diagram)
app.command("init")(init.init)
app.command("check-config")(check_config.check_config)
