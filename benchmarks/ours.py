"""Our side of `train_step` and `inference`, which start it: does what each line of its standard input says.

describe         parameters, products, shape, device, versions
warm_up WORK N   a first `train N` or `predict N`: seconds of all, compilation included
train N          N training steps: seconds each
predict N        N batches of inference: seconds each
losses FILE      writes weights and a batch to FILE (npz), trains three steps on them: the losses of each
memory           the largest memory so far
ceilings         what the device can do at best: measured rates of matrix products and of memory
facts            `describe` and `ceilings` together
profile N FOLDER traces N training steps into FOLDER: a table of kernels, and what they have to do at least
"""

import argparse
import re
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import kernels, roofline, serving
from draem_jax import devices
from draem_jax.model import networks, scoring
from draem_jax.training import profiling
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


def best_seconds(function, *arguments, calls=10):
    """Seconds of a call, from the best of five times `calls` calls one after the other."""
    jax.block_until_ready(function(*arguments))
    best = float('inf')
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            out = function(*arguments)
        jax.block_until_ready(out)
        best = min(best, (time.perf_counter() - start) / calls)
    return best


def matrix_rate(dtype):
    """TFLOP/s of a square matrix product in `dtype` on the first device, in JAX's default precision.

    The numbers are random, as those of a network look: on constants cards take less power and are up to 13 % faster.
    """
    side = 1024 if devices.on_cpu() else 8192
    a, b = (jax.random.normal(jax.random.key(seed), (side, side), dtype) for seed in (0, 1))
    return 2e-12 * side**3 / best_seconds(jax.jit(jnp.matmul), a, b)


def copy_rate():
    """TB/s of the first device's memory, reading and writing counted, when an array is multiplied by a number."""
    length = 2**24 if devices.on_cpu() else 2**28
    x = jax.random.normal(jax.random.key(0), (length,), jnp.float32)
    return 2e-12 * x.nbytes / best_seconds(jax.jit(lambda x: 1.5 * x), x)


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
        self._size, self._dtype, self._batch_size = size, dtype, batch
        self._variables = networks.init_variables(self._model, (size, size), seed=0)
        optimizer = make_optimizer(lambda step: 1e-4)
        self._start = init_state(self._variables, optimizer)  # on the host
        self._update = devices.parallel_update(make_update(self._model, optimizer))
        self._predict = devices.parallel_predict(
            scoring.make_predict(networks.make_model(**options), score_window=score_window(size))
        )
        self._batch = draw_batch(batch, size)
        self._state = self._placed = None

    def describe(self):
        return {
            'parameters': sum(leaf.size for leaf in jax.tree.leaves(self._variables['params'])),
            'forward_flops': networks.forward_flops(self._model, (self._size, self._size)),
            'device': jax.devices()[0].device_kind,
            'devices': devices.count(),
            'dtype': self._dtype,
            'size': self._size,
            'batch': self._batch_size,
            'versions': f'jax {jax.__version__}',
        }

    def ceilings(self):
        return {'matrix_tflops': matrix_rate(self._dtype), 'copy_tbps': copy_rate()}

    def facts(self):
        return self.describe() | self.ceilings()

    def warm_up(self, work, count):
        start = time.perf_counter()
        getattr(self, work)(count)
        return {'seconds': time.perf_counter() - start}

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

    def profile(self, count, folder):
        self.train(1)
        state = self._state
        profiling.start_trace(folder)
        start = time.perf_counter()
        for _ in range(count):
            state, metrics, _ = self._update(state, devices.split(self._batch))
        jax.block_until_ready((state, metrics))
        seconds = time.perf_counter() - start
        jax.profiler.stop_trace()
        self._state = state
        return {
            'trace': str(kernels.find_trace(folder)),
            'step_ms': 1e3 * seconds / count,
            'roofline': roofline.work(self._model, (self._size, self._size), self._batch_size),
            **kernels.summarise(kernels.events(folder), count),
        }

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
    serving.serve(lambda request, *words: getattr(side, request)(*words))


if __name__ == '__main__':
    main()
