"""Hosts: which of them are this machine, and which are reachable on the local link only."""

import ipaddress
import socket

__all__ = ["is_link_local", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine only; other names than localhost are not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_link_local(host: str) -> bool:
    """Return whether a host is a link-local address in any notation, 0xA9FEA9FE included; names are not resolved."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_link_local
