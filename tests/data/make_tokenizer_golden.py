"""Writes golden/tokenizer_ids.json by open_clip: python -m tests.data.make_tokenizer_golden."""

import importlib.util
import json
from pathlib import Path

from tests.data.captions_tricky import SPELLS_SPECIAL, TRICKY

GOLDEN = Path(__file__).with_name("golden") / "tokenizer_ids.json"


def open_clip_tokenizer():
    """SimpleTokenizer loaded by its file, for open_clip itself needs torchvision."""
    package = importlib.util.find_spec("open_clip")
    path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


def main():
    captions = [text for text in TRICKY if not any(word in text for word in SPELLS_SPECIAL)]
    ids = open_clip_tokenizer()(captions).tolist()
    rows = [
        {"caption": text, "ids": row[: row.index(49407) + 1]}
        for text, row in zip(captions, ids, strict=True)
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    GOLDEN.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
