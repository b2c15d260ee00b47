"""The cells of a sweep are recognised by the layout of its folder."""

from commands.cells import list_cells


def test_cells_are_found_where_the_layout_has_them(tmp_path):
    for name in ('screw/seed_10', 'screw/seed_2', 'bottle/seed_0', 'bottle/old', 'bottle/seed_x'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'config.json').write_text('{}')
    cells = [(cell.category, cell.seed) for cell in list_cells(tmp_path)]
    assert cells == [('bottle', 0), ('screw', 2), ('screw', 10)]
    assert list_cells(tmp_path / 'nowhere') == []
