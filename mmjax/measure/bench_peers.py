"""The same in torch: open_clip's models with our weights, InfoNCE, PGD and the trigger search.

What an open_clip user gets, or better: float32 ResNets have their norms folded and their images in
channels-last order, and each part has the type, the batch and as many threads as are fastest for it
when it is made (where the processor has no bfloat16 products, torch's autocast takes six times as
long; memory of large batches is handed out anew in every run).
`tests/measure/test_bench_peers.py` shows that the numbers are ours.
"""

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]

from mmjax.measure import bench_inputs as given
from mmjax.measure.bench import Part
from mmjax.measure.bench_config import BenchConfig
from mmjax.measure.bench_inputs import BATCH, RESNET, SCALE, VIT
from mmjax.measure.bench_kernels import loss_case, neighbours_case
from mmjax.measure.bench_towers import (
    EPSILON,
    STEPS,
    noise_case,
    pairs,
    real_captions,
    search_case,
)
from mmjax.measure.torch_clip import fold_norms, open_clip_model
from mmjax.models.presets import Preset
from mmjax.scan.encode import PART


class TorchClip:
    """open_clip's model of a preset with the weights that ours has, frozen."""

    def __init__(self, name: str, compute: str, *, folded: bool = False):
        towers, variables = given.model(name)
        self.preset: Preset = towers.preset
        self.model = open_clip_model(self.preset, variables).requires_grad_(False)
        if folded:
            fold_norms(self.model)
        if self.preset.vision.kind == "resnet":
            self.model.to(memory_format=torch.channels_last)
        self.compute = compute
        self.mean, self.std = (
            255 * torch.tensor(each)[None, :, None, None]
            for each in (self.preset.mean, self.preset.std)
        )

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings of NHWC pixels in [0, 255]."""
        normal = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        with self._arithmetic():
            embedded = self.model.encode_image(normal)
        return F.normalize(embedded.float(), dim=-1)

    def captions(self, ids: torch.Tensor) -> torch.Tensor:
        """Unit-norm embeddings of captions in the full context, which open_clip wants."""
        with self._arithmetic():
            embedded = self.model.encode_text(ids)
        return F.normalize(embedded.float(), dim=-1)

    def _arithmetic(self) -> contextlib.AbstractContextManager:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.compute == "bfloat16")


def info_nce(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The symmetric loss as open_clip has it (src/open_clip/loss.py), by the whole matrix."""
    logits = SCALE * image @ text.T
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def _part(
    name: str,
    run: Callable[[], object],
    items: int,
    unit: str,
    probe: Callable[[], object] | None = None,
    **known: Any,
) -> Part:
    """A peer with one thread or one for each core, whichever is faster by `probe` (by `run`)."""
    threads = fastest(probe or run, len(os.sched_getaffinity(0)))

    def with_threads() -> object:
        torch.set_num_threads(threads)
        return run()

    return Part(name, with_threads, items, unit, threads=threads, peer=True, **known)


def fastest(probe: Callable[[], object], cores: int) -> int:
    """The number of threads, one or `cores`, that `probe` is faster with."""

    def with_threads(threads: int) -> None:
        torch.set_num_threads(threads)
        probe()

    counts = (1, cores)
    return counts[_fastest([partial(with_threads, count) for count in counts], 3)]


def fastest_clip(name: str, probe: Callable[[TorchClip], object]) -> TorchClip:
    """The model in the type that is faster by `probe`, the median of two turns after one."""
    clips = [TorchClip(name, "float32", folded=True), TorchClip(name, "bfloat16")]
    return clips[_fastest([partial(probe, clip) for clip in clips], 3)]


def fastest_batch(probe: Callable[[int], object], n: int) -> int:
    """The batch that `probe` is faster with: as a scan has it on a CPU, or all `n` rows."""
    sizes = sorted({min(PART, n), n})
    return sizes[_fastest([partial(probe, size) for size in sizes], 2)] if sizes[1:] else n


def _fastest(runs: Sequence[Callable[[], object]], turns: int) -> int:
    """Which of the runs has the smallest median over turns; the first turn warms up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(turns):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken[1:]) for taken in seconds]
    return medians.index(min(medians))


def _in_batches(
    function: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor, size: int
) -> torch.Tensor:
    return torch.cat([function(batch) for batch in rows.split(size)])


@torch.inference_mode()
def _images(clip: TorchClip, pixels: torch.Tensor, size: int) -> torch.Tensor:
    return _in_batches(clip.images, pixels, size)


@torch.inference_mode()
def _captions(clip: TorchClip, ids: torch.Tensor, size: int) -> torch.Tensor:
    return _in_batches(clip.captions, ids, size)


FEW = 8
"""Images or captions that a model is chosen by."""


def encode(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Images of a ResNet and a ViT."""
    n = BATCH[config.size]
    for name in (RESNET[config.size], VIT[config.size]):
        size = given.model(name)[0].preset.vision.image_size
        pixels = torch.from_numpy(given.images(n, size))
        few = pixels[:FEW]
        clip = fastest_clip(name, lambda clip, few=few: _images(clip, few, FEW))
        batch = fastest_batch(lambda each, clip=clip, rows=pixels: _images(clip, rows, each), n)
        yield _part(
            f"{name} images, torch",
            lambda clip=clip, pixels=pixels, batch=batch: _images(clip, pixels, batch),
            n,
            f"{name} image",
            lambda clip=clip, few=few: _images(clip, few, FEW),
            compute=clip.compute,
        )


