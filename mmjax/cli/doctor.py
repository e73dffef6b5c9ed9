"""`mmjax doctor`: what is here, and what would stop a scan."""

import argparse
import os
import shutil
from pathlib import Path

from mmjax.core.errors import ExitCode, MmjaxError
from mmjax.core.rundir import versions


def doctor(config: None, flags: argparse.Namespace) -> int:
    """Print versions, devices, memory, disk, and check the weights and tokenizer if named."""
    problems = 0

    def say(what: str, found: str, *, bad: bool = False) -> None:
        nonlocal problems
        problems += bad
        print(f"{'!!' if bad else 'ok'}  {what:<12} {found}")

    say("versions", ", ".join(f"{k} {v}" for k, v in versions().items()))
    import jax

    from mmjax.models.policy import inference_compute

    devices = jax.devices()
    say(
        "devices",
        f"{len(devices)} x {devices[0].platform} ({devices[0].device_kind}); frozen towers "
        f"compute in {inference_compute()}",
    )
    say("cores", f"{len(os.sched_getaffinity(0))}")
    free, total = _memory()
    say("memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free", bad=free < 2**30)
    out = Path(flags.out).resolve()
    while not out.exists():
        out = out.parent
    room = shutil.disk_usage(out).free
    say("disk", f"{room / 2**30:.1f} GiB free for {flags.out}", bad=room < 2**30)
    known = jax.config.values
    kept = known["jax_enable_compilation_cache"] and known["jax_compilation_cache_dir"]
    say("programs", f"kept in {kept}" if kept else "compiled anew by every run")
    for name in ("simplejpeg", "torch", "open_clip"):
        say(name, _presence(name))
    if flags.weights:
        try:
            say("weights", _describe_weights(flags.weights, flags.tokenizer))
        except MmjaxError as error:
            say("weights", str(error), bad=True)
    else:
        say("weights", "none named; --weights=hf-dir:FOLDER checks them")
    print(
        "everything that was looked at is fine"
        if not problems
        else f"{problems} problem(s), marked !!"
    )
    return ExitCode.USER if problems else ExitCode.DONE


def _memory() -> tuple[int, int]:
    """Available and total memory, bytes."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found["MemAvailable"], found["MemTotal"]


def _presence(package: str) -> str:
    import importlib.util

    optional = {
        "simplejpeg": "JPEG decoding 1.1-1.8 times faster: pip install 'mmjax[fast]'",
        "torch": "only for `mmjax convert` and parity tests",
        "open_clip": "only for parity tests",
    }
    if importlib.util.find_spec(package):
        return "present"
    return f"absent ({optional[package]})"


def _describe_weights(spec: str, tokenizer: str) -> str:
    from mmjax.data.tokenizer import load_tokenizer
    from mmjax.models.weights import load_weights

    weights = load_weights(spec)
    path = tokenizer or weights.tokenizer_path
    said = f"{weights.preset.name}, {weights.preset.embed_dim}-d, sha256 {weights.fingerprint[:16]}"
    if not path:
        return said + "; no tokenizer beside them, name one with --tokenizer"
    loaded = load_tokenizer(
        path,
        context_length=weights.preset.text.context_length,
        expected_vocab=weights.preset.text.vocab_size,
    )
    return f"{said}; tokenizer of {loaded.vocab_size} entries"
