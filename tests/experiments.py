"""All experiment files, with the arguments that tests load them with."""

import importlib
import pathlib

from configs import ablations, plus

FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'configs'
MODULES = [path.stem for path in sorted(FOLDER.glob('*.py')) if 'def get_config(' in path.read_text()]
ARGUMENTS = {
    'btad': ('02', '03,paper'),
    'cifar10': ('truck',),
    'dagm': ('Class10', 'Class1,paper'),
    'default': ('official', 'paper'),
    'folder': ('paper',),
    'ksdd2': ('paper',),
    'magnetic_tile': ('paper',),
    'mpdd': ('tubes',),
    'ablations': ('plain,bottle,paper', 'few_textures_3,screw', *(f'{name},screw' for name in ablations.TABLE_3)),
    'light': ('32,64', '16,16'),
    'plus': ('+'.join(name for name in plus.SWITCHES if name != 'official'), *plus.SWITCHES),
    'mvtec': ('screw', 'bottle,paper', 'unified'),
    'quickstart': ('fabric', 'wood', 'metal'),
    'ucsd_ped2': ('paper',),
    'visa': ('pcb1', 'candle,paper'),
}
EXPERIMENTS = [(name,) for name in MODULES] + [(name, one) for name, several in ARGUMENTS.items() for one in several]


def load(name, *arguments):
    config = importlib.import_module(f'configs.{name}').get_config(*arguments)
    config.dataset.root = config.dataset.root or 'images'
    if config.dataset.texture_source == 'folder':
        config.dataset.texture_root = 'textures'
    return config
