"""The command line ``semacdr``. Errors end with one message: exit 2 for the user's mistakes, 1 for faults."""

from __future__ import annotations

import logging
from typing import Any

import click

from semacdr import __version__
from semacdr.cli.aliases import promote, rollback
from semacdr.cli.artifacts import artifacts, diff, lineage, show
from semacdr.cli.comparison import ablate, compare_, evaluate, score_, transfer, tune
from semacdr.cli.init import init
from semacdr.cli.pipeline import doctor, run
from semacdr.cli.query import sql
from semacdr.cli.recommend import recommend
from semacdr.cli.report import report
from semacdr.cli.semantics import semantics
from semacdr.cli.upkeep import catalog, prune, verify
from semacdr.errors import ConfigError, SemacdrError
from semacdr.logs import configure_logging

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Make": (init, run, semantics, tune, doctor),
    "Serve": (recommend,),
    "Compare": (evaluate, compare_, ablate, transfer, score_, report),
    "Look": (artifacts, show, diff, lineage, sql),
    "Point at": (promote, rollback),
    "Keep in order": (verify, prune, catalog),
}


class _Group(click.Group):
    """Prints our errors as messages; ``--debug`` lets them rise with their traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's own signature)
        try:
            return super().invoke(ctx)
        except (SemacdrError, OSError) as error:
            # One without a file, such as a broken pipe, is click's own to handle.
            if ctx.params.get("debug") or (isinstance(error, OSError) and error.filename is None):
                raise
            told = error if isinstance(error, SemacdrError) else _of_file(error)
            click.secho(type(told).__name__, fg="red", bold=True, err=True)
            click.echo(str(told), err=True)
            ctx.exit(told.exit_code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(command.name or "", command.get_short_help_str(160)) for command in commands])


def _of_file(error: OSError) -> ConfigError:
    return ConfigError(
        f"{error.filename} cannot be used",
        found=error.strerror,
        expected="a file or folder that this user may read, and write where something is made",
        do="mend the path or its permissions; --debug before the command shows where it was wanted",
    )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks and debug events.")
def main(debug: bool) -> None:
    """Cross-domain sequential recommendation from LLM-written item semantics.

    A DATASET is the path of a data set's TOML, its folder, or its name below ./examples
    (docs/datasets.md). Settings come from semacdr.toml and SEMACDR_* variables.
    """
    configure_logging(level=logging.DEBUG if debug else logging.INFO, console=True)


for _commands in SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
