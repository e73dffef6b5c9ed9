"""From the command line to a verb, and from its end to an exit code."""

import argparse
import difflib
import functools
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from mmjax.cli import settings
from mmjax.cli.verbs import VERBS, Verb
from mmjax.core.errors import ConfigError, ExitCode, MmjaxError
from mmjax.core.programs import keep_programs

SUMMARY = "Guards the data that multimodal contrastive models (CLIP) learn from."
EXIT_CODES = """exit codes: 0 done; 1 --fail_on reached; 2 you must act; 3 finished, but more inputs
were skipped than allowed; 42 terminated or a peer is lost: start it again; 130 interrupted"""
MEASURES_COMPILING = ("bench", "plan")
"""The verbs that tell how long compiling takes."""


class Terminated(BaseException):
    """SIGTERM arrived."""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are mmjax's errors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see: {self.prog} --help")


def entry_point() -> NoReturn:
    """What the installed `mmjax` script calls."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one verb and return its exit code; one line on stderr when the user must act."""
    arguments = [_underscored(a) for a in argv]
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    before, hook = signal.signal(signal.SIGTERM, _raise_terminated), sys.unraisablehook
    sys.unraisablehook = functools.partial(_signal_again, hook)
    try:
        return _flushed(int(_run(arguments)))
    except MmjaxError as error:
        _say_error(error, debug)
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here")
        return ExitCode.SIGINT
    except Terminated:
        _say("terminated; the same command goes on from here")
        return ExitCode.RETRY
    except BrokenPipeError:
        # in the middle of the output; a gate must not take that for a pass
        return _flushed(128 + signal.SIGPIPE)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        # a device's message goes on with tables of its buffers
        what = str(error).partition("\n")[0][:200]
        told = MmjaxError(
            f"out of memory ({what}); lower --batch_size, or give it more devices or memory "
            "(`mmjax plan` says what fits an accelerator)"
        )
        told.__cause__ = error
        _say_error(told, debug)
        return ExitCode.USER
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = hook


def _flushed(code: int) -> int:
    """The code, whatever became of the reader of our output; Python must not complain at exit."""
    if sys.stdout is not None:  # as it is where the shell has closed it
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        _print_overview()
        return ExitCode.DONE if arguments else ExitCode.USER
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("mmjax"))
        return ExitCode.DONE
    name, *arguments = arguments
    if name not in VERBS:
        raise ConfigError(f"unknown verb {name!r}{_meant(name, VERBS)}; verbs: {', '.join(VERBS)}")
    verb = VERBS[name]
    parser = make_parser(name, verb)
    if "--help" in arguments or "-h" in arguments:
        print(_help_text(parser, verb))
        return ExitCode.DONE
    if name not in MEASURES_COMPILING:
        keep_programs()  # before a configuration file may import JAX
    plain, overrides = settings.split_overrides(arguments)
    parsed, strange = parser.parse_known_args(plain)
    if strange:
        flags = [f"--{flag.name}" for flag in verb.flags]
        meant = _meant(strange[0].partition("=")[0], flags)
        parser.error(f"unrecognized arguments: {' '.join(strange)}{meant}")
    config = None
    if verb.config:
        shorthand: dict[str, Any] = {}
        for flag in verb.flags:
            value = getattr(parsed, flag.name)
            if not flag.key or value is None:
                continue
            if isinstance(value, str):
                overrides.setdefault(flag.key, value)
            else:
                shorthand[flag.key] = value
        if verb.inputs_key and parsed.inputs:
            shorthand[verb.inputs_key] = tuple(parsed.inputs)
        default = parsed.config or verb.default_config
        base = _load(verb.base)(parsed) if verb.base else None
        config = settings.load(_load(verb.config), default, overrides, shorthand, base)
    elif overrides:
        raise ConfigError(f"mmjax {name} has no configuration, got {next(iter(overrides))}")
    # Weights and tokenizers come from folders; nothing is ever asked of a hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    run: Callable[..., int] = _load(verb.run)
    return run(config, parsed)


def make_parser(name: str, verb: Verb) -> argparse.ArgumentParser:
    """The argument parser of one verb."""
    usage = f"mmjax {name} [--FLAG=VALUE ...]"
    if verb.inputs:
        several = "" if verb.inputs_count == 1 else " ..."
        usage = f"mmjax {name} {verb.inputs}{several} [--FLAG=VALUE ...]"
    parser = _Parser(
        prog=f"mmjax {name}",
        usage=usage,
        description=verb.summary,
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if verb.inputs:
        parser.add_argument(
            "inputs", nargs=verb.inputs_count, metavar=verb.inputs, help=verb.inputs_doc
        )
    if verb.config:
        named = f", or a name such as {verb.default_config}" if verb.default_config else ""
        doc = f"a configuration file{named}"
        parser.add_argument("--config", default="", metavar="FILE", help=doc)
    for flag in verb.flags:
        options: dict[str, Any] = {"help": flag.doc.replace("%", "%%"), "default": flag.default}
        if flag.kind is not bool:
            options |= {"type": flag.kind, "metavar": flag.value}
            if flag.repeated:
                options["action"] = "append"
        elif flag.key:  # a configuration may have switched it on
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["action"] = "store_true"
        parser.add_argument(f"--{flag.name}", **options)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _help_text(parser: argparse.ArgumentParser, verb: Verb) -> str:
    text = parser.format_help()
    if verb.example:
        text += "\nexample:\n" + "".join(f"  {line}\n" for line in verb.example.splitlines())
    if verb.config:
        text += "\nconfiguration, --config.KEY=VALUE:\n" + settings.help_table(_load(verb.config))
    return text + "\n" + EXIT_CODES


def _print_overview() -> None:
    width = max(map(len, VERBS))
    lines = [f"  mmjax {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    print(f"{SUMMARY}\n\nverbs:", *lines, sep="\n")
    print("\nmmjax VERB --help shows its options and an example.\n\n" + EXIT_CODES)


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _underscored(argument: str) -> str:
    """`--write-clean=x` and `--write_clean=x` are the same flag."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    negation = "no-" if name.startswith(("no-", "no_")) else ""
    return "--" + negation + name[len(negation) :].replace("-", "_") + equals + value


def _raise_terminated(signum: int, frame: object) -> NoReturn:
    raise Terminated


def _signal_again(otherwise: Callable[[Any], object], unraisable: Any) -> None:
    """Send a signal once more whose exception was swallowed, in a callback of the collector."""
    numbers = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
    if unraisable.exc_type in numbers:
        number = numbers[unraisable.exc_type]
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
    else:
        otherwise(unraisable)


def _say(line: str) -> None:
    print(f"mmjax: {line}", file=sys.stderr)


def _say_error(error: MmjaxError, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    _say("error: " + " ".join(str(error).split()))
