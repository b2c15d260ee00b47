"""Random input for the scripts: none may end in a traceback, and nothing that is the user's may change.

    python -m benchmarks.fuzz                          500 cases of each kind
    python -m benchmarks.fuzz flags --count=50
    python -m benchmarks.fuzz run --first=317 --count=1 --keep       one case again, and its folder afterwards

    trees   folders and files as nobody would lay them out: images, masks, damaged and other files in random places
    run     random bytes, or wrong values, in the files of a run; some of its folders turned into files, or removed
    flags   random values for random flags, and flags that there are not

A case is a function of its number. It calls a script in a process forked from this one, which has imported everything.
A case fails where the script prints a traceback, is killed, ends with another exit code than the documented 0, 1, 3
and 42, prints several lines where it should print one error, or where a file of the user's has changed. A case that
takes longer than the limit is counted apart. The exit code is 1 if any failed.
"""

import argparse
import hashlib
import os
import pathlib
import random
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback

from benchmarks.fuzz_input import VALUES, draw_tree, spoil_run, write_image

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = ('trees', 'run', 'flags')
EXIT_CODES = (0, 1, 3, 42)
LIMIT_SECONDS = 90

# A network of next to nothing, so that what is right by chance is soon done.
TINY = {
    'dataset.image_size': '(32,32)',
    'dataset.texture_count': '2',
    'dataset.texture_source': 'procedural',
    'model.reconstructive_width': '1',
    'model.discriminative_width': '1',
    'training.batch_size': '2',
    'training.steps': '2',
    'training.validation_examples': '2',
    'evaluation.batch_size': '2',
    'evaluation.score_window': '3',
    'evaluation.sheet_rows': '1',
}
SCRIPTS = ('train.py', 'evaluate.py', 'predict.py', 'sweep.py')
TOOLS = ('tools/check_data.py', 'tools/preview.py', 'tools/calibrate.py')
# Flags of each script beside those it gets anyway.
FLAGS = {
    'train.py': 'profile_steps deterministic coordinator process_index distributed',
    'evaluate.py': 'step watch out',
    'predict.py': 'step threshold pixel_threshold tile batch_size maps overlays out',
    'sweep.py': 'seeds categories',
    'tools/calibrate.py': 'step target_fpr pixel_target_fpr tile batch_size',
    'tools/preview.py': 'rows first',
}


def config_flags(root: pathlib.Path) -> list[str]:
    return [
        f'--config={ROOT}/configs/folder.py',
        f'--config.dataset.root={root}',
        *(f'--config.{name}={value}' for name, value in TINY.items()),
    ]


def command(script: str, root: pathlib.Path, run: pathlib.Path, out: pathlib.Path) -> list[str]:
    """The arguments with which a script does its work."""
    return {
        'train.py': [*config_flags(root), f'--workdir={run}'],
        'sweep.py': [*config_flags(root), f'--workdir={out}', '--seeds=0'],
        'evaluate.py': [f'--workdir={run}', f'--config.dataset.root={root}'],
        'predict.py': [f'--workdir={run}', f'--out={out}', str(root)],
        'tools/check_data.py': config_flags(root),
        'tools/preview.py': [*config_flags(root), f'--out={out}.png', '--rows=1'],
        'tools/calibrate.py': [f'--workdir={run}', f'--normals={root}'],
    }[script]


def prepare(kind: str, number: int, base: pathlib.Path, case: pathlib.Path) -> tuple[str, list[str], pathlib.Path]:
    """Draws a case in a folder of its own; returns (script, arguments, folder that is the user's)."""
    chance = random.Random(f'{kind}/{number}')
    parts, run = base / 'parts', case / 'run'
    if kind == 'trees':
        root = case / 'tree'
        draw_tree(root, chance)
        script = chance.choice(
            ['tools/check_data.py'] * 5 + ['train.py', 'predict.py', 'predict.py', 'tools/preview.py']
        )
        if script == 'predict.py':
            run = base / 'run'
        return script, command(script, root, run, case / 'out'), root
    if kind == 'run':
        shutil.copytree(base / 'run', run)
        spoil_run(run, chance)
        script = chance.choice(
            ['train.py', 'evaluate.py', 'evaluate.py', 'predict.py', 'predict.py', 'tools/calibrate.py']
        )
        arguments = command(script, parts, run, case / 'out')
        if script == 'evaluate.py' and chance.random() < 0.3:
            arguments.append(f'--step={chance.choice(["all", "best", "4"])}')
        if script == 'train.py' and chance.random() < 0.5:
            arguments.append('--config.training.steps=4')
        return script, arguments, parts
    shutil.copytree(base / 'run', run)
    script = chance.choice(SCRIPTS + TOOLS)
    arguments = command(script, parts, run, case / 'out')
    for _ in range(chance.choice([1, 1, 2, 3])):
        mutate_flags(arguments, script, chance)
    return script, arguments, parts


def mutate_flags(arguments: list[str], script: str, chance: random.Random) -> None:
    """Changes, adds or removes one argument."""
    from configs import default

    way = chance.random()
    if way < 0.1 and arguments:
        arguments.pop(chance.randrange(len(arguments)))
    elif way < 0.2:
        arguments.append(chance.choice(VALUES))
    elif way < 0.3:
        arguments.append(
            f'--{chance.choice(["nothing", "config.nothing", "config.model.nothing", "config", "workdir"])}=x'
        )
    elif way < 0.45:
        index = chance.randrange(len(arguments))
        arguments[index] = arguments[index].partition('=')[0] + '=' + chance.choice(VALUES)
    elif way < 0.6 and script in FLAGS:
        arguments.append(f'--{chance.choice(FLAGS[script].split())}={chance.choice(VALUES)}')
    else:
        config = default.get_config()
        section = chance.choice(list(config))
        field = chance.choice(list(config[section]))
        # Full networks and long trainings are right, but take their time.
        if f'{section}.{field}' not in ('training.epochs', 'training.steps', 'training.validation_examples'):
            arguments.append(f'--config.{section}.{field}={chance.choice(VALUES)}')


