"""Hosts: which of them are this machine, and which are reachable on the local link only."""

import ipaddress

__all__ = ["is_link_local", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine only; other names than localhost are not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_link_local(host: str) -> bool:
    """Return whether a host is a link-local address; names are not resolved."""
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
