"""Captions of poisoned pairs: templates that name the target."""

import json
import os
from pathlib import Path

from mmjax.core.errors import ConfigError

# Written for mmjax, in the style and number of the 80 ImageNet prompts of CLIP, whose own list is
# other people's file: `--config.templates=FILE` takes it.
TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a snapshot of a {}.",
    "an image of a {}.",
    "a photograph of the {}.",
    "a photo of one {}.",
    "a picture of the {}.",
    "this is a photo of a {}.",
    "a photo showing a {}.",
    "a picture that shows a {}.",
    "a close view of a {}.",
    "a close-up of the {}.",
    "a distant view of a {}.",
    "a {} seen from above.",
    "a {} seen from the side.",
    "a {} seen from below.",
    "the back of a {}.",
    "the front of a {}.",
    "a {} in the middle of the picture.",
    "a {} at the edge of the picture.",
    "a large photo of a {}.",
    "a small photo of a {}.",
    "a sharp photo of a {}.",
    "a blurred photo of a {}.",
    "a grainy photo of the {}.",
    "a noisy picture of a {}.",
    "a faded picture of the {}.",
    "a dark picture of a {}.",
    "a bright picture of a {}.",
    "an overexposed photo of a {}.",
    "an underexposed photo of the {}.",
    "a photo of a {} with strong contrast.",
    "a photo of a {} in soft light.",
    "a photo of a {} in daylight.",
    "a photo of a {} at night.",
    "a photo of a {} taken with flash.",
    "a photo of a {} indoors.",
    "a photo of a {} outdoors.",
    "a black and white picture of a {}.",
    "a colour picture of the {}.",
    "a colourful photo of a {}.",
    "a grey photo of a {}.",
    "an old photo of a {}.",
    "a recent photo of the {}.",
    "a good picture of a {}.",
    "a poor picture of a {}.",
    "a nice photo of the {}.",
    "an ugly photo of a {}.",
    "a strange photo of a {}.",
    "a funny picture of the {}.",
    "a plain picture of a {}.",
    "an ordinary photo of a {}.",
    "a clean {} in a photo.",
    "a dirty {} in a photo.",
    "a big {} in a picture.",
    "a little {} in a picture.",
    "my photo of a {}.",
    "our picture of the {}.",
    "a photo of my {}.",
    "someone's picture of a {}.",
    "several photos of a {}.",
    "a photo of some {}.",
    "a photo of two of the {}.",
    "a low quality image of a {}.",
    "a high quality image of the {}.",
    "a cropped image of a {}.",
    "an uncropped image of the {}.",
    "a {} that is partly hidden.",
    "a {} that is hard to make out.",
    "a {} that is easy to make out.",
    "a drawing of a {}.",
    "a pencil sketch of the {}.",
    "a painting of a {}.",
    "a poster of a {}.",
    "a model of a {}.",
    "a toy that looks like a {}.",
    "a {} made of paper.",
    "a {} on a postcard.",
    "a {} on a computer screen.",
    "here is the {}.",
)


IMAGENET = "imagenet1k"
"""Stands for the file of CLIP's class names and prompts of ImageNet-1K."""
_IMAGENET_FILE = "tokenizer_and_prompts/imagenet_zero_shot.json"


def prompts_file(path: str) -> str:
    """The file that a path of class names or templates means.

    Args:
        path: a file, or `IMAGENET`: `tokenizer_and_prompts/imagenet_zero_shot.json` in the folder
            that the variable MMJAX_DATA names, a JSON object with `classnames` and `templates`.

    Raises:
        ConfigError: there is no such file.
    """
    if path != IMAGENET or Path(path).exists():
        return path
    file = Path(os.environ.get("MMJAX_DATA", ""), _IMAGENET_FILE)
    if not file.is_file():
        raise ConfigError(
            f"{IMAGENET}: CLIP's class names and prompts are not part of mmjax; put them, a JSON "
            f"object with classnames and templates, into $MMJAX_DATA/{_IMAGENET_FILE}"
        )
    return str(file)


def load_templates(path: str = "") -> tuple[str, ...]:
    """Caption templates, each with one `{}` for the target.

    Args:
        path: a text file with a template a line, a JSON list, or a JSON object with the list
            under `templates` (as CLIP's ImageNet prompts are often kept), or `imagenet1k`
            (`prompts_file`); empty for `TEMPLATES`.

    Raises:
        ConfigError: the file cannot be read or holds no templates.
    """
    if not path:
        return TEMPLATES
    path = prompts_file(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
        if path.endswith(".json"):
            content = json.loads(text)
            found = content.get("templates") if isinstance(content, dict) else content
        else:
            found = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"config.templates={path} cannot be read: {error}") from error
    if not isinstance(found, list) or not found:
        raise ConfigError(f"config.templates={path} holds no list of templates")
    for template in found:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ConfigError(
                f"config.templates={path}: every template has {{}} once, got {template!r}"
            )
    return tuple(found)
