"""Who takes part in `train_step` and `inference`: ours in several precisions, and PyTorch in several variants.

Precisions are named by what the device computes: JAX's float32 is TF32 on recent cards of NVIDIA unless told otherwise.
"""

import dataclasses
import json
import os
import subprocess
import sys

# --dtype: the dtype of our networks, and what JAX_DEFAULT_MATMUL_PRECISION is set to; None leaves it as it is.
DTYPES = {
    'bfloat16': ('bfloat16', None),
    'float32': ('float32', None),
    'tf32': ('float32', 'default'),
    'float32_highest': ('float32', 'highest'),
}


@dataclasses.dataclass
class Entry:
    """A contender in one configuration, and what is known of it so far.

    Attributes:
        name: for the table.
        precision: what its products are computed in: 'float32', 'float32 highest', 'tf32', 'bfloat16'.
        command: that starts its process.
        environment: variables for that process.
        facts: what it says about itself, such as its number of parameters.
        warm_up: seconds of the first steps of each run, compilation included.
        seconds: of a step, one for each round.
        memory: the most that it took, {'peak_mb'}.
        profile: a table of kernels, with the path of the trace.
        error, detail: why it no longer takes part.
    """

    name: str
    precision: str
    command: list
    environment: dict = dataclasses.field(default_factory=dict)
    facts: dict | None = None
    warm_up: list = dataclasses.field(default_factory=list)
    seconds: list = dataclasses.field(default_factory=list)
    memory: dict = dataclasses.field(default_factory=dict)
    profile: dict | None = None
    error: str | None = None
    detail: str | None = None

    @property
    def is_ours(self):
        return self.name.startswith('draem_jax')


def look_at_device():
    """The device that JAX has here: 'backend' ('cpu', 'gpu' or 'tpu'), 'kind' and 'capability' ('9.0'; '' if none).

    Asks another process, so that this one stays without JAX.
    """
    code = (
        'import jax, json; device = jax.devices()[0]; print(json.dumps({"backend": jax.default_backend(), '
        '"kind": device.device_kind, "capability": str(getattr(device, "compute_capability", ""))}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().split('\n')[-1]
        raise SystemExit(f'Error: JAX does not start in {sys.executable}: {reason}')
    return json.loads(done.stdout.splitlines()[-1])


def has_tf32(device):
    """Whether float32 products are computed in TF32 unless told otherwise: on NVIDIA's cards since Ampere."""
    return device['kind'].startswith('NVIDIA') and float(device['capability'] or 8) >= 8


def name_precision(dtype, setting, device):
    """What products of our networks are computed in.

    Args:
        dtype: of the networks, 'float32' or 'bfloat16'.
        setting: JAX_DEFAULT_MATMUL_PRECISION, or None.
        device: from `look_at_device`.

    Returns:
        'bfloat16', 'float32', 'tf32', 'float32 highest' (full float32, on a device with a faster way as well), or
        'float32' with the setting behind it.
    """
    if dtype == 'bfloat16' or device['backend'] == 'cpu':
        return dtype
    if setting in ('highest', 'float32'):
        return 'float32 highest'
    if setting in (None, 'default', 'high', 'tensorfloat32') and has_tf32(device):
        return 'tf32'
    return f'float32 {setting or "default"}'


def our_entry(flags, device, dtype, size, widths, batch):
    """Ours in one of DTYPES."""
    dtype, setting = DTYPES[dtype]
    environment = {'JAX_DEFAULT_MATMUL_PRECISION': setting} if setting else {}
    if device['backend'] != 'cpu':
        # It is alone on the device. jax takes either name of the fraction and refuses both; the other is deprecated.
        environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
        if 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in os.environ:
            environment['XLA_CLIENT_MEM_FRACTION'] = os.environ.get('XLA_CLIENT_MEM_FRACTION', '.95')
    precision = name_precision(dtype, setting or os.environ.get('JAX_DEFAULT_MATMUL_PRECISION'), device)
    command = [sys.executable, '-m', 'benchmarks.ours', *shape_flags(size, widths, batch), f'--dtype={dtype}']
    if flags.remat:
        command.append('--remat')
    name = f'draem_jax {precision}{" remat" if flags.remat else ""}'
    return Entry(name, precision, command, environment)


def pytorch_entry(flags, device, variant, size, widths, batch):
    """PyTorch in one of its variants."""
    dtype = variant.split('+')[0]
    is_full = dtype == 'float32' and device['backend'] != 'cpu'
    command = [
        sys.executable if flags.pytorch == 'python' else flags.pytorch,
        *('-m', 'benchmarks.pytorch_opponent', *shape_flags(size, widths, batch)),
        *(f'--variant={variant}', f'--threads={flags.threads}'),
    ]
    return Entry(f'PyTorch {variant}', 'float32 highest' if is_full else dtype, command)


def shape_flags(size, widths, batch):
    return [f'--size={size}', f'--widths={widths[0]}/{widths[1]}', f'--batch={batch}']


def make_entries(flags, device, size, widths, batch):
    """Ours in each --dtype, then PyTorch in each of --variants."""
    entries = [our_entry(flags, device, dtype, size, widths, batch) for dtype in flags.dtype.split(',')]
    if flags.pytorch:
        entries += [pytorch_entry(flags, device, variant, size, widths, batch) for variant in flags.variants.split(',')]
    return list({entry.name: entry for entry in entries}.values())
