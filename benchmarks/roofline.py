"""The least time of a training step by kind of kernel: how much is computed, how many bytes move, how long that takes.

    python -m benchmarks.roofline
    python -m benchmarks.roofline --size=256 --widths=128/64 --batch=32 --dtype=bfloat16 --tflops=790 --tbps=3.0

It counts what the networks' shapes say, as if every convolution, every reduction, every enlargement and so on were a
kernel of its own that reads its inputs from memory and writes its outputs once. XLA saves some of that by fusion, and
pays more where it copies. Losses are left out. Kinds are those of benchmarks/kernels.py, so that a trace can be laid
beside it.
"""

import argparse
import math
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import rows
from draem_jax.model import networks


def shapes(model, image_size):
    """Elements of an image that pass through the layers of `model`, for one image.

    Returns:
        'convolutions': [(elements read, of the kernel, written, bytes of an element written)], and lists of
        (elements read, written): 'normalisations', 'poolings', 'enlargements', 'concatenations'.
    """
    found = {'convolutions': [], 'normalisations': [], 'poolings': [], 'enlargements': [], 'concatenations': []}

    def seen(name, function):
        def call(x, *rest, **options):
            out = function(x, *rest, **options)
            inputs = x if isinstance(x, list) else [x]
            found[name].append((sum(each.size for each in inputs), out.size))
            return out

        return call

    def count(call, arguments, options, context):
        out = call(*arguments, **options)
        if context.method_name == '__call__':
            if isinstance(context.module, nn.Conv):
                kernel = math.prod(context.module.kernel_size) * arguments[0].shape[-1] * out.shape[-1]
                found['convolutions'].append((arguments[0].size, kernel, out.size, out.dtype.itemsize))
            if isinstance(context.module, networks.BatchNorm):
                found['normalisations'].append((arguments[0].size, out.size))
        return out

    with (
        mock.patch.object(networks, 'max_pool2x2', seen('poolings', networks.max_pool2x2)),
        mock.patch.object(networks, 'upsample2x', seen('enlargements', networks.upsample2x)),
        mock.patch.object(networks.jnp, 'concatenate', seen('concatenations', networks.jnp.concatenate)),
        nn.intercept_methods(count),
    ):
        networks.variable_shapes(model, image_size)
    return found


def work(model, image_size, batch):
    """What a training step of `batch` images computes and moves at least, by kind.

    Returns:
        A list of {'kind', 'tflop', 'gigabytes'} (10^12 and 10^9) in the order of what they move.
    """
    found, a = shapes(model, image_size), jnp.dtype(model.dtype).itemsize
    parameters = sum(leaf.size for leaf in jax.tree.leaves(networks.variable_shapes(model, image_size)['params']))

    def total(name):
        read, written = (sum(sizes) for sizes in zip((0, 0), *found[name], strict=True))
        return batch * read * a, batch * written * a

    # Forwards (image, kernel -> result), and backwards (gradient, kernel -> gradient), (image, gradient -> kernel's).
    convolutions = sum(
        3 * (batch * read * a + kernel * a + batch * written * size)
        for read, kernel, written, size in found['convolutions']
    )
    normalised, _ = total('normalisations')
    pool_read, pool_written = total('poolings')
    kernels_converted = 2 * parameters * (4 + a) if a < 4 else 0
    moved = {
        'convolutions': convolutions,
        # Statistics read the image; on the way back two sums read the image and the gradient.
        'sums': 3 * normalised,
        # Normalisation reads the image and writes it; backwards it reads image and gradient and writes a gradient.
        # The gradient of pooling reads its input, its output and a gradient; the others only move a gradient.
        'elementwise': 5 * normalised
        + 3 * (pool_read + pool_written)
        + 2 * sum(total('enlargements'))
        + 2 * sum(total('concatenations'))
        + kernels_converted,
        # Adam reads gradient, two moments and parameters, and writes the last three; the norm reads the gradient.
        'optimizer': 8 * 4 * parameters,
    }
    flops = {'convolutions': 3 * batch * networks.forward_flops(model, image_size)}
    return [
        {'kind': kind, 'tflop': 1e-12 * flops.get(kind, 0), 'gigabytes': 1e-9 * count} for kind, count in moved.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=256, help='of the images, in pixels')
    parser.add_argument('--widths', default='128/64', help='of the two networks')
    parser.add_argument('--batch', type=int, default=8, help='images a step')
    parser.add_argument('--dtype', default='bfloat16', help='of the images inside the networks')
    parser.add_argument('--tflops', type=float, default=790.0, help='TFLOP/s of matrix products')
    parser.add_argument('--tbps', type=float, default=3.0, help='TB/s of memory')
    flags = parser.parse_args()
    reconstructive, discriminative = map(int, flags.widths.split('/'))
    model = networks.make_model(
        reconstructive_width=reconstructive, discriminative_width=discriminative, dtype=flags.dtype
    )
    print(f'{"":14}{"TFLOP":>9}{"GB":>9}{"ms at best":>12}')
    for row in work(model, (flags.size, flags.size), flags.batch):
        best = rows.least_ms(row, flags.tflops, flags.tbps)
        print(f'{row["kind"]:14}{row["tflop"]:9.2f}{row["gigabytes"]:9.2f}{best:12.2f}')


if __name__ == '__main__':
    main()
