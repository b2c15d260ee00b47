"""A sweep whose train.py and evaluate.py are short scripts, which behave as told and leave the same files."""

import pathlib
import textwrap

import sweep
from commands import sweep_configs
from commands.local_launcher import run_locally
from configs import quickstart

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUICKSTART = f'--config={ROOT}/configs/quickstart.py'

TRAIN = """
import os, pathlib, signal, sys, time
sys.path.insert(0, {root!r})
from absl import flags
from commands import command_line
from draem_jax import run_directory

def main():
    config, workdir = flags.FLAGS.config, flags.FLAGS.workdir
    category, seed = config.dataset.category, config.training.seed
    run_directory.start(workdir, config.to_dict())
    here = pathlib.Path(__file__).parent
    {behaviour}
    run_directory.write_finished(workdir, config.training.steps)

command_line.define_config_file()
flags.DEFINE_string('workdir', None, '', required=True)
command_line.main(main)
"""

EVALUATE = """
import os, pathlib, signal, sys, time
sys.path.insert(0, {root!r})
from draem_jax import run_directory
from draem_jax.evaluation import results

workdir = sys.argv[1].removeprefix('--workdir=')
config = run_directory.read_config(workdir)
category, seed = config['dataset']['category'], config['training']['seed']
here = pathlib.Path(__file__).parent
{behaviour}
record = {{
    'dataset': config['dataset'],
    'options': config['evaluation'],
    'metrics': dict.fromkeys(results.METRICS, (len(category) + seed) / 10),
}}
folder = run_directory.evaluation_folder(workdir, run_directory.finished_step(workdir))
run_directory.write_json(folder / 'results.json', record)
"""


class ScriptedSweep:
    """A sweep in a folder of its own. `behave` tells its scripts what to do, in lines of Python."""

    def __init__(self, path):
        self.workdir, self._scripts = path / 'sweep', path
        self.behave()

    def behave(self, train='', evaluate=''):
        for name, script, behaviour in (('train', TRAIN, train), ('evaluate', EVALUATE, evaluate)):
            lines = textwrap.indent(textwrap.dedent(behaviour), '    ' * (script is TRAIN)).strip() or 'pass'
            (self._scripts / f'{name}.py').write_text(script.format(behaviour=lines, root=str(ROOT)))

    def plan(self, categories='wood,metal', seeds='0', **changes):
        config = quickstart.get_config()
        config.update_from_flattened_dict(changes)
        arguments = [QUICKSTART, *(f'--config.{field}={value}' for field, value in changes.items())]
        return sweep.plan(config, self.workdir, categories, seeds, arguments, self._scripts)

    def plan_all(self, files, categories=None, seeds='0', **changes):
        """As `plan`, over several files of configs/."""
        configs = sweep_configs.read([f'{ROOT}/configs/{file}' for file in files], changes)
        return sweep.plan_all(configs, self.workdir, categories, seeds, self._scripts)

    def run(self, *arguments, slots=({},), **changes):
        return self.start(self.plan(*arguments, **changes), slots)

    def start(self, cell_jobs, slots=({},)):
        return sweep.run_cells(cell_jobs, self.workdir, lambda rest: run_locally(rest, slots, every_seconds=0.01))

    def commands(self, cell):
        """The scripts that were started for a cell, in their order."""
        log = self.workdir / cell / 'log.txt'
        lines = log.read_text().splitlines() if log.exists() else []
        return [pathlib.Path(line.split()[4]).stem for line in lines if line.startswith('--- ')]

    def wrote(self, name):
        return (self._scripts / name).read_text()
