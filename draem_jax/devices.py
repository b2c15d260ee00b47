"""The one place that knows how work is spread over devices.

One process uses `jax.pmap`. Several processes use `jax.shard_map` over the devices of all of them: a pmapped call would
wrap every array anew, which for a training state takes longer than all else that the host does in a step. A loop is
written once, and looks the same on one device and on many hosts: every device holds the whole state, every process
makes its part of each batch, and all get the same results.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.flatten_util
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from draem_jax import peaks, processes, storage
from draem_jax.errors import UserError

AXIS = 'devices'  # the name of the mapped axis: for pmean, and for BatchNorm(axis_name=...)

Tree = Any  # nested dicts, lists and tuples of arrays


def count() -> int:
    """The number of devices of all processes."""
    return jax.device_count()


def describe() -> str:
    """All devices in a few words, such as '8 x NVIDIA H100 80GB HBM3 in 2 processes'."""
    several = f' in {processes.process_count()} processes' if processes.process_count() > 1 else ''
    return f'{count()} x {jax.devices()[0].device_kind}{several}'


def peak_tflops() -> float | None:
    """TFLOP/s (10^12) of all devices together in bfloat16 matrix products at best; None for devices not known."""
    one = peaks.peak_tflops(jax.devices()[0].device_kind)
    return None if one is None else count() * one


def on_cpu() -> bool:
    """Whether JAX computes on a CPU. All code that differs between CPUs and accelerators asks here."""
    return jax.default_backend() == 'cpu'


def make_deterministic() -> None:
    """Makes XLA use only operations that give the same bits every time; call it before anything else touches JAX.

    On CPUs and TPUs all operations do. On GPUs some do not, and those are faster.
    """
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true'


class Program:
    """A function that is mapped over all devices of all processes: `parallel_update` and `parallel_predict` make it.

    With several processes all compile it before the first of them runs it. A process that waited for another in a
    collective would give up after a while (Gloo after 30 s), and compiling takes longer where the program is not yet in
    the compilation cache, which JAX lets only process 0 write.
    """

    def __init__(self, mapped: Any) -> None:
        self._mapped = mapped
        self._compiled: jax.stages.Compiled | None = None

    def compile(self, *arguments: Tree) -> jax.stages.Compiled:
        """Compiles for arguments of these shapes, which later calls must have.

        Args:
            *arguments: arrays as they will be passed, or jax.ShapeDtypeStructs with a sharding.
        """
        self._compiled = self._mapped.lower(*arguments).compile()
        processes.meet('compiled')
        return self._compiled

    def __call__(self, *arguments: Tree) -> Any:
        if self._compiled is None and processes.process_count() > 1:
            self.compile(*arguments)
        return (self._compiled or self._mapped)(*arguments)


class ParallelUpdate:
    """An update over all devices of all processes; `parallel_update` makes it.

    update(state, batch, asks_to_stop=False) -> (state, metrics, stops)

    The state comes from `replicate` or from the call before, and is donated: the new one, of the same shapes, takes its
    memory. The batch has a leading axis of devices ([d, B/D, ...]) and comes from `prefetch`; with one process it may
    also be on the host, as `split` gives it. `stops` is the same in all processes at the same step. With one process it
    is `asks_to_stop`. With several it says whether any of them asked in the step before, because the question travels
    with the step.
    """

    def __init__(self, update: Callable[[Tree, Tree], tuple[Tree, Tree]]) -> None:
        self._is_alone = processes.process_count() == 1
        if self._is_alone:
            mapped = jax.pmap(update, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)
            self._program = Program(mapped)
            return

        def update_and_ask(state: Tree, batch: Tree, asks_to_stop: jax.Array) -> tuple[Tree, Tree, jax.Array]:
            state, metrics = update(state, batch)
            return state, metrics, lax.psum(asks_to_stop, AXIS)

        self._program = Program(_map_over_processes(update_and_ask, has_state=True))
        # Made once: in a step nothing should travel to the devices but the batch.
        self._answers = {
            answer: _place(np.full(jax.local_device_count(), answer, np.float32)) for answer in (False, True)
        }
        self._asked_before: Any = 0.0  # how many devices asked in the step before

    def compile(self, state: Tree, batch: Tree) -> jax.stages.Compiled:
        """Compiles the update for arrays of these shapes, which later calls must have; returns it for analysis."""
        if self._is_alone:
            return self._program.compile(state, batch)
        return self._program.compile(state, batch, self._answers[False])

    def __call__(self, state: Tree, batch: Tree, asks_to_stop: bool = False) -> tuple[Tree, Tree, bool]:
        if self._is_alone:
            return *self._program(state, batch), asks_to_stop
        asked_before = self._asked_before
        state, metrics, self._asked_before = self._program(state, batch, self._answers[asks_to_stop])
        return state, metrics, float(asked_before) > 0


def parallel_update(update: Callable[[Tree, Tree], tuple[Tree, Tree]]) -> ParallelUpdate:
    """An update over all devices of all processes.

    Args:
        update: update(state, batch) -> (state, metrics); inside it `average` equalises values over the devices.
    """
    return ParallelUpdate(update)


def parallel_predict(predict: Callable[[Tree, jax.Array], Tree]) -> Program:
    """`predict(variables, images) -> outputs` over all devices of all processes, for `predict_batch`."""
    if processes.process_count() == 1:
        return Program(jax.pmap(predict, axis_name=AXIS, in_axes=(None, 0)))

    def predict_and_gather(variables: Tree, images: jax.Array) -> Tree:
        return lax.all_gather(predict(variables, images), AXIS)

    return Program(_map_over_processes(predict_and_gather))


def compile_predict(predict: Program, variables: Tree, image_shape: tuple[int, int, int, int]) -> None:
    """Compiles what `parallel_predict` made, for `predict_batch` with images of one shape, before there are images.

    Args:
        predict: from `parallel_predict`.
        variables: of the model, or their shapes.
        image_shape: (B, H, W, 3) of the uint8 images.
    """
    part = (count(), image_shape[0] // count(), *image_shape[1:])
    replicated, spread = (NamedSharding(_mesh(), spec) for spec in (PartitionSpec(), PartitionSpec(AXIS)))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), variables)
    predict.compile(shapes, jax.ShapeDtypeStruct(part, np.uint8, sharding=spread))


def average(tree: Tree) -> Tree:
    """The mean of every leaf, float32, over the devices; only inside a mapped function."""
    if not on_cpu() or lax.axis_size(AXIS) == 1:
        return lax.pmean(tree, AXIS)
    # As one array, so that devices wait for each other only once. On accelerators XLA itself joins small arrays.
    flat, unravel = jax.flatten_util.ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))


def extremes(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The smallest and the largest value on all devices; only inside a mapped function."""
    return lax.pmin(values.min(), AXIS), lax.pmax(values.max(), AXIS)


