import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.checkpoint import open_checkpoints
from mmjax.core.errors import RunError
from mmjax.core.mesh import batch_sharding, make_mesh, replicated


@pytest.fixture
def state():
    mesh = make_mesh()
    return {
        "split": jax.device_put(jnp.arange(8.0), batch_sharding(mesh)),
        "whole": jax.device_put(jnp.arange(3, dtype=jnp.int32), replicated(mesh)),
    }


def test_round_trip_keeps_values_types_and_places(state, tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        checkpoints.save(7, state, {})
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 7
        restored = checkpoints.restore(7, jax.tree.map(jnp.zeros_like, state), {})
    for name, leaf in state.items():
        np.testing.assert_array_equal(restored[name], leaf)
        assert restored[name].dtype == leaf.dtype
        assert restored[name].sharding == leaf.sharding


def test_only_the_newest_are_kept(state, tmp_path):
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state, {})
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]


def test_another_structure_is_refused(state, tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RunError, match=r"step 1 in .*: whole is int32\[3\], wanted absent"):
            checkpoints.restore(1, {"split": state["split"]}, {})
        with pytest.raises(RunError, match=r"split is float32\[8\], wanted float32\[9\]"):
            checkpoints.restore(1, {**state, "split": jnp.zeros(9)}, {})


def test_other_data_are_refused(state, tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"sha256": "ab", "seed": 3})
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RunError, match="trained on other data: sha256 is ab, wanted cd"):
            checkpoints.restore(1, state, {"sha256": "cd", "seed": 3})
        restored = checkpoints.restore(1, state, {"sha256": "ab", "seed": 3})
    np.testing.assert_array_equal(restored["whole"], state["whole"])


def damage(folder, name):
    files = [f for f in folder.rglob("*") if f.is_file() and name(f)]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "name",
    [lambda f: f.name == "_METADATA", lambda f: f.parent.name == "d" or "ocdbt" in f.name],
    ids=["metadata", "arrays"],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(name, state, tmp_path, capsys):
    newer = jax.tree.map(lambda leaf: leaf + 1, state)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        checkpoints.save(2, newer, {})
    damage(tmp_path / "2", name)
    with open_checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.resume(state, {})
        assert restored is not None
        np.testing.assert_array_equal(restored["split"], state["split"])
        assert "the checkpoint of step 2" in capsys.readouterr().err
        checkpoints.save(2, newer, {})
    with open_checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.resume(state, {})
        assert restored is not None
        np.testing.assert_array_equal(restored["split"], newer["split"])
    damage(tmp_path, name)
    with open_checkpoints(tmp_path) as checkpoints, pytest.raises(RunError, match="begin anew"):
        checkpoints.resume(state, {})


def test_nothing_to_resume(state, tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(state, {}) is None
