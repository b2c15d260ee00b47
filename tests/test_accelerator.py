"""What only accelerators do, without one: their branches against those of a CPU, and the program lowered for them.

Networks are compared in float64. In float32 the gradients at the start of a training differ in the third digit
wherever sums are rounded in another order, which would hide mistakes. What is special to bfloat16 is compared one by
one in test_layers; here follow the losses that it leads to.
"""

import functools
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from benchmarks import lowered
from draem_jax import devices
from draem_jax.model import layers, networks
from draem_jax.training.state import init_state
from draem_jax.training.update import make_update

SIZE = 32
BATCH = 8


class Shallow(nn.Module):
    """Every kind of layer of the networks, but few of them, to compile in seconds; called as `networks.Draem`."""

    dtype: jnp.dtype
    axis_name: str | None
    remat: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        block = functools.partial(networks.ConvBlock, dtype=self.dtype, axis_name=self.axis_name, remat=self.remat)
        image = image.astype(self.dtype)
        skip = block((4,))(image, train=train)
        x = layers.upsample2x(block((6,))(layers.max_pool2x2(skip), train=train))
        x = jnp.concatenate([x, skip], axis=-1)
        reconstruction = networks.last_convolution(3, self.dtype, name='reconstruction')(x)
        pair = jnp.concatenate([reconstruction.astype(self.dtype), image], axis=-1)
        return reconstruction, networks.last_convolution(2, self.dtype)(block((4,))(pair, train=train))


def draw_batch():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((BATCH, SIZE, SIZE, 1), np.uint8)
    mask[::2, :16, 8:24] = 1
    return {'image': image, 'augmented': np.where(mask, 255 - image, image), 'mask': mask}


@functools.cache
def update_once(make_model, *, on_cpu, device_count, dtype='float64', slices=1):
    """One update of a model with the code of a CPU or with that of accelerators, computed on the CPU.

    The optimizer is gradient descent at rate 1, so the change of the parameters is the gradient.

    Returns:
        The metrics, the gradient and the running statistics.
    """
    variables = networks.init_variables(make_model(dtype=jnp.dtype('float32'), axis_name=None), (SIZE, SIZE), seed=0)
    model, optimizer = make_model(dtype=jnp.dtype(dtype), axis_name=devices.AXIS), optax.sgd(1.0)
    is_exact = dtype == 'float64'
    with (
        mock.patch.object(devices, 'on_cpu', return_value=on_cpu),
        jax.enable_x64(is_exact),
        jax.numpy_dtype_promotion('standard'),
    ):
        if is_exact:
            variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
        update = jax.shard_map(
            make_update(model, optimizer, slices=slices),
            mesh=Mesh(np.array(jax.devices()[:device_count]), (devices.AXIS,)),
            in_specs=(PartitionSpec(), PartitionSpec(devices.AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        before, batch = init_state(variables, optimizer), draw_batch()
        after, metrics = jax.device_get(jax.jit(update)(before, batch))
    return metrics, jax.tree.map(np.subtract, before.params, after.params), after.batch_stats


def assert_close(ours, expected, tolerance):
    """Each leaf differs by at most `tolerance` times its largest value."""
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(), err_msg=jax.tree_util.keystr(path))


# The losses stay float32, and so does the image that they compare. That moves gradients in their seventh digit.
CLOSE = 1e-6


def test_the_whole_networks_train_on_four_accelerators_as_on_one_cpu():
    draem = functools.partial(networks.Draem, 2, 2)
    ours = update_once(draem, on_cpu=False, device_count=4)
    assert_close(ours, update_once(draem, on_cpu=True, device_count=1), CLOSE)


@pytest.mark.parametrize(('on_cpu', 'device_count', 'remat'), [(False, 1, False), (False, 4, True), (True, 4, False)])
def test_neither_branches_nor_devices_nor_rematerialisation_change_an_update(on_cpu, device_count, remat):
    model = functools.partial(Shallow, remat=True) if remat else Shallow
    ours = update_once(model, on_cpu=on_cpu, device_count=device_count)
    assert_close(ours, update_once(Shallow, on_cpu=True, device_count=1), CLOSE)


def test_accelerators_accumulate_in_a_loop_what_a_cpu_accumulates_unrolled():
    ours, expected = (update_once(Shallow, on_cpu=on_cpu, device_count=4, slices=2) for on_cpu in (False, True))
    assert_close(ours, expected, CLOSE)
    whole = update_once(Shallow, on_cpu=True, device_count=4)
    assert abs(ours[0]['loss'] - whole[0]['loss']) > 1e-5  # The statistics are those of a slice, so slices matter.


def test_an_accelerator_gets_the_networks_once_however_many_slices_there_are():
    def convolutions(slices):
        traced = lowered.trace_update(size=32, widths=(1, 1), batch=4, dtype='bfloat16', slices=slices)
        counts = lowered.count(traced.lower(lowering_platforms=('cuda',)))
        return sum(count for what, count in counts.items() if what.startswith('convolution'))

    assert convolutions(slices=4) == convolutions(slices=2)


def test_bfloat16_changes_losses_and_statistics_by_its_rounding():
    metrics, gradient, statistics = update_once(Shallow, on_cpu=False, device_count=4, dtype='bfloat16')
    exact_metrics, exact_gradient, exact_statistics = update_once(Shallow, on_cpu=True, device_count=1)
    assert {leaf.dtype for leaf in jax.tree.leaves((metrics, gradient, statistics))} == {np.dtype('float32')}
    assert_close(metrics, exact_metrics, 0.02)
    assert_close(statistics, exact_statistics, 0.01)
    ours, exact = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)]) for g in (gradient, exact_gradient))
    assert ours @ exact / np.linalg.norm(ours) / np.linalg.norm(exact) > 0.99


def test_the_update_asks_an_accelerator_for_no_more_than_it_needs():
    norms = 22 + 27  # of the reconstructive and the discriminative network, each after a convolution
    parameters = 3 * norms + 2 * 2  # a kernel, a scale and a bias each, and two output layers
    expected = {
        # Every convolution but the first, whose image needs no gradient, has two gradients.
        'convolution bf16 x bf16 -> bf16': 3 * norms - 1,
        # The output layers: forward and gradient of the kernel, and gradient of the image.
        'dot_general bf16 x bf16 -> f32': 2 * 2,
        'dot_general bf16 x bf16 -> bf16': 2,
        # SSIM's window: along height and width, forward and back; a transpose each, and none around convolutions.
        'dot_general f32 x f32 -> f32': 2 * 2,
        'transpose of an image, f32': 2 * 2,
        # Forward two sums for the statistics, in one reading; back two means of the gradient. Then log-softmax (2), its
        # gradient (2), l2, SSIM and the two gradients of the output layers' biases.
        'reduce of an image, f32': 4 * norms + 8,
        # Forward the input, once; back the input and the gradient. Then the gradient of the reconstruction.
        'convert of an image, bf16 -> f32': 3 * norms + 1,
        # The results of both ways. Then the image, its reconstruction, and the gradients that reach the output layers.
        'convert of an image, f32 -> bf16': 2 * norms + 4,
        'convert of an image, ui8 -> f32': 3,
        # One exchange of statistics for each normalisation and one of their gradients, then parameters and metrics.
        'all_gather': norms,
        'all_reduce': norms + parameters + 4,
    }
    traced = lowered.trace_update(size=128, widths=(2, 2), batch=4, dtype='bfloat16', device_count=4)
    for platform in ('cuda', 'tpu'):
        assert lowered.count(traced.lower(lowering_platforms=(platform,))) == expected
