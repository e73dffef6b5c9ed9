"""Where programs that XLA has compiled are kept, so that the next run need not compile them."""

import hashlib
import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_LARGEST = 2 << 30


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/mmjax/NAME`, by default below `~/.cache`; it need not exist."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "mmjax" / name


def keep_programs(cpuinfo: Path = _CPUINFO) -> None:
    """Have JAX keep the programs that took over a second to compile; call before JAX is imported.

    Kinds of CPU have folders of their own, since a program is compiled for what its CPU can do and
    home folders are shared; of each the least recently used programs go beyond 2 GiB. What an
    interrupted run has written in part is removed.
    Nothing is changed where the environment has its own `JAX_COMPILATION_CACHE_DIR`, or where the
    folder cannot be written; `JAX_ENABLE_COMPILATION_CACHE=false` keeps none.
    """
    folder = cache_folder("programs") / _kind_of_cpu(cpuinfo)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not _can_be_written(folder):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    if os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_LARGEST)) != "-1":
        for program in folder.glob("*-cache"):  # JAX writes when it was used after it
            if not Path(str(program).removesuffix("cache") + "atime").exists():
                program.unlink(missing_ok=True)


def _can_be_written(folder: Path) -> bool:
    """Whether it is there and open to us, after making it; a home that is not known is not."""
    if not folder.is_absolute():
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _kind_of_cpu(cpuinfo: Path) -> str:
    """Twelve hex digits of the machine's architecture and what its first processor can do."""
    told = [platform.machine()]
    if cpuinfo.is_file():
        with cpuinfo.open(encoding="ascii", errors="replace") as lines:
            told += next(([line] for line in lines if line.startswith(("flags", "Features"))), [])
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:12]
