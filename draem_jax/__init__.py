"""DRAEM in JAX: surface anomaly detection trained on defect-free images only.

`draem_jax.load(run)` opens a trained run as a `Detector`, which gives a `Detection` for each image. These three are
imported when they are first asked for, so that `import draem_jax.images` loads neither jax nor flax.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from draem_jax.detection.detector import Detection, Detector, load

__version__ = '0.1.0'
__all__ = ['Detection', 'Detector', '__version__', 'load']


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from draem_jax.detection import detector

    return getattr(detector, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {'TYPE_CHECKING'})
