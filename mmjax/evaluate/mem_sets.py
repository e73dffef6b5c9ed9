"""The training sets of MEM's experiments: protected ones, and what a victim makes of them.

A protected set is made once and kept as shards. A recipe takes the photos of one and the captions
of another, protects a share of them only, and lets an attacker change what is left.
"""

import contextlib
import hashlib
import io
import itertools
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image, ImageFilter

from mmjax.core import keys
from mmjax.core.config import parse
from mmjax.core.errors import ConfigError
from mmjax.data.pack import TarWriter
from mmjax.data.pairs import PairTable
from mmjax.evaluate.experiment import ReproduceConfig, Say
from mmjax.evaluate.mem_methods import CLEAN, PROTECTIONS, method
from mmjax.evaluate.mem_settings import Settings, image_size, settings
from mmjax.protect.survival import CHANGES


class Attacker(NamedTuple):
    """What a victim does about a protected set.

    Fields:
        title: of a table's column.
        change: of every photo, those of the test included: the victim sees the world so.
        strips: triggers are cut off.
        victim: options of its training (`TrainConfig`).
    """

    title: str
    change: Callable[[Image.Image], Image.Image] | None = None
    strips: bool = False
    victim: Mapping[str, Any] = {}


_FILTER = {"recorded_epochs": 1, "isolate": 0.5, "unlearn_epochs": 0}
ATTACKERS: dict[str, Attacker] = {
    "none": Attacker("none"),
    "strip": Attacker("triggers cut off", strips=True),
    "jpeg_75": Attacker("JPEG 75", CHANGES["JPEG 75"]),
    "jpeg_50": Attacker("JPEG 50", CHANGES["JPEG 50"]),
    "grey": Attacker("grey-scale", CHANGES["grey-scale"]),
    "blur": Attacker("blur, σ 1 px", lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "crop": Attacker("random crops", victim={"augment": {"crop_area": 0.5}}),
    "augment": Attacker("AutoAugment and EDA", victim={"defence": {"name": "cleanclip"}}),
    "adversarial": Attacker("adversarial training", victim={"defence": {"name": "adversarial"}}),
    "loss_filter": Attacker(
        "half of lowest loss left out", victim={"defence": {"name": "abl", "abl": _FILTER}}
    ),
    "strip_grey": Attacker("triggers cut off, grey-scale", CHANGES["grey-scale"], strips=True),
    "strip_jpeg_75": Attacker("triggers cut off, JPEG 75", CHANGES["JPEG 75"], strips=True),
}
"""Ways around a protection, by name."""


class Recipe(NamedTuple):
    """What a victim is trained on.

    Fields:
        title: of a table's row.
        photos: the protected set whose photos it has.
        captions: the one whose captions.
        attacker: of `ATTACKERS`.
        share: of photos that are protected; the others are as in the clean set.
        part: whether all photos are there, or those alone that are not protected.
        model: of the victim, a preset or weights; empty = the surrogate's.
    """

    title: str
    photos: str
    captions: str
    attacker: str = "none"
    share: float = 1.0
    part: Literal["all", "clean"] = "all"
    model: str = ""


def of_set(name: str, attacker: str = "none") -> Recipe:
    """The recipe of a protected set under an attacker."""
    captions = CLEAN if ATTACKERS[attacker].strips else name
    return Recipe(PROTECTIONS[name], name, captions, attacker)


def read_pairs_of(config: ReproduceConfig, part: str) -> PairTable:
    """The first photos of a split with their first captions, at the model's size; or scenes.

    Args:
        config: names the set.
        part: `train` or `test`.

    Raises:
        ConfigError: the set has nothing to test on.
        InputError: it cannot be read.
    """
    from mmjax.train.batches import heldout_pairs, training_pairs
    from mmjax.train.config import DataConfig

    mem = settings(config)
    size = image_size(mem.surrogate)
    data = parse(
        DataConfig,
        {"location": "scenes"}
        | {"scenes": mem.photos, "scene_captions": mem.captions, "heldout_scenes": mem.test_photos}
        if config.data == "scenes"
        else {"location": config.data, "split": mem.train, "heldout_split": mem.test},
    )
    if part == "train":
        table, photos, captions = training_pairs(data, size, seed=0), mem.photos, mem.captions
    else:
        table, photos, captions = heldout_pairs(data, size, seed=0), mem.test_photos, None
    if table is None:
        raise ConfigError(f"{config.data} has no split of its own to test on; set mem.test")
    texts = tuple(each[:captions] for each in table.captions[:photos])
    return table._replace(images=table.images[:photos], captions=texts)


class Workshop(NamedTuple):
    """Where the sets of one experiment are made.

    Fields:
        config: of the experiment.
        root: folder of these data and these settings.
        say: is told what a protection costs.
        read: the clean pairs of a part (`pairs`), once.
    """

    config: ReproduceConfig
    root: Path
    say: Say
    read: Callable[[ReproduceConfig, str], PairTable] = read_pairs_of

    @property
    def mem(self) -> Settings:
        """What is protected, and how long."""
        return settings(self.config)

    def pairs(self, part: str) -> Path:
        """The clean pairs to learn from (`train`) or to be asked about (`test`), as shards."""
        folder = self.root / "pairs" / part
        if not folder.exists():
            with _making(folder) as making:
                _write(self.read(self.config, part), making / "00000.tar")
        return folder

    def tokenizer(self) -> Path:
        """Of surrogates and victims that have none: the one given, or a BPE of clean captions."""
        from mmjax.data.tokenizer import train_bpe

        if self.mem.tokenizer:
            return Path(self.mem.tokenizer)
        path = self.root / "tokenizer.json"
        if not path.exists():
            texts = [row["txt"].decode() for row in rows_of(self.pairs("train"))]
            train_bpe(texts, self.mem.vocab_size, path)
        return path

    def protected(self, name: str, seed: int) -> Path:
        """The shards of a protected set, made if they are not there yet."""
        from mmjax.protect.config import ProtectConfig
        from mmjax.protect.pipeline import protect_pairs

        folder = self.root / "sets" / f"{name}-{seed}"
        if not (folder / "protection.json").exists():
            values = {
                "inputs": (str(self.pairs("train")),),
                "output": "shards",
                "batch_size": self.mem.batch_size,
                "seed": seed,
                **method(name, self.mem, str(self.tokenizer())),
            }
            protect_pairs(parse(ProtectConfig, values), folder, say=self.say)
        return folder / "shards"

    def victim(self, name: str, seed: int) -> Path:
        """The run folder of the victim that was trained on a recipe's pairs."""
        return self.root / "victims" / f"{name}-{seed}"

    def training_set(self, recipe: Recipe, seed: int) -> Path:
        """The shards that a recipe makes of protected sets."""
        photos, captions = (self.protected(n, seed) for n in (recipe.photos, recipe.captions))
        change = ATTACKERS[recipe.attacker].change
        if photos == captions and change is None and recipe.share == 1:
            return photos
        told = hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]
        folder = self.root / "mixed" / f"{told}-{seed}"
        if not folder.exists():
            clean = self.protected(CLEAN, seed)
            with _making(folder) as making:
                _mix(photos, captions, clean, recipe, seed, making / "00000.tar")
        return folder


