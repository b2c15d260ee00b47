"""What the device computed in a trace of JAX's profiler: a table of kernels, and their sums by kind.

    python -m benchmarks.kernels trace --steps=4
    python -m benchmarks.kernels runs/mine/profile --steps=6 --rows=40

On a GPU these are the kernels and copies of all streams. On a CPU they are the operations of XLA's threads, which
work side by side, so that their sum exceeds the time of a step.
"""

import argparse
import collections
import pathlib
import re

KINDS = ('convolutions', 'sums', 'elementwise', 'optimizer', 'copies', 'other')

# Tried in this order. 'ynn' is a library on CPUs whose kernels' names do not say what they do.
_MEMORY = re.compile(r'^mem(cpy|set)|nchwToNhwc|nhwcToNchw', re.IGNORECASE)
_PATTERNS = {
    'other': r'ynn',
    'convolutions': r'conv(?!ert)|fprop|dgrad|wgrad|xmma|gemm|winograd|cudnn|cutlass|cublas|nvjet|wgmma'
    r'|(^|_)dot([_.]|$)',
    'sums': r'(^|_)(?<!all_)reduce(?!.?scatter)',
    'copies': r'(^|_)(copy|transpose)([_.]|$)',
    'elementwise': r'fusion|(^|_)(wrapped|concatenate|pad|slice|select|convert|broadcast|add|subtract|multiply|divide)'
    r'([_.]|$)',
}


def kind(name, path=''):
    """Which of KINDS a kernel is, by its name and, where the trace knows it, by where in the program it comes from.

    'convolutions' are matrix products too; 'sums' are reductions, nearly all of them of batch normalisation, together
    with what XLA fused into them; 'optimizer' is all that follows the gradient: its norm, Adam, the guard. Only the
    path tells that, so without paths the optimizer is among the elementwise kernels.

    Args:
        name: of the kernel, as XLA or cuDNN calls it.
        path: of the operation, such as 'transpose(jvp(Draem))/reconstructive/ConvBlock_0/Conv_0'; '' if unknown.
    """
    if _MEMORY.search(name):
        return 'copies'
    if path and 'jvp(' not in path:
        return 'optimizer'
    matching = (kind for kind, pattern in _PATTERNS.items() if re.search(pattern, name, re.IGNORECASE))
    return next(matching, 'other')


def find_trace(folder):
    """The newest trace under a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(pathlib.Path(folder).rglob('*.xplane.pb'), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f'No trace (*.xplane.pb) under {folder}.')
    return files[-1]


def events(folder):
    """(name, path, start in ns, duration in ns) of all that the devices did in the newest trace under a folder."""
    from jax.profiler import ProfileData  # Here, so that tables can be printed without JAX.

    planes = list(ProfileData.from_file(str(find_trace(folder))).planes)
    on_gpu = [plane for plane in planes if plane.name.startswith('/device:GPU')]
    for plane in on_gpu or planes:
        for line in plane.lines:
            if 'Stream' not in line.name if on_gpu else not line.name.startswith('tf_XLA'):
                continue
            for event in line.events:
                stats = dict(event.stats)
                # A CPU's threads also note that they wait, and where an operation ends.
                if on_gpu or ('hlo_op' in stats and not event.name.startswith('end: ')):
                    yield event.name, str(stats.get('name', '')), event.start_ns, event.duration_ns


def summarise(happened, steps):
    """Sums up events of some steps.

    Args:
        happened: (name, path, start in ns, duration in ns) of each.
        steps: how many steps they are from.

    Returns:
        'kernels' and 'kinds': lists of dicts, largest first, of 'name', 'ms' a step, 'count' a step and 'share' of
        the sum of all, kernels with their 'kind' too; 'busy_ms': milliseconds a step in which at least one ran.
    """
    happened = list(happened)
    time, count, of_kind = collections.Counter(), collections.Counter(), {}
    for name, path, _, duration in happened:
        which = kind(name, path)
        of_kind[name] = which
        for key in ((0, name), (1, which)):
            time[key] += duration * 1e-6 / steps
            count[key] += 1
    total = sum(duration for *_, duration in happened) * 1e-6 / steps or 1.0
    tables = [
        [
            {'name': name, 'ms': ms, 'count': count[group, name] / steps, 'share': ms / total}
            for (group, name), ms in time.most_common()
            if group == wanted
        ]
        for wanted in (0, 1)
    ]
    for row in tables[0]:
        row['kind'] = of_kind[row['name']]
    busy, end = 0, float('-inf')
    for start, stop in sorted((start, start + duration) for _, _, start, duration in happened):
        busy += max(0, stop - max(start, end))
        end = max(end, stop)
    return {'kernels': tables[0], 'kinds': tables[1], 'busy_ms': busy * 1e-6 / steps}


def print_table(report, rows=30):
    """Prints the kinds, then the first `rows` kernels.

    Args:
        report: from `summarise`; where it has a 'roofline' of kinds with 'least_ms', that is shown beside them.
    """
    floors = {row['kind']: row.get('least_ms') for row in report.get('roofline', ())}
    print(f'  {"ms a step":>10}{"a step":>9}{"share":>8}  (busy {report["busy_ms"]:.3f} ms a step)')
    for row in report['kinds']:
        share, least = f'{100 * row["share"]:.1f} %', floors.get(row['name'])
        best = f'  at best {least:.3f} ms' if least else ''
        print(f'  {row["ms"]:10.3f}{row["count"]:9.1f}{share:>8}  {row["name"]:12}{best}')
    print()
    for row in report['kernels'][:rows]:
        share = f'{100 * row["share"]:.1f} %'
        print(f'  {row["ms"]:10.3f}{row["count"]:9.1f}{share:>8}  {row["kind"]:12}  {row["name"][:110]}')
    left = report['kernels'][rows:]
    if left:
        print(f'  {sum(row["ms"] for row in left):10.3f} in {len(left)} more', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='the trace, or a folder above it')
    parser.add_argument('--steps', type=int, default=1, help='how many steps were traced')
    parser.add_argument('--rows', type=int, default=30, help='how many kernels to show')
    flags = parser.parse_args()
    print_table(summarise(events(flags.folder), flags.steps), flags.rows)


if __name__ == '__main__':
    main()
