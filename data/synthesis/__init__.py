"""Simulated anomalies: from a normal image and a texture to a training example, inside a TensorFlow graph."""
