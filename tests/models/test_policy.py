import jax
import pytest

from mmjax.core.errors import ConfigError
from mmjax.models.policy import Policy, inference_compute, resolve


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [("fpu sse amx_bf16 avx", "bfloat16"), ("fpu avx512_bf16 amx_bf16x", "float32")],
)
def test_a_cpu_computes_frozen_towers_in_bfloat16_if_it_has_amx(tmp_path, flags, wanted):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    assert inference_compute("auto", cpuinfo) == wanted


def test_a_machine_without_cpuinfo_computes_in_float32(tmp_path):
    assert inference_compute("auto", tmp_path / "none") == "float32"


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_the_choice_can_be_overridden(compute):
    assert inference_compute(compute) == compute


def test_auto_backend_is_jaxs():
    assert jax.default_backend() == "cpu"
    assert resolve(Policy()) == Policy("float32", "cpu")
    assert resolve(Policy("bfloat16", "accelerator")) == Policy("bfloat16", "accelerator")


@pytest.mark.parametrize("policy", [Policy("float16"), Policy("float32", "gpu")])  # pyright: ignore
def test_unknown_values_are_refused(policy):
    with pytest.raises(ConfigError, match="must be"):
        resolve(policy)
