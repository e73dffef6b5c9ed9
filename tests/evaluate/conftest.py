"""A small world for experiments: that of the verbs' tests."""

import pytest

from tests.e2e.conftest import World, make_world


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once: nothing may write into it."""
    return make_world(tmp_path_factory.mktemp("world"))
