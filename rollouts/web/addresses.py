"""Which addresses of the internet a page may be fetched from: public ones only, so that a policy reaches nothing private.

The name is resolved here, and the connection goes to the address that was checked. A name that later resolves to another address (DNS
rebinding) has no effect.
"""

import asyncio
import dataclasses
import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
_LONGEST = 253
"""Maximum characters of a name (RFC 1035)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """The address is refused, or no address at all. The message can be shown to the policy."""


class Unreachable(Exception):
    """The name could not be resolved now."""


@dataclasses.dataclass(frozen=True)
class Address:
    """Where to connect for a URL."""

    scheme: str
    host: str
    """The host of the URL, for TLS and the Host header. Lower case, IPv6 without brackets."""
    port: int
    ip: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin to connect to, with the IP address as its host."""
        return f"{self.scheme}://{f'[{self.ip}]' if ':' in self.ip else self.ip}:{self.port}"


def is_public(ip: str) -> bool:
    """Whether an address is one of the public internet. An IPv4 address inside of an IPv6 address must be public, too."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return all(is_public(str(one)) for one in inner if one is not None)


async def check(url: str, allowed: Collection[str] = ()) -> Address:
    """Resolves the host of a URL.

    Args:
        allowed: `host:port` that may be private.

    Raises:
        Refused: not an http or https URL, a host that does not exist, or one of its addresses is not public.
        Unreachable: the name could not be resolved now.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "")[: _LONGEST + 1], parts.port
        host = host if host.isascii() or len(host) > _LONGEST else host.encode("idna").decode()
    except (ValueError, UnicodeError):
        raise Refused("it is not an address of a page") from None
    if parts.scheme not in PORTS or not host or len(host) > _LONGEST:
        raise Refused("only addresses that begin with http:// or https:// can be visited")
    if parts.username is not None or parts.password is not None:
        raise Refused("an address with a user name or password cannot be visited")
    port = port or PORTS[parts.scheme]
    ips = await _resolve(host, port)
    if f"{host}:{port}" not in allowed and not all(map(is_public, ips)):
        raise Refused("its host is not on the public internet")
    return Address(parts.scheme, host, port, ips[0])


async def public_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, if all are public. Raises Refused and Unreachable as `check` does."""
    ips = await _resolve(host.strip("[]"), port)
    if not all(map(is_public, ips)):
        raise Refused("its host is not on the public internet")
    return ips


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise Refused("its host does not exist") from None
        raise Unreachable("its host has no address now") from None
    except (OSError, UnicodeError, ValueError):
        raise Refused("it is not an address of a page") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
