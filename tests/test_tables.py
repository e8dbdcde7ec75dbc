"""Aligned columns, and numbers as they stand in them."""

import pytest

from node_cli.tables import Table, aligned, four_digits, percent, two_digits, wrapped


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_their_end():
    rows = [["name", "count"], ["a", "7"], ["longer", "10000000"]]
    assert aligned(rows) == ["name    count", "a       7", "longer  10000000"]
    assert aligned(rows, "<>") == ["name       count", "a              7", "longer  10000000"]


def test_a_table_has_the_keys_of_its_first_row_as_names_and_in_their_order():
    rows = [{"": "direct", "off": "1 %"}, {"off": "20 %", "": "adjoint"}]
    assert Table("Errors", rows).lines() == ["Errors", "         off", "direct   1 %", "adjoint  20 %"]


DIGITS = {0.975: "0.9750", 4618.2: "4618", 1.5e-7: "1.500e-07", 0.0: "0", -12.345: "-12.35", 1e7: "1.000e+07"}


@pytest.mark.parametrize("value", [*DIGITS, float("inf"), float("nan")])
def test_a_number_by_itself_has_four_digits(value):
    assert four_digits(value) == DIGITS.get(value, str(value))
    assert two_digits(2.64e-16) == "2.6e-16"


UNITS = {0.0: "0 %", 3.2e-9: "3.2e-07 %", 2e-5: "0.002 %", 0.0296: "3 %", 0.5: "50 %", 1.0: "100 %", 45.0: "4500 %"}


@pytest.mark.parametrize("value", [*UNITS, float("inf")])
def test_relative_errors_are_in_percent_whatever_their_size(value):
    assert percent(value) == UNITS.get(value, "inf %")


def test_a_table_that_is_too_wide_continues_below_with_its_keys_or_the_numbers_of_its_rows():
    rows = [["key", "first", "second", "third"], ["a", "1", "2", "3"], ["b", "4", "5", "6"]]
    assert wrapped(rows, "<>>>", 1, 25) == aligned(rows, "<>>>")
    assert wrapped(rows, "<>>>", 1, 20) == [
        "key  first  second",
        "a        1       2",
        "b        4       5",
        "",
        "key  third",
        "a        3",
        "b        6",
    ]
    assert wrapped([["a long key", "x"], ["a", "1"]], "<>", 1, 12) == ["   a long key", "1  a", "", "   x", "1  1"]