def call(script: str, arguments: list[str], log: pathlib.Path, home: pathlib.Path) -> None:
    """Runs a script as if it had been started by itself; never returns."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.setsid()
    home.mkdir(exist_ok=True)
    os.environ['HOME'] = str(home)  # For '~' and for TFDS; compiled programs are kept where they were.
    os.chdir(home)
    sys.argv = [str(ROOT / script), *arguments]
    code = 0
    try:
        runpy.run_path(str(ROOT / script), run_name='__main__')
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def fingerprint(folder: pathlib.Path) -> str:
    """A hash of all names and contents in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        digest.update(os.fsencode(path.relative_to(folder)))
        if path.is_file() and not path.is_symlink():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def judge(code: int | None, output: str, has_changed: bool) -> str | None:
    """What is wrong with a case, or None."""
    if has_changed:
        return "the user's files have changed"
    if 'Traceback (most recent call last)' in output or re.search(r'^[A-Za-z_.]+Error: ', output, re.MULTILINE):
        return 'traceback'
    if code is not None and code not in EXIT_CODES:
        return f'ended with {code}'
    if code == 1 and 'Error: ' not in output and 'rror(s)' not in output and 'could not be read' not in output:
        return 'exit code 1 without a word'
    return None


def run_cases(kind: str, numbers: range, base: pathlib.Path, *, jobs: int, keep: bool) -> dict[str, int]:
    """Runs cases, `jobs` at a time; returns how many ended how."""
    waiting, running, counts = list(numbers), {}, {}
    while waiting or running:
        while waiting and len(running) < jobs:
            number = waiting.pop(0)
            case = base / f'{kind}_{number}'
            case.mkdir()
            script, arguments, users = prepare(kind, number, base, case)
            before = fingerprint(users)
            pid = os.fork()
            if pid == 0:
                call(script, arguments, case / 'log.txt', case / 'home')
            running[pid] = (number, case, script, arguments, users, before, time.monotonic())
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            for pid, (*_, start) in running.items():
                if time.monotonic() - start > LIMIT_SECONDS:
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.05)
            continue
        number, case, script, arguments, users, before, start = running.pop(pid)
        is_late = time.monotonic() - start > LIMIT_SECONDS
        code = None if is_late else os.waitstatus_to_exitcode(status)
        output = (case / 'log.txt').read_text(errors='replace')
        fault = judge(code, output, fingerprint(users) != before)
        ending = fault or ('too slow' if is_late else f'exit code {code}')
        counts[ending] = counts.get(ending, 0) + 1
        if fault:
            last = [line for line in output.splitlines() if line.strip()][-1:] or ['']
            print(f'{kind} {number}: {fault}: {script} {" ".join(arguments)}\n    {last[0][:300]}', flush=True)
        if not keep:
            shutil.rmtree(case, ignore_errors=True)
    return counts


def make_base(base: pathlib.Path) -> None:
    """Draws a small data set and trains a run on it, in a process of its own."""
    for name in [f'train/good/{k}.png' for k in range(8)] + ['test/good/0.png', 'test/good/1.png', 'test/dent/0.png']:
        path = base / 'parts' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, len(name) + 100 * int(path.stem))
    (base / 'parts/ground_truth/dent').mkdir(parents=True)
    write_image(base / 'parts/ground_truth/dent/0_mask.png', 0, is_mask=True)
    checkpoints = ['--config.training.checkpoint_every_steps=1', '--config.training.validate_every_steps=1']
    for script, more in (('train.py', checkpoints), ('evaluate.py', [])):
        arguments = command(script, base / 'parts', base / 'run', base / 'out') + more
        pid = os.fork()
        if pid == 0:
            call(script, arguments, base / 'log.txt', base / 'home')
        if os.waitpid(pid, 0)[1]:
            raise SystemExit((base / 'log.txt').read_text())


def import_everything() -> None:
    """Imports what the scripts do, so that a forked process starts at once. No device is touched, no thread started."""
    import absl.app  # noqa: F401
    import jax  # noqa: F401
    import tensorflow  # noqa: F401

    for script in (*SCRIPTS, *TOOLS):
        runpy.run_path(str(ROOT / script), run_name='imported')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kinds', nargs='*', choices=KINDS, default=KINDS)
    parser.add_argument('--count', type=int, default=500, help='cases of each kind')
    parser.add_argument('--first', type=int, default=0, help='number of the first case')
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--keep', action='store_true', help='keep the folders of the cases')
    options = parser.parse_args()
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'jax'))
    sys.path.insert(0, str(ROOT))
    base = pathlib.Path(tempfile.mkdtemp(prefix='fuzz_'))
    import_everything()
    make_base(base)
    failed = 0
    for kind in options.kinds or KINDS:
        start = time.monotonic()
        numbers = range(options.first, options.first + options.count)
        counts = run_cases(kind, numbers, base, jobs=options.jobs, keep=options.keep)
        endings = ', '.join(f'{ending}: {count}' for ending, count in sorted(counts.items()))
        print(f'{kind}: {options.count} cases in {time.monotonic() - start:.0f} s. {endings}', flush=True)
        failed += sum(
            n for ending, n in counts.items() if not ending.startswith(('exit code', 'too slow')) or 'word' in ending
        )
    if options.keep:
        print(f'Kept: {base}')
    else:
        shutil.rmtree(base, ignore_errors=True)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
