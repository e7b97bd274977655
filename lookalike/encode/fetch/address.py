"""Which addresses are of the public internet."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
_INSIDE_CLOUDS = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")))
"""Global by the book, yet metadata services answer there: Oracle's and Azure's."""


def is_public(address: Address) -> bool:
    """Tell whether an address, and the IPv4 address that an IPv6 one may stand for, is of the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        inside = any(address in network for network in _INSIDE_CLOUDS)
        return address.is_global and not address.is_multicast and not inside
    embedded = _embedded(address)
    if embedded is not None:
        return is_public(embedded)
    # Python calls much outside 2000::/3 global (fec0::, ::127.0.0.1); Teredo it does not.
    return address in _UNICAST and address.is_global


def allow_any(_: Address) -> bool:
    """Allow every address."""
    return True


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
