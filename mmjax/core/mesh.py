"""The device mesh: made once by a verb, passed down as the keyword `mesh`."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.core.config import MeshConfig
from mmjax.core.errors import ConfigError

DATA, MODEL = "data", "model"


def make_mesh(config: MeshConfig | None = None) -> Mesh:
    """The mesh with axes ("data", "model"), both of type Auto.

    Auto, because JAX 0.10 makes Explicit axes by default, under which `zi @ zt.T` with both
    batch-sharded and linen's `Embed` raise.

    Raises:
        ConfigError: the shape does not use the devices that are there.
    """
    config = config or MeshConfig()
    devices = len(jax.devices())
    data = devices // config.model if config.data == -1 else config.data
    if data < 1 or data * config.model > devices:
        raise ConfigError(
            f"mesh data={config.data} x model={config.model} wants more than the {devices} "
            "device(s) found; lower config.mesh.data or config.mesh.model"
        )
    chosen = np.array(jax.devices()[: data * config.model]).reshape(data, config.model)
    return Mesh(chosen, (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def local_mesh(devices: int | None = None) -> Mesh:
    """A mesh of this process's own devices, all along `data`: work that no other process shares.

    Args:
        devices: how many at most; None = all.
    """
    chosen = np.array(jax.local_devices()[:devices]).reshape(-1, 1)
    return Mesh(chosen, (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First dimension split over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
