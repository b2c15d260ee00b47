"""benchmarks/contest.py with contenders that only sleep, for tests: no JAX, no PyTorch.

    python tests/fake_contest.py 'draem_jax a:0.01' 'PyTorch b:hangs' -- --turns=2 --out=file.json

Each contender has a name and what it does when it is asked for steps: the seconds that it says a step took, 'hangs',
'dies', or 'memory' (it runs out of it). It writes to FAKE_LOG when it starts and ends.
"""

import os
import subprocess
import sys
import time

from benchmarks import contenders, contest, serving


def contend(name, behaviour):
    def log(what):
        with open(os.environ['FAKE_LOG'], 'a') as file:
            file.write(f'{what} {name} {os.getpid()}\n')

    def answer(request, *words):
        if request == 'describe':
            return {'parameters': 10, 'forward_flops': 10**9, 'device': 'NVIDIA H100', 'size': 64, 'batch': 8}
        if request == 'ceilings':
            return {'matrix_tflops': 2.0, 'copy_tbps': 1.0}
        if request == 'memory':
            return {'peak_mb': 1.0}
        if request == 'losses':
            return {'losses': [{'loss': 1.0 if 'highest' in name else float(behaviour)}], 'map_mean': 0.5}
        if behaviour == 'hangs':
            helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])
            log(f'helper:{helper.pid}')
            time.sleep(1000)
        if behaviour == 'dies':
            sys.exit('I have no torch')
        if behaviour == 'memory':
            raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 16.00GiB.\nmore')
        return {'seconds': float(behaviour)}

    log('start')
    serving.serve(answer)
    log('end')


def main():
    fakes = sys.argv[1 : sys.argv.index('--')]
    sys.argv[1:] = sys.argv[sys.argv.index('--') + 1 :]

    def entry(fake):
        name, behaviour = fake.split(':')
        command = [sys.executable, __file__, 'contend', name, behaviour]
        return contenders.Entry(name, 'bfloat16', command)

    contenders.look_at_device = lambda: {'backend': 'gpu', 'kind': 'NVIDIA H100', 'capability': '9.0'}
    contenders.make_entries = lambda *_: [entry(fake) for fake in fakes]
    contenders.our_entry = lambda *_: entry('draem_jax highest:1')
    contenders.pytorch_entry = lambda *_: entry('PyTorch float32:' + os.environ.get('FAKE_LOSS', '1'))
    contest.check_pytorch = lambda python: None
    contest.main('train', __doc__)


if __name__ == '__main__':
    if sys.argv[1] == 'contend':
        contend(*sys.argv[2:])
    else:
        main()
