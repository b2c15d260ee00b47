"""DRAEM in JAX: surface anomaly detection trained on defect-free images only.

Nothing is imported here: `import draem_jax.images` pulls in neither jax nor flax.
"""
