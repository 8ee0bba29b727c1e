"""Checkpoints of a run's state, through orbax: written beside, then renamed, the last two kept."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from ._folder import RunFolderError


class Checkpoints:
    """The `checkpoints/` of one run.

    Only the arrays of a state are saved, as a flat list: everything else in it (structures,
    functions) is made again from the case. Nothing is pickled.
    """

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            enable_async_checkpointing=False,
            # What a killed process left half-written is swept away, not read.
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or `None`."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree[Any]) -> None:
        """Save a state, unless that step is already there."""
        if step not in self._manager.all_steps():
            arrays = jax.tree.leaves(eqx.filter(state, eqx.is_array))
            self._manager.save(step, args=ocp.args.StandardSave(arrays))

    def restore(self, step: int, like: PyTree[Any]) -> PyTree[Any]:
        """The state saved at a step; `like` has its structure.

        **Raises:** `RunFolderError` if what was saved does not fit that structure.
        """
        arrays, static = eqx.partition(like, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        try:
            restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError, TypeError, FileNotFoundError) as e:
            raise RunFolderError(
                f"the checkpoint of step {step} does not fit this run's case.yaml; "
                "was it edited after the run began?"
            ) from e
        return eqx.combine(jax.tree.unflatten(structure, restored), static)
