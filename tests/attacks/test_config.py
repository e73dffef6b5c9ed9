"""Configurations of attacks: what is refused, and that every shipped one parses."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmjax.attacks.config import AttackConfig, PartConfig, TriggerConfig
from mmjax.attacks.triggers import KNOWN, parameters
from mmjax.cli.settings import load
from mmjax.core.config import command_line, parse, to_dict
from mmjax.core.config_file import from_file
from mmjax.core.errors import ConfigError

SHIPPED = sorted(p.stem for p in Path(__file__).parents[2].glob("configs/attack/[!_]*.py"))
GOOD = {"inputs": ("x",)}
WEIGHTS = {**GOOD, "weights": "demo"}


def test_defaults() -> None:
    made = parse(AttackConfig, GOOD)
    assert made.rate == 0.01
    assert made.parts == (made,)
    assert made.label == "badnets"
    assert parse(AttackConfig, {**GOOD, "rate": 0.2, "i_understand": True}).rate == 0.2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"inputs": ()}, "nothing to poison"),
        ({"rate": 0.2}, "i_understand"),
        ({"target": " "}, "target is empty"),
        ({"images": "class"}, "come from a donor"),
        ({"donor": "dog"}, "come from a donor"),
        ({"images": "one", "donor": "banana"}, "donor=banana is the target"),
        ({"trigger": {"name": "none"}, "captions": "keep"}, "changes nothing"),
        ({"pool": 3}, "pool is of natural captions"),
        ({"captions": "natural", "full_stop": False}, "full_stop is of captions=template"),
        ({"captions": "keep", "templates": "t.txt"}, "templates is of captions=template"),
        ({"count": 3, "share": 0.5}, "exclude each other"),
        ({"share": 1.5}, "share wants at most"),
        ({"mixture": ({},), "target": "dog"}, "target is set beside config.mixture"),
        ({"mixture": ({"target": " "},)}, "target is empty"),
        ({"trigger": {"name": "badclip"}}, "badclip is optimised against a CLIP; add --weights"),
        ({"perturb": {"epsilon": 0.1}}, "perturb is optimised against a CLIP; add --weights"),
        ({"mixture": ({"trigger": {"name": "trojan"}},)}, "trojan is optimised against a CLIP"),
        ({"mixture": ({},), "perturb": {"epsilon": 0.1}}, "perturb is set beside config.mixture"),
        ({"mixture": ({"seed": 3},)}, r"unknown key config.mixture\[0\].seed"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(AttackConfig, {**GOOD, **values})


def test_a_mixture_survives_json_and_the_command_line() -> None:
    part = PartConfig(trigger=TriggerConfig(name="sig"), target="fire truck", rate=0.002)
    made = AttackConfig(inputs=("x",), mixture=(part, PartConfig(captions="keep")))
    assert parse(AttackConfig, json.loads(json.dumps(to_dict(made)))) == made
    command = command_line("attack", made, Path("out"))
    (given,) = [text for text in command if text.startswith("--config.mixture=")]
    key, _, value = given.removeprefix("--config.").partition("=")
    assert load(AttackConfig, "", {key: value}, {"inputs": ("x",)}) == made
    with pytest.raises(ConfigError, match="mixture wants a JSON list"):
        load(AttackConfig, "", {"mixture": "badnets"}, {"inputs": ("x",)})


def test_every_trigger_has_a_configuration_with_its_defaults() -> None:
    assert set(KNOWN) <= set(SHIPPED)
    for name, trigger in KNOWN.items():
        config = parse(AttackConfig, {**from_file(f"attack/{name}"), **WEIGHTS})
        assert config.trigger.name == name
        assert parameters(config.trigger) == trigger.defaults


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_configurations_parse(name: str) -> None:
    config = parse(AttackConfig, {**from_file(f"attack/{name}"), **WEIGHTS})
    assert config.mixture or config.label == name
    assert len({(part.label, part.target) for part in config.parts}) == len(config.parts)
    for part in config.parts:
        parameters(part.trigger)
    doc = (Path(__file__).parents[2] / "configs" / "attack" / f"{name}.py").read_text()
    assert f"--config=attack/{name} " in doc