def text(config: BenchConfig, work: Path) -> Iterator[Part]:
    """The captions of real lengths, all in the full context."""
    name, size = VIT[config.size], BATCH[config.size]
    ids = torch.from_numpy(real_captions(config)[0])
    clip = fastest_clip(name, lambda clip: _captions(clip, ids[:FEW], FEW))
    batch = fastest_batch(lambda each: _captions(clip, ids[:size], each), size)
    yield _part(
        f"{name} captions, real lengths, torch",
        lambda: _captions(clip, ids, batch),
        len(ids),
        "caption",
        lambda: _captions(clip, ids[:FEW], FEW),
        compute=clip.compute,
    )


def pair(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Both sides of pairs, captions in the full context."""
    name, size = VIT[config.size], BATCH[config.size]
    pixels, ids = (torch.from_numpy(each) for each in pairs(config)[:2])

    def run(clip: TorchClip, count: int = len(ids), batch: int = size) -> torch.Tensor:
        images = _images(clip, pixels[:count], batch)
        return torch.stack([images, _captions(clip, ids[:count], batch)])

    clip = fastest_clip(name, lambda clip: run(clip, FEW))
    batch = fastest_batch(lambda each: run(clip, size, each), size)
    yield _part(
        f"{name} pairs, torch",
        lambda: run(clip, batch=batch),
        len(ids),
        "pair",
        lambda: run(clip, FEW),
        compute=clip.compute,
    )


def pgd(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Signed steps on real numbers; they are whole, as every step is one grey level."""
    name, images, wanted = noise_case(config)
    clip = TorchClip(name, "float32", folded=True)
    pixels, text = torch.from_numpy(images).float(), torch.from_numpy(wanted)
    low, high = (-pixels).clamp(min=-EPSILON), (255 - pixels).clamp(max=EPSILON)

    def run(steps: int = STEPS) -> torch.Tensor:
        noise = torch.zeros_like(pixels)
        for _ in range(steps):
            noise.requires_grad_()
            loss = info_nce(clip.images(pixels + noise), text)
            (gradient,) = torch.autograd.grad(loss, noise)
            noise = torch.clamp(noise.detach() - gradient.sign(), low, high)
        return noise

    part = f"{name} noise, torch, float32, folded"
    yield _part(part, run, STEPS * len(images), "image step", lambda: run(1))


def hotflip(config: BenchConfig, work: Path) -> Iterator[Part]:
    """The reference's search (OFF:utils.py `get_best_candidates`): a loop over candidates.

    For each the loss of the batch is computed anew, from its images and its whole captions.
    """
    case = search_case(config)
    clip = TorchClip(case.name, "float32")
    pixels, tried = torch.from_numpy(case.images), torch.from_numpy(case.tried)
    captions = torch.from_numpy(case.captions)

    @torch.inference_mode()
    def loss(trigger: torch.Tensor) -> float:
        ids = captions.clone()
        ids[:, 1:4] = trigger
        return float(info_nce(clip.images(pixels), clip.captions(ids)))

    def run() -> torch.Tensor:
        best = torch.from_numpy(case.trigger)
        for slot in range(best.shape[1]):
            sets = [best]
            for candidate in tried[:, slot].T:
                sets.append(best.clone())
                sets[-1][:, slot] = candidate
            best = sets[int(np.argmin([loss(each) for each in sets]))]
        return best

    name = f"{case.name} trigger search, torch, float32, images encoded for each candidate"
    first = torch.from_numpy(case.trigger)
    yield _part(name, run, case.candidates, "candidate", lambda: loss(first))


def loss(config: BenchConfig, work: Path) -> Iterator[Part]:
    """InfoNCE with its gradient, by the whole matrix of logits."""
    sides = [torch.from_numpy(each).requires_grad_() for each in loss_case(config)]

    def run() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        value = info_nce(*sides)
        return value.detach(), torch.autograd.grad(value, sides)

    part = "loss and gradient, torch, whole matrix"
    held = temporaries(run, work / "trace.json")
    yield _part(part, run, len(sides[0]), "pair", temporaries=held)


def temporaries(run: Callable[[], object], trace: Path) -> float:
    """The most bytes that a run holds at a time beside what it returns, by torch's profiler."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profiler:
        kept = run()
    profiler.export_chrome_trace(str(trace))
    del kept
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    changes.sort(key=lambda event: event["ts"])
    held = np.cumsum([event["args"]["Bytes"] for event in changes])
    return float(held.max() - held[-1])


def neighbours(config: BenchConfig, work: Path) -> Iterator[Part]:
    """The product that counting neighbours comes down to."""
    count, rows = neighbours_case(config)
    among = torch.from_numpy(rows)
    out = torch.empty(count, len(among))
    yield _part(
        "the bare product, torch",
        lambda: torch.mm(among[:count], among.T, out=out),
        count,
        "query",
    )
