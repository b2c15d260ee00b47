"""Counts what a training step asks of an accelerator, without one, in the program that JAX hands to XLA.

    python -m benchmarks.lowered --platform=cuda

Nothing is compiled or computed, so full size takes seconds. XLA fuses and joins much of this later: the counts show
what a change adds to the program or takes from it, not how long it runs. `tests/test_accelerator.py` pins them.
"""

import argparse
import collections
from unittest import mock

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from draem_jax import devices
from draem_jax.model import networks
from draem_jax.training.optimizer import make_optimizer
from draem_jax.training.state import TrainState
from draem_jax.training.update import make_update


def trace_update(*, size, widths, batch, dtype, on_cpu=False, device_count=1, remat=False, slices=1):
    """The update that train.py runs, with shapes in place of arrays.

    Args:
        size: side of the square images, a multiple of 32.
        widths: (reconstructive_width, discriminative_width).
        batch: images on all devices together.
        dtype: 'float32' or 'bfloat16'.
        on_cpu: take the code of a CPU, not that of accelerators.
        device_count: how many devices share the batch.
        remat, slices: of `make_model` and `make_update`.

    Returns:
        jax.stages.Traced, whose `lower(lowering_platforms=('cuda',))` needs no such device.
    """
    with mock.patch.object(devices, 'on_cpu', return_value=on_cpu):
        model = networks.make_model(
            reconstructive_width=widths[0],
            discriminative_width=widths[1],
            dtype=dtype,
            remat=remat,
            axis_name=devices.AXIS,
        )
        optimizer = make_optimizer(lambda step: 1e-4)
        variables = networks.variable_shapes(model, (size, size))
        number = jax.ShapeDtypeStruct((), jnp.int32)
        opt_state = jax.eval_shape(optimizer.init, variables['params'])
        state = TrainState(number, variables['params'], variables['batch_stats'], opt_state, number)
        channels = {'image': 3, 'augmented': 3, 'mask': 1}
        images = {name: jax.ShapeDtypeStruct((batch, size, size, c), jnp.uint8) for name, c in channels.items()}
        update = jax.shard_map(
            make_update(model, optimizer, slices=slices),
            mesh=AbstractMesh((device_count,), (devices.AXIS,), axis_types=(AxisType.Auto,)),
            in_specs=(PartitionSpec(), PartitionSpec(devices.AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return jax.jit(update).trace(state, images)


def count(lowered):
    """Operations of a lowered program, those of a called function once for every call.

    An image is an array of four dimensions of which the second and third are larger than 3: no kernel, and no weights
    along one axis.

    Returns:
        {what: how many}, sorted by name.
    """
    module = lowered.compiler_ir('stablehlo')
    functions = {function.sym_name.value: function for function in module.body.operations}
    counts = collections.Counter()

    def visit(operation):
        name = operation.operation.name
        if name == 'func.call':
            visit(functions[operation.callee.value])
        elif what := _describe(name.removeprefix('stablehlo.'), operation):
            counts[what] += 1
        for region in operation.regions:
            for block in region:
                for inner in block:
                    visit(inner)

    visit(functions['main'])
    return dict(sorted(counts.items()))


def _describe(name, operation):
    """What to count an operation as, or None."""
    operands = [value.type for value in operation.operands]
    results = [value.type for value in operation.results]
    if name in ('convolution', 'dot_general'):
        return f'{name} {operands[0].element_type} x {operands[1].element_type} -> {results[0].element_type}'
    if name == 'reduce' and _is_image(operands[0]):
        return f'reduce of an image, {operands[0].element_type}'
    if name == 'convert' and _is_image(results[0]):
        return f'convert of an image, {operands[0].element_type} -> {results[0].element_type}'
    if name == 'transpose' and _is_image(results[0]):
        return f'transpose of an image, {results[0].element_type}'
    if name in ('all_reduce', 'all_gather', 'reduce_scatter'):
        return name
    return None


def _is_image(array):
    return array.rank == 4 and min(array.shape[1:3]) > 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--platform', default='cuda', choices=['cuda', 'tpu', 'cpu'])
    parser.add_argument('--size', type=int, default=256)
    parser.add_argument('--widths', default='128/64')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--devices', type=int, default=8, help='how many devices share the batch')
    parser.add_argument('--remat', action='store_true')
    parser.add_argument('--slices', type=int, default=1)
    flags = parser.parse_args()
    traced = trace_update(
        size=flags.size,
        widths=tuple(map(int, flags.widths.split('/'))),
        batch=flags.batch,
        dtype=flags.dtype,
        on_cpu=flags.platform == 'cpu',
        device_count=flags.devices,
        remat=flags.remat,
        slices=flags.slices,
    )
    for what, number in count(traced.lower(lowering_platforms=(flags.platform,))).items():
        print(f'{number:6} {what}')


if __name__ == '__main__':
    main()
