"""Inference on a batch against the same in PyTorch: milliseconds, images/s, TFLOP/s, memory.

    python -m benchmarks.inference --threads=1 --pytorch=/path/to/python
    python -m benchmarks.inference --sizes=256:128/64 --batch=1,16 --dtype=bfloat16 --out=inference.json

Both sides start from uint8 images on the host and return reconstructions, anomaly maps and scores to it, as predict.py
and evaluate.py do; PyTorch's side is benchmarks/pytorch_opponent.py. See benchmarks/train_step.py for the rest.
"""

from benchmarks import contest

if __name__ == '__main__':
    contest.main('predict', __doc__)
