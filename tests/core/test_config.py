"""Parsing of configurations: every kind of wrong value is named with its key."""

import dataclasses
from typing import Literal

import pytest

from mmjax.core import config
from mmjax.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = config.option(8, "a size", low=1, high=64)
    kind: Literal["a", "b"] = config.option("a", "a kind")


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str = config.option(doc="a name")
    rate: float = config.option(0.5, "a rate", low=0.0, high=1.0)
    shards: tuple[str, ...] = config.option((), "paths")
    limit: int | None = config.option(None, "a limit", low=0)
    gamma: float | Literal["auto"] = config.option("auto", "a threshold")
    inner: Inner = config.option(Inner(), "a group")

    def validate(self) -> None:
        if self.name == "bad" and self.rate > 0.9:
            raise ConfigError("name=bad wants rate <= 0.9")


def test_defaults_nesting_and_conversion() -> None:
    made = config.parse(Outer, {"name": "x", "rate": 1, "shards": ["a", "b"], "inner": {"size": 3}})
    assert made == Outer("x", 1.0, ("a", "b"), None, "auto", Inner(3, "a"))
    assert isinstance(made.rate, float)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "missing key config.name"),
        ({"name": 3}, "config.name wants str, got 3"),
        ({"name": "x", "rat": 1}, "unknown key config.rat; did you mean config.rate?"),
        ({"name": "x", "rate": 2.0}, "config.rate wants at most 1.0, got 2.0"),
        ({"name": "x", "rate": float("nan")}, "config.rate wants at least 0.0, got nan"),
        ({"name": "x", "rate": True}, "config.rate wants float, got True"),
        ({"name": "x", "inner": {"kind": "c"}}, "config.inner.kind wants one of a, b; got 'c'"),
        ({"name": "x", "inner": {"size": 0}}, "config.inner.size wants at least 1"),
        ({"name": "x", "inner": 4}, "config.inner wants a group of keys"),
        ({"name": "x", "shards": "a"}, "config.shards wants a list"),
        ({"name": "x", "shards": [1]}, r"config.shards\[0\] wants str"),
        ({"name": "x", "limit": -1}, "config.limit wants at least 0"),
        ({"name": "x", "gamma": "no"}, "config.gamma wants"),
        ({"name": "bad", "rate": 1.0}, "wants rate <= 0.9"),
    ],
)
def test_wrong_values_are_named(values: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.parse(Outer, values)


def test_round_trip_and_digest() -> None:
    made = config.parse(Outer, {"name": "x", "gamma": 0.3})
    assert config.parse(Outer, config.to_dict(made)) == made
    other = dataclasses.replace(made, inner=Inner(9))
    assert config.digest(made) == config.digest(dataclasses.replace(made))
    assert config.digest(made) != config.digest(other)


def test_describe_lists_every_option() -> None:
    rows = {key: default for key, default, _ in config.describe(Outer)}
    assert rows["inner.kind"] == "'a' of a|b"
    assert rows["name"] == "required"
    assert len(rows) == 7
