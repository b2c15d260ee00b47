"""What `train_step` and `inference` make of the seconds that they measured: rows of a table and of a JSON file."""

import math
import statistics

from draem_jax import peaks


def fastest_pytorch(entries):
    """The entry of PyTorch with the least median, or None."""
    measured = [entry for entry in entries if entry.seconds and not entry.is_ours]
    return min(measured, key=lambda entry: statistics.median(entry.seconds), default=None)


def make_rows(entries, work, batch, ceilings, *, are_paired):
    """What goes to the table and to the JSON file of one configuration, a dict for each entry.

    Args:
        entries: of the configuration, measured or not.
        work: 'train' or 'predict'.
        batch: images a step.
        ceilings: {precision: {'matrix_tflops', ...}}, as far as they were measured.
        are_paired: whether the k-th round of all entries was at nearly the same time, so that a ratio is the median of
            the ratios of rounds. Otherwise it is the ratio of the medians.
    """
    reference = fastest_pytorch(entries)
    about_ours = next((entry.facts for entry in entries if entry.is_ours and entry.facts), {})
    peak, devices = peaks.peak_tflops(about_ours.get('device', '')), about_ours.get('devices', 1)
    # The backward pass counts twice: gradients of inputs and of kernels.
    flops = about_ours.get('forward_flops', 0) * batch * {'train': 3, 'predict': 1}[work]
    rows = []
    for entry in entries:
        row = {'name': entry.name, 'precision': entry.precision, 'batch': batch, 'error': entry.error}
        if entry.detail:
            row['detail'] = entry.detail
        if entry.seconds:
            median = statistics.median(entry.seconds)
            tflops = 1e-12 * flops / median if flops else None
            matrix = ceilings.get(entry.precision, {}).get('matrix_tflops')
            row |= {
                'seconds': entry.seconds,
                'median': median,
                'least': min(entry.seconds),
                'most': max(entry.seconds),
                'warm_up_seconds': entry.warm_up,
                'images_per_second': batch / median,
                'tflops': tflops,
                'share_of_peak': tflops / peak / devices if tflops and peak else None,
                'share_of_measured': tflops / matrix / devices if tflops and matrix else None,
                'relative': None,
                'relative_to': None,
                **entry.memory,
            }
        if entry.seconds and reference:
            pairs = list(zip(entry.seconds, reference.seconds, strict=False))
            paired = statistics.median(ours / theirs for ours, theirs in pairs)
            row['relative'] = paired if are_paired else median / statistics.median(reference.seconds)
            row['relative_to'] = reference.name
        if entry.profile:
            row['profile'] = entry.profile
        rows.append(row)
    return rows


def print_rows(rows):
    """The table of one configuration."""
    print(
        f'{"":44}{"ms":>10}{"least":>10}{"most":>10}{"rounds":>7}{"images/s":>10}{"TFLOP/s":>9}{"peak":>7}{"matrix":>8}'
        f'{"MB":>9}{"ratio":>7}'
    )

    def percent(value):
        return '' if value is None else f'{100 * value:.0f} %'

    for row in rows:
        if 'median' in row:
            tflops = '' if row['tflops'] is None else f'{row["tflops"]:.3f}'
            memory = f'{row["peak_mb"]:.0f}' if 'peak_mb' in row else ''
            relative = '' if row['relative'] is None else f'{row["relative"]:.2f}'
            print(
                f'{row["name"]:44}{1e3 * row["median"]:10.2f}{1e3 * row["least"]:10.2f}{1e3 * row["most"]:10.2f}'
                f'{len(row["seconds"]):7}{row["images_per_second"]:10.1f}{tflops:>9}{percent(row["share_of_peak"]):>7}'
                f'{percent(row["share_of_measured"]):>8}{memory:>9}{relative:>7}'
            )
        if row['error'] or 'median' not in row:
            print(f'{row["name"]:44}  {row["error"] or "not measured"}')
    reference = next((row['relative_to'] for row in rows if row.get('relative_to')), None)
    if reference:
        print(f'ratio: of the time to that of the fastest of PyTorch here, {reference}', flush=True)


def least_ms(row, tflops, tbps):
    """Milliseconds that a row of `roofline.work` takes at these TFLOP/s and TB/s, whichever is longer."""
    return max(1e3 * row['tflop'] / tflops, row['gigabytes'] / tbps)


def compare_losses(ours, theirs):
    """Whether two sides trained the same networks on the same losses.

    The first losses have the same weights and may differ by 1e-4 of their value. The later ones come after updates and
    so show the gradients. They and the mean anomaly map at the end may differ by 1e-2, because Adam's first steps
    follow the sign of a gradient, however small the gradient is.

    Args:
        ours, theirs: 'losses', a dict of loss and its parts for each step, and 'map_mean'.

    Returns:
        The lines of a table, and what is wrong or None.
    """
    lines, wrong = [], []

    def compare(what, a, b, tolerance):
        difference = abs(a - b) / abs(a) if math.isfinite(a) and math.isfinite(b) and a else math.inf
        lines.append(f'  {what:14}{a:14.8f}{b:14.8f}  relative difference {difference:.1e}')
        if difference > tolerance:
            wrong.append(f'{what} differs by {difference:.1e}, more than {tolerance:.0e}')

    for step, (a, b) in enumerate(zip(ours['losses'], theirs['losses'], strict=True), 1):
        for name in a:
            compare(f'step {step} {name}', a[name], b[name], 1e-4 if step == 1 else 1e-2)
    compare('map, mean', ours['map_mean'], theirs['map_mean'], 1e-2)
    return lines, '; '.join(wrong) or None
