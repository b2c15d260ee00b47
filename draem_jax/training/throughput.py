"""How fast a training goes, and what it waits for."""

import contextlib
import time
from collections.abc import Iterator


class Throughput:
    """Counts steps and seconds since the last restart.

    Args:
        images_per_step: the global batch size.
        flops_per_image: floating-point operations that a training step spends on one image.
        peak_tflops: 10^12 floating-point operations per second of all devices together at best, or None.
    """

    def __init__(self, images_per_step: int, flops_per_image: float, peak_tflops: float | None = None) -> None:
        self._images_per_step = images_per_step
        self._flops_per_image = flops_per_image
        self._peak_tflops = peak_tflops
        self.restart()

    def restart(self) -> None:
        """Counts from here on, so that what came before, such as pictures and checkpoints, is not part of the speed."""
        self._start, self._steps, self._waited = time.monotonic(), 0, 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside the `with` block as waiting for training examples."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def step(self) -> None:
        """Counts one step."""
        self._steps += 1

    def values(self) -> dict[str, float]:
        """Averages since the last restart; {} before the first step.

        Returns:
            'images_per_second' and 'tflops_per_second' (10^12) of all devices together, 'step_seconds' of one step, and
            'input_wait_seconds', the part of it in which the host waited for training examples. The devices may be busy
            meanwhile. Where the peak is known also 'mfu', the share of it that the operations of the model reach
            (model FLOPs utilisation; Chowdhery et al., PaLM, 2022, appendix B). What remat computes again is not
            counted.
        """
        if not self._steps:
            return {}
        seconds = (time.monotonic() - self._start) / self._steps
        images_per_second = self._images_per_step / seconds
        tflops = images_per_second * self._flops_per_image / 1e12
        values = {
            'images_per_second': images_per_second,
            'tflops_per_second': tflops,
            'step_seconds': seconds,
            'input_wait_seconds': self._waited / self._steps,
        }
        return values if self._peak_tflops is None else values | {'mfu': tflops / self._peak_tflops}
