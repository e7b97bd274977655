"""Which addresses belong to the public internet."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
_CLOUD_METADATA = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")))
"""Formally global, but metadata services answer there: Oracle's and Azure's."""


def is_public(address: Address) -> bool:
    """Return whether an address is public, and also the IPv4 address that an IPv6 one may stand for."""
    if isinstance(address, ipaddress.IPv4Address):
        is_metadata = any(address in network for network in _CLOUD_METADATA)
        return address.is_global and not address.is_multicast and not is_metadata
    embedded = _embedded_ipv4(address)
    if embedded is not None:
        return is_public(embedded)
    # Python calls much outside 2000::/3 global (fec0::, ::127.0.0.1), but not Teredo.
    return address in _UNICAST and address.is_global


def allow_any(_: Address) -> bool:
    """Allow every address."""
    return True


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
