"""How fast a training goes, and what it waits for."""

import contextlib
import time


class Throughput:
    """Counts steps and seconds between two looks.

    Args:
        images_per_step: the global batch size.
        flops_per_image: floating-point operations that a training step spends on one image.
    """

    def __init__(self, images_per_step, flops_per_image):
        self._images_per_step = images_per_step
        self._flops_per_image = flops_per_image
        self.restart()

    def restart(self):
        """Counts from here on: what came before, such as pictures and checkpoints, is not part of the speed."""
        self._start, self._steps, self._waited = time.monotonic(), 0, 0.0

    @contextlib.contextmanager
    def waiting(self):
        """The time inside the `with` block is spent waiting for training examples."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def step(self):
        """Counts one step."""
        self._steps += 1

    def values(self):
        """Averages since the last restart, {} before the first step.

        Returns:
            Dict of 'images_per_second' and 'tflops_per_second' (10^12) of all devices together, and of one step
            'step_seconds' and 'input_wait_seconds', the part of it in which the host waited for training examples: a
            device that is never idle has something to do meanwhile.
        """
        if not self._steps:
            return {}
        seconds = (time.monotonic() - self._start) / self._steps
        images_per_second = self._images_per_step / seconds
        return {
            'images_per_second': images_per_second,
            'tflops_per_second': images_per_second * self._flops_per_image / 1e12,
            'step_seconds': seconds,
            'input_wait_seconds': self._waited / self._steps,
        }
