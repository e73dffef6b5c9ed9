"""Settings and fixtures of all tests: four CPU devices, strict ranks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    # optimising programs takes most of a cold run and changes no more than the last bits;
    # with JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= they are as users get them
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
}
"""Of the tests and of the processes that they start, where the caller's environment is silent."""
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)

from beartype import BeartypeConf  # noqa: E402
from beartype.claw import beartype_packages  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# what handles arrays is under jaxtyping's hook (pyproject.toml: whole layers), which checks shapes
# too but takes .1 ms a call; the rest of the two layers that read files is called row by row
MODULES = [file for layer in ("core", "data") for file in (ROOT / "mmjax" / layer).glob("[!_]*.py")]
WITH_ARRAYS = {file for file in MODULES if "jaxtyping" in file.read_text()}
NAMES = {file: f"mmjax.{file.parent.name}.{file.stem}" for file in MODULES}
install_import_hook([NAMES[file] for file in WITH_ARRAYS], "beartype.beartype")
beartype_packages(
    [name for file, name in NAMES.items() if file not in WITH_ARRAYS],
    conf=BeartypeConf(is_pep484_tower=True),
)

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def keys_checked() -> Iterator[None]:
    """Using a random key twice is an error; every dispatch gets slower, so only on demand."""
    with jax.debug_key_reuse(True):
        yield


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("MMJAX_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no data folder (set MMJAX_DATA)")
    return folder
