"""Who may import whom: read off the source, and off what Python has loaded after an import."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest
from trees import write_image

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPTS = {path.stem for path in ROOT.glob('*.py')}
OURS = SCRIPTS | {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.rglob('*.py'))}
# The modules directly in draem_jax. All of its subpackages, the rooms, may import them.
SHARED = {f'draem_jax.{path.stem}' for path in (ROOT / 'draem_jax').glob('*.py') if path.stem != '__init__'}
PACKAGES = ('draem_jax', 'data', 'configs', 'commands')


def imported_names(source, package):
    """Dotted names of everything that a source file imports, wherever in it: `from a import b` gives 'a.b'."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = '.'.join([*above, *filter(None, [node.module])])
            names |= {f'{base}.{alias.name}' for alias in node.names}
    return names


def is_within(name, packages):
    return any(f'{name}.'.startswith(f'{package}.') for package in packages)


def module_name(path):
    """'data.sets' for data/sets/__init__.py, 'data.banks' for data/banks.py."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def modules_of(*packages):
    """{name: path} of every module in packages of ours."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob('*.py'))]
    return {module_name(path): path for path in paths}


def imports_of(folder):
    """(file, imported name) of every file of a folder of ours."""
    for path in sorted((ROOT / folder).rglob('*.py')):
        file = path.relative_to(ROOT)
        for name in sorted(imported_names(path.read_text(), file.parent.parts)):
            yield str(file), name


@pytest.mark.parametrize(
    ('source', 'names'),
    [
        ('import a.b as c, d', {'a.b', 'd'}),
        ('from a.b import c as e', {'a.b.c'}),
        ('def f():\n    from a import b', {'a.b'}),
        ('from . import c', {'house.room.c'}),
        ('from ..hall import c', {'house.hall.c'}),
    ],
)
def test_imports_are_found_wherever_they_stand(source, names):
    assert imported_names(source, ('house', 'room')) == names


@pytest.mark.parametrize(
    ('folder', 'allowed'),
    [
        ('draem_jax', {'draem_jax'}),
        ('draem_jax/model', {'draem_jax.model', *SHARED}),
        ('draem_jax/training', {'draem_jax.training', 'draem_jax.model', *SHARED}),
        ('draem_jax/detection', {'draem_jax.detection', 'draem_jax.model', *SHARED}),
        ('draem_jax/evaluation', {'draem_jax.evaluation', 'draem_jax.detection', 'draem_jax.model', *SHARED}),
        ('data', {'data', 'draem_jax.images', 'draem_jax.storage', 'draem_jax.threads', 'draem_jax.errors'}),
        ('configs', {'configs'}),
        ('commands', {'commands', 'configs', 'draem_jax'}),
    ],
)
def test_each_package_imports_only_those_of_ours_that_are_below_it(folder, allowed):
    ours = [(file, name) for file, name in imports_of(folder) if is_within(name, OURS)]
    assert ours, f'nothing to check in {folder}'
    assert [(file, name) for file, name in ours if not is_within(name, allowed)] == []


def test_modules_directly_in_draem_jax_import_none_of_its_subpackages():
    rooms = {f'draem_jax.{path.name}' for path in (ROOT / 'draem_jax').iterdir() if path.is_dir()}
    assert [
        (name, imported)
        for name in SHARED
        for imported in imported_names(modules_of('draem_jax')[name].read_text(), ('draem_jax',))
        if is_within(imported, rooms)
    ] == []


def test_no_module_imports_itself_by_way_of_others():
    modules = modules_of(*PACKAGES)
    graph = {}
    for name, path in modules.items():
        names = imported_names(path.read_text(), path.relative_to(ROOT).parent.parts)
        # 'a.b.c' is the module of that name, or what the module 'a.b' holds.
        graph[name] = {one if one in modules else one.rpartition('.')[0] for one in names} & modules.keys() - {name}
    graphlib.TopologicalSorter(graph).prepare()  # Raises a CycleError, which names the modules.


def test_no_test_imports_another():
    tests = {path.stem for path in (ROOT / 'tests').glob('test_*.py')}
    assert [(file, name) for file, name in imports_of('tests') if is_within(name, tests)] == []


@pytest.mark.parametrize(
    ('folder', 'forbidden'),
    [
        ('draem_jax', {'tensorflow', 'tensorflow_datasets', 'clu', 'absl', 'ml_collections'}),
        ('data', {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'absl', 'ml_collections'}),
    ],
)
def test_one_half_of_the_house_knows_tensorflow_and_the_other_jax(folder, forbidden):
    assert [(file, name) for file, name in imports_of(folder) if is_within(name, forbidden)] == []


def test_configs_import_nothing_heavy():
    allowed = sys.stdlib_module_names | {'ml_collections', 'configs'}
    assert [(file, name) for file, name in imports_of('configs') if not is_within(name, allowed)] == []


@pytest.mark.parametrize(
    ('modules', 'forbidden'),
    [
        (['draem_jax.images'], {'jax', 'flax', 'tensorflow'}),
        (['data'], {'tensorflow', 'jax', 'flax'}),
        (list(modules_of('draem_jax')), {'tensorflow', 'tensorflow_datasets', 'data', 'configs', 'commands'}),
    ],
    ids=['draem_jax.images', 'data', 'all of draem_jax'],
)
def test_importing_loads_no_library_that_is_not_needed(modules, forbidden):
    code = f'import {", ".join(modules)}, sys; print(*sys.modules)'
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert set(modules) <= loaded
    assert loaded & forbidden == set()


def test_a_folder_of_images_is_checked_without_tensorflow(tmp_path):
    for k in range(2):
        write_image(tmp_path / 'train' / 'good' / f'{k}.png', k)
        write_image(tmp_path / 'test' / 'good' / f'{k}.png', 100 + k)
    code = (
        'import sys; from configs import folder; from tools import check_data; config = folder.get_config(); '
        'config.dataset.root = sys.argv[1]; assert check_data.check_data(config) == 0; print(*sys.modules)'
    )
    command = [sys.executable, '-c', code, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.splitlines()[-1].split())
    assert {'data.inspection', 'tools.check_data'} <= loaded
    assert loaded & {'tensorflow', 'jax', 'flax'} == set()
