"""One training step against the same in PyTorch: milliseconds, images/s, TFLOP/s, memory.

    python -m benchmarks.train_step --threads=1 --pytorch=/path/to/python --check
    python -m benchmarks.train_step --sizes=256:128/64 --batch=8,16 --dtype=bfloat16 --out=train_step.json

Our side is the update that train.py runs, guard and metrics included, on uint8 batches from the host. PyTorch's is
benchmarks/pytorch_opponent.py in an environment of its own. The sides take turns of --steps steps. TFLOP/s count the
convolutions: two for each multiplication, three times the forward pass.
"""

from benchmarks import contest

if __name__ == '__main__':
    contest.main('train', __doc__)
