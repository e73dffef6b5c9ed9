"""Plans: operations counted, collectives read, bounds by arithmetic, one compilation a plan."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mmjax.core.errors import ConfigError
from mmjax.measure import plan as planning
from mmjax.measure import plan_page
from mmjax.measure.chips import CHIPS, chip_of
from mmjax.measure.collectives import collectives
from mmjax.measure.flops import count
from mmjax.measure.plan_config import HostConfig, PlanConfig
from mmjax.measure.plan_text import as_json, lines
from mmjax.models.clip import build
from mmjax.models.policy import Policy
from mmjax.models.presets import preset
from tests.e2e.conftest import run_process

TINY = PlanConfig(preset="demo", batch_size=8, platform="cpu", devices=4, tokens=8)


def operations(function, *arguments) -> float:
    return count(jax.make_jaxpr(function)(*arguments))


def test_products_loops_branches_and_shards_are_counted() -> None:
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert operations(jnp.matmul, a, b) == 2 * 3 * 5 * 7
    square = jnp.ones((4, 4))
    loop = lambda x: jax.lax.fori_loop(0, 6, lambda _, v: v @ v, x)  # noqa: E731
    assert operations(loop, square) == 6 * 2 * 4**3
    assert count(jax.make_jaxpr(loop)(square), once=True) == 2 * 4**3
    branch = lambda p, x: jax.lax.cond(p, lambda v: v @ v @ v, lambda v: v @ v, x)  # noqa: E731
    assert operations(branch, True, square) == 2 * 2 * 4**3
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("data")
    split = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=rows, out_specs=rows)
    assert operations(jax.jit(split), jnp.ones((8, 5))) == 4 * 2 * 2 * 2 * 5
    image, kernel = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 5))
    valid = lambda x, k: jax.lax.conv_general_dilated(  # noqa: E731
        x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert operations(valid, image, kernel) == 2 * (2 * 4 * 4 * 5) * 3 * 3 * 3


@pytest.mark.parametrize(("name", "giga"), [("RN50", 12.22), ("ViT-B-32", 8.82)])
def test_a_tower_has_the_operations_that_open_clip_counts(name: str, giga: float) -> None:
    # open_clip:docs/model_profile.csv; RN50's includes what is no convolution
    towers = build(preset(name), Policy("bfloat16", "accelerator"))
    variables = jax.eval_shape(towers.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.uint8)
    assert operations(towers.encode_image, variables, image) == pytest.approx(1e9 * giga, rel=0.06)


PROGRAM = """HloModule m
%add.1 (a: f32[], b: f32[]) -> f32[] {
}
%inner.2 (p: f32[4]) -> f32[4] {
  %g = bf16[16,2]{1,0} all-gather(%x), channel_id=1
}
%body.3 (p: f32[4]) -> f32[4] {
  %f = f32[4]{0} fusion(%p), kind=kLoop, calls=%inner.2
  %r = (f32[4]{0}, f32[2]{0}) all-reduce(%f, %h), to_apply=%add.1
}
ENTRY %main.4 (p: f32[4]) -> f32[4] {
  %s = (f32[4]{0}, f32[32]{0}) all-gather-start(%p), dimensions={0}
  %d = f32[32]{0} all-gather-done(%s)
  %w = (f32[4]{0}) while(%t), condition=%c, body=%body.3
}
"""


def test_collectives_are_read_and_those_of_loops_repeated() -> None:
    found = collectives(PROGRAM, repeats=3)
    assert found["all-gather"] == (1 + 3, 128 + 3 * 64, 128)
    assert found["all-reduce"] == (3, 3 * 24, 24)
    assert collectives(PROGRAM)["all-gather"] == (2, 128 + 64, 128)


CHAIN = """HloModule m
%first.1 (p: bf16[16,2]) -> (bf16[16,2], bf16[32,2], u32[]) {
  %g = bf16[32,2]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
  ROOT %c = (bf16[16,2]{1,0}, bf16[32,2]{1,0}) custom-call(%g), \
custom_call_target="AsyncCollectiveStart"
}
%between.2 (p: bf16[16,2], q: f32[4]) -> (f32[4], bf16[16,2], bf16[32,2], u32[]) {
  %g.1 = bf16[32,2]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
  ROOT %t = (f32[4]{0}, bf16[16,2]{1,0}, bf16[32,2]{1,0}) tuple(%x, %p, %g.1)
}
%both.3 (p: bf16[16,2]) -> (bf16[32,2], bf16[64,2]) {
  %g.1 = bf16[32,2]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
  %g.11 = bf16[64,2]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="1"}
  ROOT %c = (bf16[16,2]{1,0}, bf16[64,2]{1,0}) custom-call(%g.11), \
custom_call_target="AsyncCollectiveStart"
}
%last.4 (p: bf16[16,2]) -> bf16[32,2] {
  %g.2 = bf16[32,2]{1,0} all-gather(%p), channel_id=1, frontend_attributes={chain_id="0"}
  ROOT %d = bf16[32,2]{1,0} custom-call(%p, %g.2), custom_call_target="AsyncCollectiveDone"
}
"""


def test_a_collective_that_fusions_carry_on_is_one() -> None:
    """As libtpu 0.0.52 prints the gather of a contrastive loss's captions."""
    assert collectives(CHAIN)["all-gather"] == (2, 128 + 256, 256)


