"""Trains and evaluates a model for each config, category and seed, and writes the table of all.

    python sweep.py --config=configs/mvtec.py --categories=all --seeds=0,1,2 --devices_per_run=1 \
        --config.dataset.root=MVTEC_AD --config.dataset.texture_root=DTD/images --workdir=runs/mvtec

Each cell, <workdir>/<category>/seed_<n>/, is train.py and then evaluate.py with the flags given here, in processes of
their own that write to its log.txt. When a cell fails, the others go on. Started again with the same flags, the sweep
skips what is finished and goes on with the rest. table.csv and table.md cover all cells that are finished.

--config may name several configs, with commas between, such as two rows of the paper's Table 3:

    python sweep.py --config=configs/ablations.py:colours,screw,configs/ablations.py:full,screw --seeds=0,1,2 ...

Their cells are <workdir>/<config>/<category>/seed_<n>/, where <config> is the file's name and its argument:
ablations_colours_screw. All other flags apply to each config; only a --config.dataset.texture_root is left out of those
that take no textures from a folder. The table has rows for each config of this call, in its order. Cells of other
configs, and those of a sweep over one config in the same folder, stay where they are and out of the table;
`evaluate.py --workdir=WORKDIR` writes it with all that the folder holds.

--launcher=local spreads the cells over the devices of this machine, --devices_per_run to each. SIGTERM or Ctrl-C is
passed on to the cells under way, which save and leave; a second Ctrl-C does not wait for them.

--launcher=slurm makes each cell a job, with --devices_per_run GPUs, and waits for them. Before its time limit, or when
the cluster signals that it takes the node away, a job saves and queues again. Ctrl-C leaves the jobs where they are;
started again with the same flags, the sweep waits for them and submits only those that are missing.

Exit codes: 0 done; 1 a mistake or a failed cell; 42 asked to stop, start again to go on.
"""

import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

import data
from commands import command_line, config_checks, sweep_configs, sweep_table
from commands.cell_process import Outcome, describe
from commands.cells import Cell, CellJob, list_cells, read_last_results
from commands.local_launcher import run_locally, slots
from commands.slurm_launcher import run_on_cluster
from commands.sweep_configs import SweepConfig
from draem_jax import run_directory
from draem_jax.errors import Preempted, UserError

_SCRIPTS = pathlib.Path(__file__).resolve().parent


def main() -> int:
    options, workdir = flags.FLAGS, command_line.folder('workdir')
    configs = sweep_configs.read(command_line.config_files(), command_line.changes())
    cell_jobs = plan_all(configs, workdir, options.categories, options.seeds)
    advice = 'Make room there and start again with the same flags: what is finished is skipped.'
    with run_directory.explaining_a_full_disk(workdir, advice):
        if options.launcher == 'slurm':
            parameters = slurm_parameters(options)
            return run_cells(cell_jobs, workdir, lambda rest: run_on_cluster(rest, workdir, parameters))
        return run_cells(cell_jobs, workdir, lambda rest: run_locally(rest, slots(options.devices_per_run)))


def run_cells(
    cell_jobs: Sequence[CellJob],
    workdir: str | os.PathLike[str],
    launch: Callable[[list[CellJob]], dict[CellJob, Outcome]],
) -> int:
    """Launches the cells that are not finished and writes the table.

    Args:
        cell_jobs: all cells of the sweep.
        workdir: directory of the sweep.
        launch: runs cells and returns how each ended; cells that were not started, or go on elsewhere, are left out.

    Returns:
        The exit code: 1 where a cell failed.

    Raises:
        UserError: the folder of a cell cannot be made.
        Preempted: cells are left to do. Those that failed have been named.
    """
    try:
        for cell_job in cell_jobs:
            cell_job.cell.workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to --workdir '{workdir}': {error.strerror}, '{error.filename}'.") from error
    rest = [cell_job for cell_job in cell_jobs if not cell_job.is_finished()]
    for cell_job in cell_jobs:
        if cell_job not in rest:
            print(f'{cell_job}: finished before, skipped.')
    outcomes = launch(rest) if rest else {}
    left = [cell_job for cell_job in rest if outcomes.get(cell_job, Preempted.exit_code) == Preempted.exit_code]
    failed = [cell_job for cell_job in rest if cell_job not in left and outcomes[cell_job] != 0]
    configs = list(dict.fromkeys(cell_job.cell.config for cell_job in cell_jobs))
    write_table(workdir, [*failed, *left], configs)
    for cell_job in failed:
        print(f'Error: {cell_job}: {describe(cell_job, outcomes[cell_job])}', file=sys.stderr)
    if left:
        raise Preempted(f'Stopped with {len(left)} of {len(cell_jobs)} cells left. Start again to go on.')
    return int(bool(failed))