def replicate(tree: Tree) -> Tree:
    """Copies a tree of arrays on the host to each device, in the form that the mapped functions take and return."""
    sharding = NamedSharding(_mesh(), PartitionSpec())
    if processes.process_count() == 1:
        return jax.device_put(tree, sharding)
    # Unlike device_put this does not compare the arrays of all processes.
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf, np.shape(leaf)), tree)


def split(batch: Tree) -> Tree:
    """[b, ...] -> [d, b/d, ...] for every leaf, over the d devices of this process."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda leaf: leaf.reshape(devices, leaf.shape[0] // devices, *leaf.shape[1:]), batch)


def join(batch: Tree) -> Tree:
    """[d, b/d, ...] -> [b, ...] for every leaf: the inverse of `split`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def prefetch(batches: Iterable[Tree]) -> Iterator[Tree]:
    """Puts batches on the devices, as `split` gives them, one ahead: the next one travels while a step computes.

    Args:
        batches: iterable of dicts of NumPy arrays [b, ...], this process's part of each batch.
    """
    waiting = None
    for batch in batches:
        arriving = _place(split(batch))
        if waiting is not None:
            yield waiting
        waiting = arriving
    if waiting is not None:
        yield waiting


def predict_batch(predict: Callable[..., Tree], variables: Tree, images: np.ndarray) -> Tree:
    """Runs what `parallel_predict` made on images [B, H, W, 3], spread over all devices.

    Every process passes all images, computes its part, and gets everything: NumPy arrays [B, ...].
    """
    return join(jax.device_get(predict(variables, _place(split(_own_part(images))))))


def check_batch_size(batch_size: int, field: str, slices: int = 1) -> None:
    """Raises UserError unless a batch divides evenly over the devices, and each device's part into `slices`."""
    if batch_size < 1 or batch_size % (count() * slices):
        times = f' times {slices} slices (training.accumulation_slices)' if slices > 1 else ''
        raise UserError(
            f'--config.{field}={batch_size} does not divide over the {count()} devices{times}; '
            f'take a multiple of {count() * slices}.'
        )


def cache_compilations(folder: str | os.PathLike[str] | None = None) -> None:
    """Keeps compiled programs on disk, so that only the first run waits for the compiler.

    Args:
        folder: where; None for what JAX_COMPILATION_CACHE_DIR says, else `draem_jax` in the user's cache folder.
    """
    if folder is None and jax.config.values['jax_compilation_cache_dir']:
        return
    jax.config.update('jax_compilation_cache_dir', folder or storage.cache_folder())
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), (AXIS,))


def _own_part(images: np.ndarray) -> np.ndarray:
    """This process's part of images [B, H, W, 3] that every process has."""
    part = len(images) // processes.process_count()
    return images[processes.process_index() * part :][:part]


def _place(tree: Tree) -> Tree:
    """Puts arrays of this process, [d, ...], on its d devices, as its part of arrays [D, ...] of all processes."""
    sharding = NamedSharding(_mesh(), PartitionSpec(AXIS))
    if processes.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def _map_over_processes(function: Callable[..., Tree], *, has_state: bool = False) -> Any:
    """What `jax.pmap` does, over arrays that span all processes: the first argument is whole on every device.

    Args:
        function: takes what one device holds of each argument, and returns what all devices agree on.
        has_state: whether the first argument is donated.
    """

    def on_each_device(whole: Tree, *parts: Tree) -> Tree:
        # Each device holds a part [1, ...] of the arrays that are spread over them.
        return function(whole, *jax.tree.map(lambda part: part.reshape(part.shape[1:]), parts))

    def mapped(whole: Tree, *parts: Tree) -> Tree:
        specs = (PartitionSpec(), *(PartitionSpec(AXIS) for _ in parts))
        return jax.shard_map(on_each_device, mesh=_mesh(), in_specs=specs, out_specs=PartitionSpec(), check_vma=False)(
            whole, *parts
        )

    return jax.jit(mapped, donate_argnums=(0,) if has_state else ())
