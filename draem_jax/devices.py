"""The one place that knows how work is spread over devices and over the processes of several hosts.

It uses `jax.pmap`. Every process holds the whole state on each of its devices, makes its part of each batch, and gets
the same results as all others. So a loop is written once, and looks the same on one device and on many hosts.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TextIO

import jax
import jax.flatten_util
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from draem_jax import storage
from draem_jax.errors import UserError, first_line

AXIS = 'devices'  # the name of the mapped axis: for pmean, and for BatchNorm(axis_name=...)

Tree = Any  # nested dicts, lists and tuples of arrays


def count() -> int:
    """The number of devices of all processes."""
    return jax.device_count()


def on_cpu() -> bool:
    """Whether JAX computes on a CPU. All code that differs between CPUs and accelerators asks here."""
    return jax.default_backend() == 'cpu'


def process_count() -> int:
    """How many processes take part; 1 unless `connect` was called."""
    return jax.process_count()


def process_index() -> int:
    """Which of the processes this is, from 0."""
    return jax.process_index()


def is_main() -> bool:
    """Whether this is the process that writes logs, results and everything else that is written once."""
    return jax.process_index() == 0


def print_once(line: str, file: TextIO | None = None) -> None:
    """Prints a line, once for all processes."""
    if is_main():
        print(line, file=file)


def connect(
    *,
    coordinator: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    heartbeat_timeout_seconds: int = 100,
) -> None:
    """Makes this process one of several that train or evaluate together; call it before anything else touches JAX.

    Args:
        coordinator: 'host:port' where process 0 listens. If this and both numbers are None, the environment is asked:
            SLURM, Open MPI, Kubernetes and Cloud TPU tell each process who takes part.
        process_count: number of processes.
        process_index: which one this is, from 0.
        heartbeat_timeout_seconds: a process that gives no sign of life for so long counts as dead, and all others end.

    Raises:
        UserError: the others cannot be found.
    """
    given = [value is not None for value in (coordinator, process_count, process_index)]
    if any(given) and not all(given):
        raise UserError(
            'Without an environment that knows them, a process needs --coordinator, --process_count and '
            '--process_index together.'
        )
    # JAX's own service for preemption would catch SIGTERM, and nothing here asks it.
    jax.config.update('jax_enable_preemption_service', False)
    try:
        jax.distributed.initialize(
            coordinator,
            process_count,
            process_index,
            cluster_detection_method='deactivate' if all(given) else None,
            heartbeat_timeout_seconds=heartbeat_timeout_seconds,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        message = f'This process cannot connect to the others: {first_line(error)}'
        if not all(given):
            message += (
                ' --distributed asks the environment (SLURM, Open MPI, Kubernetes, Cloud TPU); elsewhere say '
                '--coordinator=HOST:PORT --process_count=N --process_index=I.'
            )
        raise UserError(message) from error


def make_deterministic() -> None:
    """Makes XLA use only operations that give the same bits every time; call it before anything else touches JAX.

    On CPUs and TPUs all operations do. On GPUs some do not, and those are faster.
    """
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_deterministic_ops=true'


def exit_process(code: int) -> NoReturn:
    """Ends this process after an error. One of several ends at once: a normal exit would wait for the others."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def explaining_lost_processes() -> Iterator[None]:
    """Turns the error that JAX raises in the `with` block when another process is gone into a UserError."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX's transport raises ValueErrors.
        if process_count() == 1 or isinstance(error, UserError):
            raise
        raise UserError(
            f'Another process is gone: {first_line(error)} Start all of them again with the same flags to go on from '
            'the newest checkpoint.'
        ) from error


def wait_for_all(name: str) -> None:
    """Waits until every process has called this, with the same `name`. If the names differ, an error shows both."""
    if process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_same(value: int | None, what: str, question: str) -> None:
    """Raises UserError unless all processes have the same number, or all None; `question` asks for the likely cause."""
    if process_count() > 1:
        values = multihost_utils.process_allgather(np.int64(-1 if value is None else value)).tolist()
        if len(set(values)) > 1:
            raise UserError(f'The processes do not agree on {what}: {values} (-1: none). {question}')


def parallel_update(update: Callable[[Tree, Tree], tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree, bool]]:
    """An update over all devices of all processes.

    Args:
        update: update(state, batch) -> (state, metrics); inside it `average` equalises values over the devices.

    Returns:
        run(state, batch, asks_to_stop=False) -> (state, metrics, stops).
        The state is donated: the new one, of the same shapes, takes its memory. A state from `replicate` needs no copy.
        The batch has a leading axis of this process's devices ([d, B/D, ...], see `split`).
        `stops` is the same in all processes at the same step. With one process it is `asks_to_stop`. With several it
        says whether any of them asked in the step before, because the question travels with the step.
    """

    def update_and_ask(state: Tree, batch: Tree, asks_to_stop: jax.Array) -> tuple[Tree, Tree, jax.Array]:
        state, metrics = update(state, batch)
        return state, metrics, lax.psum(asks_to_stop, AXIS)

    in_one_process = jax.pmap(update, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)
    in_several = jax.pmap(update_and_ask, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0)
    asking: Any = np.float32(0)  # how many devices asked in the step before

    def run(state: Tree, batch: Tree, asks_to_stop: bool = False) -> tuple[Tree, Tree, bool]:
        nonlocal asking
        if process_count() == 1:
            return *in_one_process(state, batch), asks_to_stop
        asked_before = asking
        state, metrics, asking = in_several(state, batch, np.float32(asks_to_stop))
        return state, metrics, bool(asked_before > 0)

    return run


def parallel_predict(predict: Callable[[Tree, jax.Array], Tree]) -> jax.stages.Wrapped:
    """`predict(variables, images) -> outputs` over all devices of all processes, for `predict_batch`."""
    if process_count() == 1:
        return jax.pmap(predict, axis_name=AXIS, in_axes=(None, 0))

    def predict_and_gather(variables: Tree, images: jax.Array) -> Tree:
        return lax.all_gather(predict(variables, images), AXIS)

    return jax.pmap(predict_and_gather, axis_name=AXIS, in_axes=(None, 0), out_axes=None)


def compile_predict(
    predict: jax.stages.Wrapped, variables: Tree, image_shape: tuple[int, int, int, int]
) -> Callable[..., Tree]:
    """Compiles what `parallel_predict` made, for `predict_batch` with images of one shape, before there are images.

    Args:
        predict: from `parallel_predict`.
        variables: of the model, or their shapes.
        image_shape: (B, H, W, 3) of the uint8 images.
    """
    if process_count() > 1:  # Compiled ahead, it would take only arrays that lie on all hosts.
        return predict
    part = (jax.local_device_count(), image_shape[0] // jax.local_device_count(), *image_shape[1:])
    return predict.lower(variables, jax.ShapeDtypeStruct(part, np.uint8)).compile()


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
    """Copies a tree of arrays to each device of this process, in the form that the mapped functions take and return."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


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
        arriving = jax.device_put(split(batch), NamedSharding(_mesh(), PartitionSpec(AXIS)))
        if waiting is not None:
            yield waiting
        waiting = arriving
    if waiting is not None:
        yield waiting


def predict_batch(predict: Callable[..., Tree], variables: Tree, images: np.ndarray) -> Tree:
    """Runs what `parallel_predict` made on images [B, H, W, 3], spread over all devices.

    Every process passes all images, computes its part, and gets everything: NumPy arrays [B, ...].
    """
    part = len(images) // process_count()
    own = images[process_index() * part :][:part]
    return join(jax.device_get(predict(variables, split(own))))


def check_processes() -> None:
    """Raises UserError if JAX sees other processes that this one is not connected to, as on several TPU hosts."""
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(f'Found {jax.process_count()} JAX processes: start each of them with --distributed.')


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
    if folder is None and jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]  # Made at run time.
        return
    jax.config.update('jax_compilation_cache_dir', folder or storage.cache_folder())
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