def write_table(
    workdir: str | os.PathLike[str], left_out: Sequence[CellJob] = (), configs: Sequence[str] = ('',)
) -> None:
    """Writes and prints the table of all finished cells in a sweep's folder, where there are any.

    Cells whose files cannot be read are named.

    Args:
        workdir: directory of the sweep.
        left_out: cells that are not finished, to be named below the table.
        configs: names of the configs whose cells the table takes, in its order; [''] in a sweep over one.
    """
    evaluated = []
    cells = [cell for cell in list_cells(workdir) if cell.config in configs]
    for cell in sorted(cells, key=lambda cell: configs.index(cell.config)):
        try:
            if (record := read_last_results(cell)) is not None:
                evaluated.append((cell, record))
        except UserError as error:
            print(f'Error: {cell}, is not in the table: {error}', file=sys.stderr)
    if evaluated:
        rows = sweep_table.collect(evaluated)
        note = f'Left out, for they are not finished: {"; ".join(map(str, left_out))}.' if left_out else None
        sweep_table.write(workdir, rows, note)
        print(sweep_table.markdown(rows, note))


def plan_all(
    configs: Iterable[SweepConfig],
    workdir: str | os.PathLike[str],
    categories: str | None = None,
    seeds: str | None = None,
    scripts: pathlib.Path = _SCRIPTS,
) -> list[CellJob]:
    """The cells of a sweep over configs, the first seed of all configs and categories first; as `plan`."""
    cell_jobs = []
    for one in configs:
        with sweep_configs.naming(one.name):
            cell_jobs += plan(one.config, workdir, categories, seeds, one.arguments, scripts, one.name)
    order = list(dict.fromkeys(cell_job.cell.seed for cell_job in cell_jobs))
    return sorted(cell_jobs, key=lambda cell_job: order.index(cell_job.cell.seed))


def plan(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    categories: str | None = None,
    seeds: str | None = None,
    arguments: Sequence[str] = (),
    scripts: pathlib.Path = _SCRIPTS,
    name: str = '',
) -> list[CellJob]:
    """The cells of a config, the first seed of all categories first.

    Args:
        config: with the fields of configs/default.py.
        workdir: directory of the sweep.
        categories: 'all' for all of the data set, or names with commas between; None for the config's own.
        seeds: numbers with commas between; None for the config's own.
        arguments: the flags from which train.py makes `config`.
        scripts: folder of train.py and evaluate.py.
        name: of the config in a sweep over several.

    Raises:
        UserError: no such category, no such seed, or a value that a config may not hold.
    """
    folders: dict[str, str] = {}
    for category in parse_categories(config.dataset, categories):
        below = folder_name(config.dataset.name, category)
        if below in folders:
            raise UserError(f"'{folders[below]}' and '{category}' would share the folder '{below}' of the sweep.")
        folders[below] = category
    cell_jobs = []
    for seed in parse_seeds(config.training, seeds):
        for below, category in folders.items():
            own = config.copy_and_resolve_references()
            own.dataset.category, own.training.seed = category, seed
            config_checks.check(own)
            folder = pathlib.Path(workdir) / name / below / f'seed_{seed}'
            train = [sys.executable, str(scripts / 'train.py'), *arguments, f'--workdir={folder}']
            train += [f'--config.dataset.category={category}', f'--config.training.seed={seed}']
            evaluate = [sys.executable, str(scripts / 'evaluate.py'), f'--workdir={folder}']
            values = json.loads(json.dumps(own.to_dict()))  # As config.json will be read: tuples are lists there.
            cell_jobs.append(CellJob(Cell(below, seed, folder, name), values, train, evaluate))
    return cell_jobs


