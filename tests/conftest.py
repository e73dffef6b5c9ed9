"""Settings and fixtures of all tests: four CPU devices, strict ranks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


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