@pytest.mark.slow
def test_encoding_needs_no_collectives_and_training_gathers_embeddings() -> None:
    encode = planning.compile_step(TINY)
    assert encode.fits
    assert not encode.collectives
    assert encode.flops > 0
    assert encode.traffic > encode.flops / 1e3
    trained = planning.compile_step(dataclasses.replace(TINY, step="train"))
    assert trained.collectives["all-gather"].number >= 1
    size = preset("demo").embed_dim * TINY.batch_size * 4
    assert trained.collectives["all-gather"].largest <= size, "no gather beyond the embeddings"


@pytest.mark.slow
def test_a_loop_moves_its_bytes_as_often_as_it_runs() -> None:
    once, twice = (
        planning.compile_step(dataclasses.replace(TINY, step="pgd", pgd_steps=steps))
        for steps in (4, 8)
    )
    assert twice.flops / once.flops == pytest.approx(2, abs=0.1)
    assert twice.traffic / once.traffic == pytest.approx(2, abs=0.1)


def test_a_batch_that_the_devices_do_not_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="share no batch of 9; choose a multiple of 4"):
        planning.compile_step(dataclasses.replace(TINY, batch_size=9))
    with pytest.raises(ConfigError, match="JAX_NUM_CPU_DEVICES=64"):
        planning.compile_step(dataclasses.replace(TINY, devices=64, batch_size=64))


def test_what_binds_is_what_takes_longest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = planning.Compiled(
        True, "", 1.0, flops=197e12 * 0.003, traffic=819e9 * 0.002, sent=150_528
    )
    calls = []

    def compile_step(config: PlanConfig) -> planning.Compiled:
        calls.append(config.batch_size)
        fits = config.batch_size <= 2048
        return made if fits else planning.Compiled(False, "too large", 1.0)

    monkeypatch.setattr(planning, "compile_step", compile_step)
    config = PlanConfig(batch_size=1024, host=HostConfig(decode_rate=100.0, cores=10))
    (found,) = planning.plan(config, lambda _: None, tmp_path)
    assert found.bounds["compute"] == pytest.approx(0.003)
    assert found.bounds["memory"] == pytest.approx(0.002)
    assert found.bounds["transfer"] == pytest.approx(150_528 * 1024 / 12e9)
    assert found.bounds["decode"] == pytest.approx(1024 / 1000)
    assert found.binds == "decode"
    assert planning.cores_needed(config, found) == 3414  # 1024 images in .003 s, 100 a core
    told = "\n".join(lines(config, found))
    assert "what binds: reading and decoding; at most 1,000 rows a second" in told
    assert json.loads(json.dumps(as_json(config, found)))["binds"] == "decode"
    assert planning.plan(config, lambda _: None, tmp_path) == [found], "from the cache"
    assert calls == [1024]
    swept = planning.plan(dataclasses.replace(config, sweep=True), lambda _: None, tmp_path)
    assert [each.batch_size for each in swept] == [1024, 2048, 4096]
    assert [each.compiled.fits for each in swept] == [True, True, False]
    assert calls == [1024, 2048, 4096]
    assert "DOES NOT FIT: too large" in "\n".join(lines(config, swept[-1]))


@pytest.mark.parametrize("topology", ["v5e", "v9:2x4", "v5e:2xb", "v5e:0x4", ""])
def test_a_topology_is_a_chip_and_a_shape(topology: str) -> None:
    with pytest.raises(ConfigError, match="a topology is CHIP:SHAPE, as v5e:2x4"):
        chip_of(topology)
    assert chip_of("v5p:2x4x4") == ("v5p", CHIPS["v5p"], 32)


@pytest.mark.e2e
@pytest.mark.slow
def test_the_verb_plans_the_run_of_a_configuration(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    ran = run_process(
        "plan", "--of=train/demo", "--platform=cpu", "--devices=2", "--batch_size=8",
        "--anew", f"--out={out}",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "train demo, batch 8, on 2 CPU devices" in ran.out
    assert json.loads(out.read_text())[0]["fits"]
    assert run_process("plan", "--of=attack/badnets").code == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_step_is_compiled_for_a_tpu_that_is_not_here() -> None:
    common = ("plan", "--preset=demo", "--topology=v5e:2x4", "--anew")
    ran = run_process(*common, "--batch_size=64")
    assert ran.code == 0, ran.err
    assert "fits: " in ran.out
    assert "no collectives" in ran.out
    ran = run_process(*common, f"--batch_size={2**23}")
    assert ran.code == 2
    assert "DOES NOT FIT" in ran.out
    ran = run_process("plan", "--preset=demo", "--topology=v5e:3x5", "--batch_size=15", "--anew")
    assert ran.code == 2
    assert "libtpu knows no topology v5e:3x5" in ran.last


def test_plans_make_a_page(tmp_path: Path) -> None:
    made = planning.Compiled(True, "", 2.0, arguments=10**9, flops=1e12, traffic=1e9, sent=3)
    config = PlanConfig(batch_size=1024)
    plan = planning.Plan(1024, made, {"compute": 0.5, "decode": 0.1})
    full = planning.Plan(2048, planning.Compiled(False, "too large", 1.0), {})
    plans = [as_json(config, plan), as_json(config, full)]
    (tmp_path / "a.json").write_text(json.dumps(plans))
    text = plan_page.write_page(tmp_path).read_text()
    assert "| encode RN50 | 1,024 | tpu v5e:2x4 | 2 | yes | 1.00 | 1.000 | 1.0 | none |" in text
    assert "| compute | 2,048 | 3,300,000 | 26.9 | 3.58 | 9 |" in text
    assert "| encode RN50 | 2,048 | tpu v5e:2x4 | 1 | NO: too large |" in text
