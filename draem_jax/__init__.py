"""DRAEM in JAX: surface anomaly detection trained on defect-free images only.

`draem_jax.load(run)` opens a trained run; see `draem_jax.detector`. Until it is asked for nothing is imported here:
`import draem_jax.images` pulls in neither jax nor flax.
"""

__all__ = ['load']


def __getattr__(name):
    if name == 'load':
        from draem_jax.detector import load

        return load
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
