"""Numbers as catalogues write them, and texts that mean no value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.schema.metadata import convert_value, guess_type
from lookalike.schema.number_advice import FORMATS, advise_on_value
from lookalike.schema.numbers import PLAIN, ValueFormat

THOUSANDS = ValueFormat(thousands=True)
COMMA = ValueFormat(decimal_comma=True)
CURRENCY = ValueFormat(strip_currency=True)
BOTH = ValueFormat(decimal_comma=True, strip_currency=True)


@pytest.mark.parametrize(
    ("text", "values", "number"),
    [
        ("12.5", PLAIN, 12.5),
        (" 12.5 ", PLAIN, 12.5),
        ("1,299.00", THOUSANDS, 1299),
        ("1,299", THOUSANDS, 1299),
        ("-1'299.50", THOUSANDS, -1299.5),
        ("1 234 567", THOUSANDS, 1234567),
        ("12,5", COMMA, 12.5),
        ("1.234,56", COMMA, 1234.56),
        ("1.234", COMMA, 1234),
        ("1\u202f234,5", COMMA, 1234.5),
        ("-,5", COMMA, -0.5),
        ("12", COMMA, 12),
        ("€ 12.50", CURRENCY, 12.5),
        ("12.50 EUR", CURRENCY, 12.5),
        ("12.50eur", CURRENCY, 12.5),
        ("$1,299.00", CURRENCY, 1299),
        ("US$ 9", CURRENCY, 9),
        ("$12.00 USD", CURRENCY, 12),
        ("-€5", CURRENCY, -5),
        ("€ -5", CURRENCY, -5),
        ("kr 99", CURRENCY, 99),
        ("99 kr.", CURRENCY, 99),
        ("CHF 1’299.50", CURRENCY, 1299.5),
        ("₹ 99", CURRENCY, 99),
        ("12.5", CURRENCY, 12.5),
        ("12,50\u00a0€", BOTH, 12.5),
        ("1.234,56 zł", BOTH, 1234.56),
    ],
)
def test_a_number_is_read_in_its_format(text: str, values: ValueFormat, number: float) -> None:
    assert convert_value(text, "float", values) == number
    assert guess_type(text, values) in ("int", "float")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12,5", PLAIN),
        ("1,299.00", PLAIN),
        ("€ 12.50", PLAIN),
        ("12,50", THOUSANDS),  # not 1250
        ("1,29,900", THOUSANDS),
        ("1,299'000", THOUSANDS),
        ("0,125", THOUSANDS),
        ("9.50", COMMA),  # not 950
        ("0.125", COMMA),
        ("1,234.56", COMMA),
        ("99¢", CURRENCY),
        ("EUR", CURRENCY),
        ("€ 12,50", CURRENCY),
        ("12.50 CMS", CURRENCY),
        ("on request", BOTH),
        ("", BOTH),
    ],
)
def test_a_number_of_another_format_is_never_one_of_another_value(text: str, values: ValueFormat) -> None:
    assert guess_type(text, values) == "text"
    with pytest.raises(ValueError, match=r"."):
        convert_value(text, "float", values)


def test_an_id_stays_text_in_every_format() -> None:
    for values in FORMATS:
        assert {guess_type(text, values) for text in ("007", "1e5", "12345678901234567890")} == {"text"}


@given(
    st.integers(-(10**9), 10**9),
    st.integers(0, 99),
    st.sampled_from([(",", ".", CURRENCY), (".", ",", BOTH), ("'", ".", CURRENCY), ("\u202f", ",", BOTH)]),
    st.sampled_from(["{}", "€ {}", "{} EUR", "${}", "{} kr"]),
)
def test_what_a_spreadsheet_writes_is_read_back(
    whole: int, cents: int, style: tuple[str, str, ValueFormat], currency: str
) -> None:
    separator, point, values = style
    text = currency.format(f"{whole:,}".replace(",", separator) + f"{point}{cents:02}")
    assert convert_value(text, "float", values) == float(f"{whole}.{cents:02}")


@given(st.text(max_size=12), st.sampled_from(FORMATS))
def test_any_text_is_read_or_refused(text: str, values: ValueFormat) -> None:
    kind = guess_type(text, values)
    assert kind == "text" or convert_value(text, kind, values) is not None


def test_a_null_value_is_a_whole_text() -> None:
    values = ValueFormat(null_values=frozenset({"on request"}))
    assert values.is_null(" on request ")
    assert values.is_null("  ")
    assert not values.is_null("price on request")
    assert not PLAIN.is_null("on request")


@pytest.mark.parametrize(
    ("text", "kind", "given", "advice"),
    [
        ("€ 12.50", "float", PLAIN, "; to read it as a number, add --strip-currency"),
        ("12,50", "float", PLAIN, "; to read it as a number, add --decimal-comma"),
        ("12,50 €", "float", PLAIN, "; to read it as a number, add --strip-currency and --decimal-comma"),
        ("12,50 €", "float", CURRENCY, "; to read it as a number, add --decimal-comma"),
        ("1,299.00", "float", PLAIN, "; to read it as a number, add --thousands"),
        ("9.50", "float", COMMA, "; to read it as a number, leave out --decimal-comma"),
        ("on request", "int", PLAIN, "; correct it, or treat it as missing: --null-value 'on request'"),
        ("ask O'Neil", "int", PLAIN, "; correct it, or treat it as missing: --null-value 'ask O'\"'\"'Neil'"),
        ("maybe", "bool", PLAIN, "; correct it, or treat it as missing: --null-value 'maybe'"),
        ("x" * 200, "int", PLAIN, "; correct it"),
        ("[", "list", PLAIN, ""),
    ],
)
def test_a_text_that_does_not_fit_comes_with_the_option_that_helps(
    text: str, kind: str, given: ValueFormat, advice: str
) -> None:
    assert advise_on_value(text, kind, given) == advice
