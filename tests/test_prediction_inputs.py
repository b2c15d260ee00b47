"""Which images predict.py looks at."""

import os

import pytest

from draem_jax import run_directory
from draem_jax.detection.inputs import list_inputs
from draem_jax.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_patterns_folders_and_files_come_in_the_order_given_and_each_once(tmp_path):
    touch(tmp_path, 'b/2.png', 'b/1.jpg', 'b/deep/3.png', 'a/4.png', 'b/notes.txt', 'out/maps/5.png')

    def listed(*inputs):
        paths = list_inputs([str(tmp_path / name) for name in inputs], str(tmp_path / 'out'))
        return [os.path.relpath(path, tmp_path) for path in paths]

    assert listed('b/*.png', 'a', 'b') == ['b/2.png', 'a/4.png', 'b/1.jpg', 'b/deep/3.png']
    assert listed('**/*.png') == ['a/4.png', 'b/2.png', 'b/deep/3.png']
    assert listed('*') == ['a/4.png', 'b/1.jpg', 'b/2.png', 'b/deep/3.png']
    assert listed('.') == ['a/4.png', 'b/1.jpg', 'b/2.png', 'b/deep/3.png']  # Without what was written earlier.
    assert listed('b/notes.txt', 'missing.png', 'out/maps/5.png') == ['b/notes.txt', 'missing.png', 'out/maps/5.png']


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path):
    touch(tmp_path, 'part[1].png')
    path = str(tmp_path / 'part[1].png')
    assert list_inputs([path], 'out') == [path]


RESULTS = ('predictions.jsonl', 'overlays/1.png', 'maps/1.png')


def test_folders_and_patterns_pass_over_results_of_other_calls_and_runs(tmp_path, capsys):
    run = ('checkpoints/7/x', 'evaluation/7/worst.png')
    touch(tmp_path, 'a/1.png', *(f'a/old/{name}' for name in RESULTS), *(f'a/run/{name}' for name in run))
    run_directory.start(tmp_path / 'a' / 'run', {name: {} for name in ('dataset', 'synthesis', 'model', 'training')})
    for argument in ('a/**/*.png', 'a/**', 'a/*', '*', 'a/*/*/*.png', 'a/*.png'):
        if argument == 'a/*/*/*.png':
            with pytest.raises(UserError, match='No images'):
                list_inputs([str(tmp_path / argument)], str(tmp_path / 'out'))
        else:
            found = list_inputs([str(tmp_path / argument)], str(tmp_path / 'out'))
            assert {os.path.relpath(path, tmp_path) for path in found} == {'a/1.png'}, argument
    assert "such as '" in capsys.readouterr().err
    # Who names the folder of the results itself means it.
    assert len(list_inputs([str(tmp_path / 'a' / 'old' / 'maps' / '*.png')], str(tmp_path / 'out'))) == 1


def test_images_beside_results_are_images(tmp_path):
    touch(tmp_path, 'a/2.png', *(f'a/{name}' for name in RESULTS))
    for argument in ('a/*', 'a/**/*.png', 'a/*.png'):
        assert list_inputs([str(tmp_path / argument)], str(tmp_path / 'out')) == [str(tmp_path / 'a' / '2.png')]


@pytest.mark.parametrize('argument', ['parts', 'parts/deep', 'parts/*.png', 'parts/**/*.png', 'p*s'])
def test_images_in_the_folder_of_the_results_are_said_to_be_there(tmp_path, argument):
    touch(tmp_path, 'parts/1.png', 'parts/deep/2.png')
    out = str(tmp_path / 'parts')
    with pytest.raises(UserError) as caught:
        list_inputs([str(tmp_path / argument)], out)
    assert str(caught.value) == (
        f"'{tmp_path / argument}' lies in '{out}', the folder of the results, "
        'and what lies there is not taken for input. --out=FOLDER takes another one, outside of the images.'
    )


def test_a_folder_that_holds_nothing_but_results_is_said_to_be_that_of_the_results(tmp_path):
    touch(tmp_path, *RESULTS)
    with pytest.raises(UserError, match='the folder of the results'):
        list_inputs([str(tmp_path)], str(tmp_path))


def test_a_folder_beside_that_of_the_results_is_not_in_it(tmp_path):
    touch(tmp_path, 'parts2/1.png')
    assert list_inputs([str(tmp_path / 'parts2')], str(tmp_path / 'parts')) == [str(tmp_path / 'parts2' / '1.png')]


def test_home_is_found(tmp_path, monkeypatch):
    touch(tmp_path, 'parts/1.png', '2.png')
    monkeypatch.setenv('HOME', str(tmp_path))
    expected = [str(tmp_path / 'parts' / '1.png'), str(tmp_path / '2.png')]
    assert list_inputs(['~/parts', '~/2.png'], 'out') == expected
    assert list_inputs(['~/*/*.png', '~/*.png'], 'out') == expected


@pytest.mark.parametrize('address', ['http://localhost:9/x.png', 'https://host/x.png?y=1', 's3://b/x', 'gs://b/*.png'])
def test_an_address_is_refused(address):
    with pytest.raises(UserError) as caught:
        list_inputs([address], 'out')
    assert str(caught.value).startswith(f"input='{address}': expected a path on this machine")