def parse_seeds(training: ConfigDict, text: str | None) -> list[int]:
    """The numbers that --seeds names, each once."""
    if text is None:
        return [training.seed]
    parts = [part.strip() for part in text.split(',')]
    if not all(part.isdecimal() and len(part) < 20 for part in parts):
        raise UserError(f"--seeds='{text}': expected whole numbers with commas between, such as 0,1,2.")
    return list(dict.fromkeys(map(int, parts)))


def parse_categories(dataset: ConfigDict, text: str | None) -> list[str]:
    """The categories that --categories names, each once. The data set must know them; 'folder' takes any folder."""
    if text is None:
        return [dataset.category]
    known = data.category_names(dataset.name)
    if text == 'all' and known:
        return known
    wanted = list(dict.fromkeys(part.strip() for part in text.split(',')))
    if dataset.name == 'folder' and 'all' not in wanted and all(wanted):
        return wanted
    for category in wanted:
        if category not in known:
            hint = ', '.join(known) or 'none; leave the flag out'
            if dataset.name == 'folder':
                hint = 'none by itself; name folders below --config.dataset.root, with commas between'
            raise UserError(f"--categories={text}: '{dataset.name}' has no category '{category}'. Known: {hint}.")
    return wanted


def folder_name(dataset: str, category: str) -> str:
    """The name of a category's folder in the sweep: a_b for 'a/b', and the data set's name where there is no category.

    Raises:
        UserError: the category is a path that leads out of the data set.
    """
    path = pathlib.PurePath(category)
    if path.is_absolute() or '..' in path.parts or (category and not path.parts):
        raise UserError(f"The category '{category}' is no folder below --config.dataset.root.")
    return '_'.join(path.parts) or dataset


def slurm_parameters(options: flags.FlagValues) -> dict[str, Any]:
    """The flags as submitit takes them.

    Raises:
        UserError: --slurm_options cannot be understood.
    """
    further = dict(part.strip().partition('=')[::2] for part in options.slurm_options)
    if not all(key and value for key, value in further.items()):
        raise UserError(
            f'--slurm_options={",".join(options.slurm_options)}: expected options of sbatch, key=value with commas '
            'between, such as account=vision,qos=long.'
        )
    given = {
        'name': 'sweep',
        'timeout_min': options.slurm_minutes,
        'gpus_per_node': options.devices_per_run or None,
        'cpus_per_task': options.slurm_cpus,
        'mem_gb': options.slurm_memory_gb,
        'slurm_partition': options.slurm_partition,
        'slurm_additional_parameters': further,
    }
    return {key: value for key, value in given.items() if value is not None}


if __name__ == '__main__':
    command_line.define_config_file(takes_several=True)
    flags.DEFINE_string('workdir', None, 'Directory of the sweep.', required=True)
    flags.DEFINE_string('categories', None, "'all', or names with commas between. The config's own by default.")
    flags.DEFINE_string('seeds', None, "Numbers with commas between. The config's own by default.")
    flags.DEFINE_enum('launcher', 'local', ('local', 'slurm'), 'Where the cells run.')
    flags.DEFINE_integer(
        'devices_per_run', 0, 'Devices of a run; 0: all of this machine, and with slurm no GPU is asked for.', 0
    )
    flags.DEFINE_string('slurm_partition', None, 'Partition.')
    flags.DEFINE_integer('slurm_minutes', 24 * 60, 'Time limit of a job, which queues again when it is up.', 1)
    flags.DEFINE_integer('slurm_cpus', 8, 'CPU cores of a job.', 1)
    flags.DEFINE_integer('slurm_memory_gb', None, "Memory of a job; the cluster's default where it is left out.", 1)
    flags.DEFINE_list('slurm_options', [], "Further options of sbatch, such as 'account=vision,qos=long'.")
    command_line.main(main)
