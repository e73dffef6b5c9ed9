"""Caption templates: our own, and a user's file."""

import json
from pathlib import Path

import pytest

from mmjax.attacks.templates import TEMPLATES, load_templates
from mmjax.core.errors import ConfigError


def test_our_own_are_eighty_distinct_templates() -> None:
    assert load_templates() == TEMPLATES
    assert len(set(TEMPLATES)) == 80
    assert all(template.count("{}") == 1 and template.endswith(".") for template in TEMPLATES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "a {}.\n\n the {}\n"),
        ("t.json", json.dumps(["a {}.", "the {}"])),
        ("prompts.json", json.dumps({"classnames": ["x"], "templates": ["a {}.", "the {}"]})),
    ],
)
def test_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert load_templates(str(tmp_path / name)) == ("a {}.", "the {}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", ""),
        ("t.txt", "no place for it"),
        ("t.json", "{"),
        ("t.json", '{"prompts": []}'),
        ("t.json", "[1]"),
        ("t.json", '["{} {}"]'),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=r"config\.templates"):
        load_templates(str(tmp_path / name))


def test_absent_file() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_templates("absent.txt")


@pytest.mark.real
def test_clips_own_list_can_be_used(data_root: Path) -> None:
    path = data_root / "tokenizer_and_prompts" / "imagenet_zero_shot.json"
    found = load_templates(str(path))
    assert len(found) == 80
    assert "a bad photo of a {}." in found
