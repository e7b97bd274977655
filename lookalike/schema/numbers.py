"""Numbers as catalogues write them: `1.234,56`, `€ 12.50`, `1,299.00`; and texts that mean that there is no value."""

import re
from dataclasses import dataclass

# No cents: 99¢ is not 99.
_SYMBOLS = "$£¤¥֏؋৳฿៛₠-⃀﷼￡￥￦"
_CODES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF "
    "CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA "
    "MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD "
    "RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX "
    "USD UYU UZS VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"
)
_ABBREVIATIONS = r"kr\.?|Fr\.|Rs\.?|RM|Rp\.?|zł|Kč|Ft|lei|лв\.?|руб\.?|TL"
_CURRENCY = rf"(?:[A-Z]{{0,3}}[{_SYMBOLS}]|{_CODES.replace(' ', '|')}|{_ABBREVIATIONS})"
_CURRENCY_BEFORE = re.compile(rf"([+-]?)\s*{_CURRENCY}\s*(?=[-+0-9.,])", re.IGNORECASE)
_CURRENCY_AFTER = re.compile(rf"(?<=[0-9.,])\s*{_CURRENCY}", re.IGNORECASE)

# A separator of thousands stands between groups of three digits. No group begins a number with 0: 0.125 is no 125.
_GROUPED = r"(?P<sign>[+-]?)(?P<whole>[1-9][0-9]{{0,2}}(?P<sep>[{separators}])[0-9]{{3}}(?:(?P=sep)[0-9]{{3}})*)"
_SPACES = "'’ \u00a0\u2009\u202f"
_GROUPED_WITH_POINT = re.compile(_GROUPED.format(separators="," + _SPACES) + r"(?:\.(?P<fraction>[0-9]+))?")
_GROUPED_WITH_COMMA = re.compile(_GROUPED.format(separators="." + _SPACES) + r"(?:,(?P<fraction>[0-9]+))?")
_WITH_COMMA = re.compile(r"(?P<sign>[+-]?)(?P<whole>[0-9]*),(?P<fraction>[0-9]+)")


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """How the texts of a catalogue are read: which of them are numbers, and which mean that there is no value.

    `decimal_comma` reads 12,5, and not 12.5; `strip_currency` reads € 12.50 and 12.50 EUR. `thousands` reads 1,299.00,
    or 1.299,00 where the comma is the decimal separator; the other two do so as well. `null_values` are whole values.
    """

    decimal_comma: bool = False
    thousands: bool = False
    strip_currency: bool = False
    null_values: frozenset[str] = frozenset()

    @property
    def reads_plain(self) -> bool:
        """Whether only a number such as -12.5 is one."""
        return not (self.decimal_comma or self.thousands or self.strip_currency)

    def is_null(self, text: str) -> bool:
        """Return whether a text means that there is no value: it is blank, or one of `null_values`."""
        return not text or text.isspace() or (bool(self.null_values) and text.strip() in self.null_values)

    def to_plain_number(self, text: str) -> str:
        """Write a number as int() and float() read it: `1.234,56 €` as `1234.56`; any other text stays as it is.

        A number of another format does not become one of another value: with `decimal_comma`, 9.50 stays no number.
        Raises ValueError for such a text.
        """
        text = text.strip()
        if self.reads_plain:
            return text
        number = _strip_currency(text) if self.strip_currency else text
        grouped = _GROUPED_WITH_COMMA if self.decimal_comma else _GROUPED_WITH_POINT
        match = grouped.fullmatch(number) or (_WITH_COMMA.fullmatch(number) if self.decimal_comma else None)
        if match is None:
            if self.decimal_comma and "." in number:
                raise ValueError(text)
            return number
        whole, fraction = re.sub("[^0-9]", "", match["whole"]), match["fraction"]
        return f"{match['sign']}{whole or 0}" + (f".{fraction}" if fraction else "")


PLAIN = ValueFormat()
"""Numbers such as -12.5, and no text that means nothing but the empty one."""


def _strip_currency(text: str) -> str:
    before = _CURRENCY_BEFORE.match(text)
    if before:
        text = before[1] + text[before.end() :]
    after = _CURRENCY_AFTER.search(text)
    return text[: after.start()] if after and after.end() == len(text) else text
