"""Text for a terminal: columns that line up, names that stay in their line."""

import pytest

from draem_jax.terminal import align, printable


def test_the_first_column_is_flush_left_and_the_others_are_flush_right():
    assert align([('', 'count'), ('scratch', '7'), ('dent', '12')]) == [
        '         count',
        'scratch      7',
        'dent        12',
    ]


def test_no_line_ends_in_spaces():
    assert align([('a', ''), ('long', 'name')], left=2) == ['a', 'long  name']


def test_a_wider_gap_sets_columns_apart():
    assert align([('a', 'b', 'c')], separator=' | ', wide_before=(2,)) == ['a | b |  c']


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match='zip'):
        align([('a', 'b'), ('c',)])


@pytest.mark.parametrize(
    ('name', 'shown'),
    [('größe 1.png', 'größe 1.png'), ('line\nbreak\u2028', 'line?break?'), ('\udcff\x1b[2J', '??[2J')],
)
def test_what_cannot_be_printed_becomes_a_question_mark(name, shown):
    assert printable(name) == shown
