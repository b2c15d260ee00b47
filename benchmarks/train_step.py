"""One training step against the same in PyTorch: milliseconds, images/s, TFLOP/s, memory.

    python -m benchmarks.train_step --threads=1 --pytorch=/path/to/python --check
    python -m benchmarks.train_step --pytorch=python --batch=8,32 --profile --minutes=9 --out=train_step.json

Our side is the update that train.py runs, guard and metrics included, on uint8 batches from the host. PyTorch's is
benchmarks/pytorch_opponent.py in an environment of its own. On a CPU the sides take turns of --steps steps, on an
accelerator of whole runs, each alone in memory. What is wanted most comes first: the order is that of --sizes, --batch,
--dtype and --variants. The JSON file is complete after every round, so that --minutes, an error or Ctrl-C cost only
what was not measured yet. TFLOP/s count the convolutions: two for each multiplication, three times the forward pass.
"""

from benchmarks import contest

if __name__ == '__main__':
    contest.main('train', __doc__)
