"""Our side of `train_step` and `inference`, which start it: does what each line of its standard input says.

facts            parameters, products, device, a measured rate of matrix products, versions
train N          N training steps: seconds each
predict N        N batches of inference: seconds each
losses FILE      writes weights and a batch to FILE (npz), trains three steps on them: the losses of each
memory           the largest memory so far
"""

import argparse
import re
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import contest
from draem_jax import devices
from draem_jax.model import networks, scoring
from draem_jax.training.optimizer import make_optimizer
from draem_jax.training.state import init_state
from draem_jax.training.update import make_update


def draw_batch(batch, size):
    """Random pixels and sparse masks, as uint8 arrays on the host."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    mask = np.zeros((batch, size, size, 1), np.uint8)
    mask[::2, size // 4 : size // 2, size // 4 : size // 2] = 1
    return {'image': image, 'augmented': np.where(mask, 255 - image, image), 'mask': mask}


def score_window(size):
    """The side of the window of the image score: 21 pixels at 256, odd."""
    return max(1, round(21 * size / 256) // 2 * 2 + 1)


def matrix_rate(dtype):
    """TFLOP/s of a square matrix product in `dtype` on the first device, the best of five measurements."""
    side = 1024 if jax.default_backend() == 'cpu' else 8192
    product = jax.jit(lambda a, b: a @ b)
    a = jnp.ones((side, side), dtype)
    product(a, a).block_until_ready()
    best = float('inf')
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(4):
            out = product(a, a)
        out.block_until_ready()
        best = min(best, (time.perf_counter() - start) / 4)
    return 2e-12 * side**3 / best


def ordered(tree):
    """The leaves of a tree of parameters in the order in which the networks use them: PyTorch lists its own so."""

    def key(item):
        path = jax.tree_util.keystr(item[0], simple=True, separator='/')
        block, number = map(int, re.findall(r'_(\d+)', path)) if 'output' not in path else (10**6, 0)
        return 'discriminative' in path, block, number, 'BatchNorm' in path, 'bias' in path

    return [leaf for _, leaf in sorted(jax.tree_util.tree_leaves_with_path(tree), key=key)]


class Side:
    """Answers the requests that the file's docstring lists, each with the method of its name."""

    def __init__(self, size, widths, batch, dtype, remat):
        options = {'reconstructive_width': widths[0], 'discriminative_width': widths[1], 'dtype': dtype}
        if remat:
            options['remat'] = True
        self._model = networks.make_model(**options, axis_name=devices.AXIS)
        self._size, self._dtype = size, dtype
        self._variables = networks.init_variables(self._model, (size, size), seed=0)
        optimizer = make_optimizer(lambda step: 1e-4)
        self._start = init_state(self._variables, optimizer)  # on the host
        self._update = devices.parallel_update(make_update(self._model, optimizer))
        self._predict = devices.parallel_predict(
            scoring.make_predict(networks.make_model(**options), score_window=score_window(size))
        )
        self._batch = draw_batch(batch, size)
        self._state = self._placed = None

    def facts(self):
        return {
            'parameters': sum(leaf.size for leaf in jax.tree.leaves(self._variables['params'])),
            'forward_flops': networks.forward_flops(self._model, (self._size, self._size)),
            'device': jax.devices()[0].device_kind,
            'devices': devices.count(),
            'dtype': self._dtype,
            'matrix_tflops': matrix_rate(self._dtype),
            'versions': f'jax {jax.__version__}',
        }

    def train(self, count):
        state = devices.replicate(self._start) if self._state is None else self._state
        state, metrics, _ = self._update(state, devices.split(self._batch))
        jax.block_until_ready(metrics)
        start = time.perf_counter()
        for _ in range(int(count)):
            state, metrics, _ = self._update(state, devices.split(self._batch))
        jax.block_until_ready((state, metrics))
        seconds = time.perf_counter() - start
        self._state = state
        return {'seconds': seconds / int(count), 'loss': float(metrics['loss'])}

    def predict(self, count):
        if self._placed is None:
            self._placed = devices.replicate(self._variables)
        devices.predict_batch(self._predict, self._placed, self._batch['augmented'])
        start = time.perf_counter()
        for _ in range(int(count)):
            devices.predict_batch(self._predict, self._placed, self._batch['augmented'])
        return {'seconds': (time.perf_counter() - start) / int(count)}

    def losses(self, path):
        weights = ordered(self._variables['params'])
        np.savez(path, **{f'weight_{k:03}': value for k, value in enumerate(weights)}, **self._batch)
        state, losses = devices.replicate(self._start), []
        for _ in range(3):
            state, metrics, _ = self._update(state, devices.split(self._batch))
            losses.append({name: float(metrics[name]) for name in ('loss', 'l2', 'ssim', 'focal')})
        variables = {'params': state.params, 'batch_stats': state.batch_stats}
        outputs = devices.predict_batch(self._predict, variables, self._batch['augmented'])
        return {'losses': losses, 'map_mean': float(outputs['map'].mean())}

    def memory(self):
        stats = jax.devices()[0].memory_stats()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {'peak_mb': (stats['peak_bytes_in_use'] if stats else resident) / 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, required=True)
    parser.add_argument('--widths', required=True)
    parser.add_argument('--batch', type=int, required=True)
    parser.add_argument('--dtype', default='float32')
    parser.add_argument('--remat', action='store_true')
    flags = parser.parse_args()
    devices.cache_compilations()
    widths = tuple(map(int, flags.widths.split('/')))
    side = Side(flags.size, widths, flags.batch, flags.dtype, flags.remat)
    contest.serve(lambda request, *words: getattr(side, request)(*words))


if __name__ == '__main__':
    main()
