"""Several processes as one run: joining them, waiting for one another, stopping at one step."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from mmjax.core.errors import ConfigError


def initialize(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Join the other processes of the run; alone when nobody says that there are others.

    Call it before anything else asks JAX for its devices.

    Args:
        coordinator: HOST:PORT where process 0 listens; `auto` where JAX finds it out by itself
            (Slurm, TPU pods, GKE, Open MPI); empty for `JAX_COORDINATOR_ADDRESS`.
        processes: how many there are; 0 for `JAX_NUM_PROCESSES`.
        process: the number of this one; -1 for `JAX_PROCESS_ID`.

    Raises:
        ConfigError: a coordinator, but not how many processes there are or which one this is.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if not coordinator:
        return
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    processes = processes or int(os.environ.get("JAX_NUM_PROCESSES", "0"))
    process = process if process >= 0 else int(os.environ.get("JAX_PROCESS_ID", "-1"))
    if processes < 1 or not 0 <= process < processes:
        raise ConfigError(
            f"a run with a coordinator ({coordinator}) wants --processes=N and --process=0..N-1, "
            f"got {processes} and {process}"
        )
    jax.distributed.initialize(coordinator, processes, process)


def is_primary() -> bool:
    """Whether this process writes what there is one of."""
    return jax.process_index() == 0


def wait_for_others(name: str) -> None:
    """Return when every process has come to the barrier `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def connect(mesh: Mesh) -> None:
    """Open the channels of collectives along the mesh's axes, while every process is here.

    They are opened at first use otherwise, and between CPUs (Gloo) a process waits only 30 seconds
    for one that is still compiling.
    """
    if jax.process_count() == 1:
        return
    names = mesh.axis_names
    for axes in (*((name,) for name in names), names):
        others = tuple(name for name in names if name not in axes)
        total = jax.shard_map(
            partial(lax.psum, axis_name=axes),
            mesh=mesh,
            in_specs=PartitionSpec(names),
            out_specs=PartitionSpec(others),
        )
        jax.block_until_ready(jax.jit(total)(np.ones(mesh.size, np.float32)))


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Gives `stop()`, to be asked after every step: True once SIGTERM has come.

    With several processes, one of them being told is enough, and `stop` says True after the same
    step in all: JAX's preemption service, which listens to SIGTERM itself, agrees on it.
    """
    if jax.process_count() > 1:
        steps = itertools.count()
        yield lambda: multihost_utils.reached_preemption_sync_point(next(steps))
        return
    told = False

    def tell(signum: int, frame: object) -> None:
        nonlocal told
        told = True

    before = signal.signal(signal.SIGTERM, tell)
    try:
        yield lambda: told
    finally:
        signal.signal(signal.SIGTERM, before)
