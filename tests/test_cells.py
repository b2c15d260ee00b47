"""The cells of a sweep are recognised by the layout of its folder."""

from commands.cells import list_cells


def test_cells_are_found_where_the_layout_has_them(tmp_path):
    for name in ('screw/seed_10', 'screw/seed_2', 'bottle/seed_0', 'bottle/old', 'bottle/seed_x'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'config.json').write_text('{}')
    cells = [(cell.category, cell.seed) for cell in list_cells(tmp_path)]
    assert cells == [('bottle', 0), ('screw', 2), ('screw', 10)]
    assert list_cells(tmp_path / 'nowhere') == []


def test_cells_of_several_configs_lie_a_folder_deeper_and_follow_those_of_one(tmp_path):
    for name in ('full/screw/seed_1', 'colours/tile/seed_0', 'colours/screw/seed_0', 'tile/seed_3', 'a/b/c/seed_0'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'config.json').write_text('{}')
    cells = list_cells(tmp_path)
    assert [str(cell) for cell in cells] == [
        'tile, seed 3',
        'colours, screw, seed 0',
        'colours, tile, seed 0',
        'full, screw, seed 1',
    ]
    assert [cell.config for cell in cells] == ['', 'colours', 'colours', 'full']
    assert all((cell.workdir / 'config.json').is_file() for cell in cells)
