"""Configurations: parsed once, at the edge, from nested mappings into frozen dataclasses.

A configuration class is a frozen dataclass whose fields are made by `option`; it may nest others.
`parse` is the only way in, and it names the key, what it got and what it accepts.
"""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from mmjax.core.errors import ConfigError

T = TypeVar("T")


def option(
    default: Any = dataclasses.MISSING,
    doc: str = "",
    *,
    low: int | float | None = None,
    high: int | float | None = None,
) -> Any:
    """A documented field of a configuration.

    Args:
        default: its value when the key is absent; without one the key must be given.
        doc: one line for `--help`: meaning and unit.
        low: smallest accepted number (inclusive), for every element of a tuple too.
        high: largest accepted number (inclusive).
    """
    metadata = {"doc": doc, "low": low, "high": high}
    if dataclasses.is_dataclass(default) or isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The shape of the mesh; -1 takes the devices that are left."""

    data: int = option(-1, "devices along the batch axis; -1 = all that are left")
    model: int = option(1, "devices along the model axis", low=1)


def parse(cls: type[T], values: Mapping[str, Any], *, path: str = "config") -> T:
    """Build `cls` from nested mappings, checking every key and value.

    Args:
        cls: a frozen dataclass made of `option`s.
        values: nested mappings (a `ConfigDict` is one); absent keys take their defaults.
        path: where `values` sits, for messages.

    Raises:
        ConfigError: an unknown key (with the nearest name), a missing key, a wrong type, a value
            out of range, or what the class's own `validate()` rejects.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"; did you mean {path}.{near[0]}?" if near else f"; known: {', '.join(fields)}"
            raise ConfigError(f"unknown key {path}.{key}{hint}")
    arguments = {}
    for name, field in fields.items():
        where = f"{path}.{name}"
        if name in values:
            arguments[name] = _convert(values[name], hints[name], field, where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"missing key {where}: {field.metadata.get('doc', '')}")
    made = cls(**arguments)
    validate = getattr(made, "validate", None)
    if validate is not None:
        validate()
    return made


def to_dict(config: Any) -> dict[str, Any]:
    """The nested plain values of a configuration, ready for JSON and for `ConfigDict`."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return to_dict(value) if dataclasses.is_dataclass(value) else value


def split_names(text: str) -> frozenset[str]:
    """The names of an option such as `--split=val,test`."""
    return frozenset(name for part in text.split(",") if (name := part.strip()))


def digest(config: Any) -> str:
    """A short hash of a configuration's values: equal configurations, equal digests.

    Args:
        config: a configuration, or what `to_dict` made of one.
    """
    values = config if isinstance(config, dict) else to_dict(config)
    text = json.dumps(values, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def command_line(verb: str, config: Any, out: Path) -> list[str]:
    """A command that does what a call from Python with this configuration does."""
    inputs: tuple[str, ...] = getattr(config, "inputs", ())
    changed = [
        f"--config.{key}={_text(value)}" for key, value in _changed(config, "") if key != "inputs"
    ]
    return ["mmjax", verb, *inputs, *changed, f"--out={out}"]


def _text(value: Any) -> str:
    """A value as the command line takes it: lists with commas, lists of groups as JSON."""
    if not isinstance(value, tuple):
        return str(value)
    if any(map(dataclasses.is_dataclass, value)):
        return json.dumps(_plain(value))
    return ",".join(map(str, value))


def _changed(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys whose values are not the defaults."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _changed(value, f"{prefix}{field.name}.")
        elif value != field.default:
            yield prefix + field.name, value


def describe(cls: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """(dotted key, default with the accepted values, doc) of every option, for `--help`."""
    rows = []
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            rows += describe(typing.cast(type, hint), f"{prefix}{field.name}.")
            continue
        default = "required" if field.default is dataclasses.MISSING else repr(field.default)
        choices = _choices(hint)
        if choices:
            default = f"{default} of {'|'.join(map(str, choices))}"
        rows.append((prefix + field.name, default, field.metadata.get("doc", "")))
    return rows


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _convert(value: Any, hint: Any, field: dataclasses.Field, where: str) -> Any:
    """`value` as `hint`, range-checked; raises ConfigError naming both."""
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} wants a group of keys, got {value!r}")
        return parse(typing.cast(type, hint), value, path=where)
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        inner = [o for o in options if o is not type(None)]
        if len(inner) == 1:
            return _convert(value, inner[0], field, where)
        for candidate in inner:
            try:
                return _convert(value, candidate, field, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} wants {hint}, got {value!r}")
    if origin is Literal:
        accepted = typing.get_args(hint)
        if value not in accepted:
            raise ConfigError(
                f"{where} wants one of {', '.join(map(str, accepted))}; got {value!r}"
            )
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigError(f"{where} wants a list, got {value!r}")
        element = typing.get_args(hint)[0]
        return tuple(_convert(v, element, field, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} wants {hint.__name__}, got {value!r}")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if isinstance(value, int | float) and not isinstance(value, bool):
        # written so that NaN fails too
        if low is not None and not value >= low:
            raise ConfigError(f"{where} wants at least {low}, got {value}")
        if high is not None and not value <= high:
            raise ConfigError(f"{where} wants at most {high}, got {value}")
    return value
