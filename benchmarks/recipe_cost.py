"""What a cell of `benchmarks.recipes` cost, and on which machine, of which code.

spent.json, in the directory of its run, lists the parts of the training, one for each start of train.py: 'start' and
'end' in seconds since the epoch, 'core_seconds' (user and system time of all threads), 'start_up_core_seconds' (those
until the first step), 'steps' ({step: those until its line in the training's log}) and 'commit'. What a part did not
come to is missing.
"""

import os
import pathlib
import subprocess

from draem_jax import run_directory

ROOT = pathlib.Path(__file__).resolve().parent.parent
_FILE = 'spent.json'


def write_parts(workdir, parts):
    run_directory.write_json(workdir / _FILE, parts)


def read_parts(workdir):
    """The parts of spent.json; [] where there is no such file.

    If this process was killed, the last part has no end. It is given that of the last file that its training wrote, and
    the seconds until then, for it had a core for itself; 'is_guess' says so.
    """
    try:
        parts = run_directory.read_json(workdir / _FILE, 'Delete the folder to train the cell anew.')
    except FileNotFoundError:
        return []
    if 'end' not in parts[-1]:
        written = [workdir / name for name in ('metrics.jsonl', 'checkpoints', 'finished.json')]
        times = [path.stat().st_mtime for path in written if path.exists()]
        start = parts[-1]['start']
        end = max([start, *times])
        parts[-1] |= {'end': end, 'core_seconds': end - start, 'is_guess': True}
    return parts


def training_core_seconds(parts, step):
    """The processor seconds from a training's first step to a later one; None where that was not logged.

    Args:
        parts: of spent.json. What each took until its first step does not count, nor what the last one did after the
            step; but what earlier ones did counts, also if it was lost and made again.
        step: a step at which there is a line in the training's log, as there is for each checkpoint.
    """
    last = max((index for index, part in enumerate(parts) if str(step) in part.get('steps', {})), default=None)
    if last is None:
        return None
    earlier = sum(part['core_seconds'] - start_up(part) for part in parts[:last])
    return earlier + parts[last]['steps'][str(step)] - start_up(parts[last])


def machine(device):
    """What computed: the model of the CPU and its cores, and the accelerator if there was one."""
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines() if os.path.exists('/proc/cpuinfo') else []
    model = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), 'unknown CPU')
    return f'{device}; ' * bool(device) + f'{os.cpu_count()} cores of {model}'


def commit():
    """The commit of the code, with '-dirty' where files differ from it; 'unknown' outside a repository."""

    def git(*words):
        return subprocess.run(['git', *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git('rev-parse', '--short=10', 'HEAD') + '-dirty' * bool(git('status', '--porcelain', '-uno'))
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def core_seconds_so_far(pid):
    """User and system time of all threads of a process."""
    fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def start_up(part):
    """The core-seconds of a part until its first step."""
    return part.get('start_up_core_seconds', part['core_seconds'])  # Without a step all of it was start-up.
