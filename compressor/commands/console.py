"""The edge of the command line: results to stdout, everything else to stderr, errors as one sentence and an exit code.

0 done, 1 failed, 2 wrong usage (click's own), 3 a budget or the parity is not met, 130 interrupted. Nobody sees a
traceback: what was not foreseen goes to a log file whose path is printed.
"""

import contextlib
import errno
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, TextIO

import click

SCHEMA_VERSION = 1
FAILED, NOT_MET, INTERRUPTED = 1, 3, 130
FREE_SPACE = "Free some space and run the same command again: finished steps are kept."
OUT_OF_SPACE = (
    "No space left on device", "os error 28", "os error 27", " requested and ", "PytorchStreamWriter failed writing",
    "unexpected pos",
)  # fmt: skip

# Which extra brings a package that the base does not have.
EXTRA_OF = {
    **dict.fromkeys(("onnxruntime",), "cpu"),
    **dict.fromkeys(
        ("accelerate", "datasets", "jinja2", "matplotlib", "onnx", "onnxscript", "optimum", "requests", "safetensors",
         "scipy", "sklearn", "torch", "transformers"),
        "train",
    ),
}  # fmt: skip


class Command(click.Command):
    """A command whose errors are sentences and whose stdout holds only its result."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the body; libraries that print are sent to stderr."""
        ctx.meta["tenmeg.stdout"] = sys.stdout
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except KeyboardInterrupt:
            say("tenmeg: interrupted. Run the same command again to go on where it stopped.")
            ctx.exit(INTERRUPTED)
        except Exception as error:  # the one place where an error becomes a sentence
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of a pipe went away: click ends quietly
            sentences, code = explain(error, ctx.params.get("output"))
            _fail(ctx, sentences, code)


class Group(click.Group):
    """The top command; its commands are ``Command``."""

    command_class = Command


class DefaultGroup(Group):
    """A command with commands of its own: without the name of one, it is the one called ``default``."""

    default = "train"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name in front of flags."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the default's flags, then the commands."""
        command = self.commands[self.default]
        rows = [row for parameter in command.get_params(ctx) if (row := parameter.get_help_record(ctx)) is not None]
        with formatter.section(f"Options of {self.default}"):
            formatter.write_dl(rows)
        self.format_commands(ctx, formatter)


def say(text: str) -> None:
    """Tell the person something that is not the result."""
    click.echo(text, err=True)


def result(data: dict[str, Any], lines: list[str]) -> None:
    """Give the result of a command: ``data`` as JSON with --json (``lines`` then go to stderr), else ``lines``."""
    context = click.get_current_context()
    stdout = context.meta["tenmeg.stdout"]
    if context.meta.get("tenmeg.json"):
        for line in lines:
            say(line)
        _write_json(data, stdout)
    else:
        for line in lines:
            click.echo(line, file=stdout)


def stop_if(violations: list[str]) -> None:
    """End with exit code 3 when a promise was not kept, naming each."""
    if violations:
        _say_violations(violations)
        click.get_current_context().exit(NOT_MET)


def explain(error: Exception, output: Path | None = None) -> tuple[list[str], int]:
    """Return the sentences that a person needs to go on, and the exit code; ``output`` is what was written to."""
    broken = getattr(error, "violations", None)
    if type(error).__name__ in ("OverBudget", "ParityLost"):  # by name: importing parity would cost numpy
        return list(broken or [str(error)]), NOT_MET
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRA_OF:
        package = str(error.name).partition(".")[0]
        extra = EXTRA_OF[package]
        return [f"this needs the package {package!r}, not installed here. Run: pip install 'tenmeg[{extra}]'"], FAILED
    if _is_disk_full(error):
        where = f"--output {output}" if output else getattr(error, "filename", None) or "a file could not be written"
        return [f"{where}: {os.strerror(errno.ENOSPC).lower()}. {FREE_SPACE}"], FAILED
    if isinstance(error, OSError) and error.errno is not None:
        return [_of_the_system(error)], FAILED
    if isinstance(error, OSError):
        return [_one_line(error)], FAILED
    if isinstance(error, MemoryError):
        return ["out of memory. Use a smaller --batch-size, --max-length or --max-rows."], FAILED
    # By name: each of the four packages, which do not know each other, has its own.
    if any(base.__name__ == "Refused" for base in type(error).__mro__):
        return [_one_line(error)], FAILED
    return [f"{type(error).__name__}: {_one_line(error)[:300]} {_log(error)}"], FAILED


def _is_disk_full(error: BaseException | None) -> bool:
    """Say whether a write failed for want of space: numpy, safetensors, torch and protobuf say it in their own ways."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG):
            return True
        if any(word in str(error) for word in OUT_OF_SPACE):
            return True
        error = error.__cause__ or error.__context__
    return False


def _of_the_system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    hints = {
        errno.EDQUOT: FREE_SPACE,
        errno.EACCES: "Check its permissions or choose another --output.",
        errno.EPERM: "Check its permissions or choose another --output.",
        errno.EROFS: "Choose another --output.",
        errno.ENOENT: "Check the path.",
        errno.EISDIR: "Give a file, not a folder.",
        errno.ENOTDIR: "Give a folder, not a file.",
    }
    return f"{where}{reason}. {hints.get(error.errno or 0, '')}".rstrip()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _log(error: Exception) -> str:
    text = " ".join(sys.argv) + "\n" + "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="tenmeg-", suffix=".log")
        os.close(handle)
        Path(name).write_text(text, encoding="utf-8")
    except OSError:
        return "(no log: the temporary folder cannot be written)"
    return f"(unexpected; details in {name})"


def _fail(context: click.Context, sentences: list[str], code: int) -> None:
    if code == NOT_MET:
        _say_violations(sentences)
    else:
        say(f"tenmeg: {sentences[0]}")
    if context.meta.get("tenmeg.json"):
        status = "not met" if code == NOT_MET else "failed"
        _write_json({"status": status, "violations" if code == NOT_MET else "error": sentences}, sys.stdout)
    context.exit(code)


def _say_violations(violations: list[str]) -> None:
    for sentence in violations:
        say(f"tenmeg: not met: {sentence}")


def _write_json(data: dict[str, Any], stdout: TextIO) -> None:
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **data}, indent=2, sort_keys=True), file=stdout)
