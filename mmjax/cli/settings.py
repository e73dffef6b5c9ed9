"""Configuration files and `--config.key=value` overrides, turned into one frozen dataclass."""

import copy
import dataclasses
import difflib
import json
import os
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from mmjax.core import config as configs
from mmjax.core.config_file import from_file
from mmjax.core.errors import ConfigError

PREFIX = "--config."


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Separate `--config.a.b=v` (or `--config.a.b v`) from the other arguments.

    Raises:
        ConfigError: an override without a value.
    """
    plain: list[str] = []
    overrides: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith(PREFIX):
            plain.append(argument)
            continue
        key, equals, value = argument[len(PREFIX) :].partition("=")
        if not equals:
            value = next(rest, "")
            if not value:
                raise ConfigError(f"{argument} wants a value: {argument}=VALUE")
        overrides[key] = value
    return plain, overrides


def load(
    cls: type,
    file: str,
    overrides: Mapping[str, str],
    shorthand: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
) -> Any:
    """The configuration `cls` from a file, then from flags, then from overrides.

    Args:
        cls: the configuration's dataclass.
        file: a path, or a name such as `scan/cc3m`; empty for `base`.
        overrides: dotted key to text, converted by the type of the field.
        shorthand: dotted key to value, from flags such as `--weights`.
        base: nested values instead of the defaults.

    Raises:
        ConfigError: no such file, an unknown key, or a value of the wrong type.
    """
    values = from_file(file) if file else copy.deepcopy(dict(base or {}))
    for key, value in shorthand.items():
        _put(values, key, value)
    for key, text in overrides.items():
        _put(values, key, _from_text(text, _hint_of(cls, key), f"config.{key}"))
    return configs.parse(cls, values)


def help_table(cls: type) -> str:
    """The options of a configuration, one line each."""
    width = 32
    lines = []
    columns = max(60, int(os.environ.get("COLUMNS", "100")) - width - 4)
    for key, default, doc in configs.describe(cls):
        text = textwrap.wrap(f"{doc} [{default}]", columns)
        lines.append(f"  {key:<{width}}  {text[0]}")
        lines += [" " * (width + 4) + line for line in text[1:]]
    return "\n".join(lines) + "\n"


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[last] = value


def _hint_of(cls: type, key: str) -> Any:
    """The annotated type of a dotted key."""
    hint: Any = cls
    for name in key.split("."):
        hints = typing.get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
        if name not in hints:
            known = [row[0] for row in configs.describe(cls)]
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint_text = f"; did you mean config.{near[0]}?" if near else ""
            raise ConfigError(f"unknown key config.{key}{hint_text}")
        hint = hints[name]
    return hint


def _from_text(text: str, hint: Any, where: str) -> Any:
    """`text` as a value of type `hint`."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        by_text = {str(v): v for v in typing.get_args(hint)}
        return by_text.get(text, text)
    if origin in (Union, types.UnionType):
        for option in typing.get_args(hint):
            if option is type(None):
                if text == "None":
                    return None
                continue
            try:
                return _checked(text, option, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} wants {hint}, got {text!r}")
    if origin is tuple:
        element = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(element):
            try:
                return json.loads(text)
            except ValueError as error:
                raise ConfigError(f"{where} wants a JSON list of groups: {error}") from error
        return tuple(_from_text(t, element, where) for t in text.split(",") if t)
    if dataclasses.is_dataclass(hint):
        raise ConfigError(f"{where} is a group; set one of its keys, e.g. {where}.KEY=VALUE")
    return _checked(text, hint, where)


def _checked(text: str, hint: Any, where: str) -> Any:
    if typing.get_origin(hint) is Literal:
        if text in typing.get_args(hint):
            return text
        raise ConfigError(f"{where} wants one of {typing.get_args(hint)}, got {text!r}")
    if hint is bool:
        known = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in known:
            raise ConfigError(f"{where} wants true or false, got {text!r}")
        return known[text.lower()]
    try:
        return hint(text)
    except ValueError as error:
        raise ConfigError(f"{where} wants {hint.__name__}, got {text!r}") from error