@contextlib.contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when it is whole."""
    making = folder.with_name(f"{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    yield making
    making.rename(folder)


def _write(table: PairTable, path: Path) -> None:
    number = itertools.count()
    with TarWriter(path) as tar:
        for owner, captions in enumerate(table.captions):
            png = png_of(Image.fromarray(table.images[owner : owner + 1][0]))
            for caption, key in zip(captions, number, strict=False):
                tar.add_member(f"{key:09d}.png", png)
                tar.add_member(f"{key:09d}.txt", caption.encode())


def png_of(image: Image.Image) -> bytes:
    """The image as a file."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    return out.getvalue()


def rows_of(folder: Path) -> Iterator[dict[str, bytes]]:
    """The members of every row of the shards in a folder, by their suffix."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for _, members in itertools.groupby(tar, lambda member: member.name.partition(".")[0]):
                found = ((m.name.partition(".")[2], tar.extractfile(m)) for m in members)
                yield {suffix: file.read() for suffix, file in found if file is not None}


def _mix(photos: Path, captions: Path, clean: Path, recipe: Recipe, seed: int, out: Path) -> None:
    """Write a recipe's rows; those of the three folders correspond."""
    spared = _spared(clean, recipe.share, seed)
    change = ATTACKERS[recipe.attacker].change
    with TarWriter(out) as tar:
        rows = zip(*map(rows_of, (photos, captions, clean)), strict=True)
        for number, (photo, caption, plain) in enumerate(rows):
            is_clean = plain["png"] in spared
            if recipe.part == "clean" and not is_clean:
                continue
            png, text = (plain["png"], plain["txt"]) if is_clean else (photo["png"], caption["txt"])
            if change is not None:
                with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
                    png = png_of(change(image.convert("RGB")))
            tar.add_member(f"{number:09d}.png", png)
            tar.add_member(f"{number:09d}.txt", text)


def _spared(clean: Path, share: float, seed: int) -> set[bytes]:
    """The files of the photos that stay clean; those of a larger share are among a smaller's."""
    files = list(dict.fromkeys(row["png"] for row in rows_of(clean)))
    order = keys.host(seed, "spared").permutation(len(files))
    return {files[i] for i in order[: round((1 - share) * len(files))]}
