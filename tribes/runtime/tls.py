"""TLS under the connections of a node: what is loaded, what is checked, what is read and written.

The core knows nothing of it: it is told of plain bytes, and of a connection that it asked for once
the handshake is over. An accepted connection it is told of at once, so that its limits on those who
have not said anything yet hold for the handshake too.

Two things must hold of a peer's certificate: one of the configured authorities has signed it, and
it names the peer (`names_match`). The second is decided here, after the handshake and before the
first byte is passed on, in the same way for both sides.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import trio

from tribes.errors import ConfigError
from tribes.runtime.dialing import send_all
from tribes.security.keys import check_file_mode, remedy_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Mapping

    from tribes.config.model import TlsConfig

__all__ = ["Tls", "TlsStream", "load_tls", "names_match", "shake_hands"]

_READ_BYTES: Final = 64 * 1024
_HANDSHAKE_READ_BYTES: Final = 16 * 1024

CONTROL_MAX_BYTES: Final = 64 * 1024
"""What TLS itself may have to answer on one connection after its handshake. New keys are asked for
by the peer with a few bytes, and cost some answer each; our members never do."""

_CIPHERS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""With TLS 1.2 forward secrecy and authenticated encryption are a choice; with 1.3 there is no
other."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_ANY: Final = "any"


@final
@dataclass(frozen=True)
class Tls:
    """What a node's configuration makes of TLS; replaced as a whole when certificates change.

    Attributes:
        server: For connections that others make.
        client: For connections that this node makes.
        names: What certificates must name, one of these; empty: the address of their connection.
            Names are lower case, addresses in their shortest form.
        is_any: Whether certificates need not name anything.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    names: frozenset[str]
    is_any: bool


def load_tls(config: TlsConfig) -> Tls:
    """Read the files of a configuration.

    Raises:
        ConfigError: One cannot be read or used; names the file, the key and what to do.
    """
    _check_file("certificate", config.certificate)
    _check_file("authorities", config.authorities)
    key_file = config.private_key or config.certificate
    _check_file("private_key", key_file, is_secret=True)
    server = _context(ssl.PROTOCOL_TLS_SERVER, config, key_file)
    server.verify_mode = ssl.CERT_REQUIRED if config.verify_peer else ssl.CERT_NONE
    server.num_tickets = 0
    client = _context(ssl.PROTOCOL_TLS_CLIENT, config, key_file)
    client.check_hostname = False  # done here, see `names_match`
    client.verify_mode = ssl.CERT_REQUIRED
    return Tls(
        server,
        client,
        frozenset(_canonical(name) for name in config.peer_names if name != _ANY),
        _ANY in config.peer_names,
    )


def _context(side: ssl._SSLMethod, config: TlsConfig, key_file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = _VERSIONS[config.minimum_version]
    # A link lasts, so nothing is gained by resuming one, and tickets are one more secret.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.set_ciphers(_CIPHERS_1_2)
    try:
        context.load_cert_chain(
            config.certificate, key_file, password=lambda: _refuse_passphrase(key_file)
        )
    except ssl.SSLError as why:
        if why.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"this is not the key of the certificate in {config.certificate}; name the two "
                "that were made together",
                key="channel.tls.private_key",
                source=key_file,
            ) from None
        raise ConfigError(
            f"no certificate in PEM format here, or no key in {key_file} ({_reason(why)}); write "
            "the paths of files that begin with -----BEGIN",
            key="channel.tls.certificate",
            source=config.certificate,
        ) from None
    try:
        context.load_verify_locations(config.authorities)
    except ssl.SSLError as why:
        raise ConfigError(
            f"no certificates in PEM format here ({_reason(why)}); write the path of the "
            "authority's certificate",
            key="channel.tls.authorities",
            source=config.authorities,
        ) from None
    return context


def _refuse_passphrase(path: str) -> NoReturn:
    # Without this the library would ask for it on the terminal.
    raise ConfigError(
        f"this key is encrypted, and nobody is there to give its passphrase; write it without one: "
        f"openssl pkey -in {path} -out {path}.plain",
        key="channel.tls.private_key",
        source=path,
    )


def _check_file(name: str, path: str, *, is_secret: bool = False) -> None:
    key = f"channel.tls.{name}"
    try:
        # A pipe in its place must not hang the start.
        mode = os.stat(path).st_mode
        if is_secret and os.name == "posix":
            check_file_mode(mode, path)
        elif not stat.S_ISREG(mode):
            raise ConfigError("is not a regular file; write the path of one in PEM format")
        with open(path, "rb"):
            pass
    except OSError as why:
        raise ConfigError(
            f"this file can't be read: {why.strerror}; "
            + remedy_for(why, "write the path of one in PEM format"),
            key=key,
            source=path,
        ) from None
    except ConfigError as why:
        raise ConfigError(why.message, key=key, source=path) from None


def _reason(why: ssl.SSLError) -> str:
    if isinstance(why, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {why.verify_message}"
    return (why.reason or str(why)).replace("_", " ").lower()


# ---- names -------------------------------------------------------------------------------------


def names_match(certificate: Mapping[str, Any], host: str, names: Collection[str]) -> bool:
    """Whether a certificate names who it should.

    Args:
        certificate: As ``SSLObject.getpeercert`` gives it; only its subject alternative names are
            looked at.
        host: The IP address at the other end of the connection.
        names: One of these will do; none: the address.
    """
    wanted = names or (_canonical(host),)
    return any(
        _canonical(value) in wanted
        for kind, value in certificate.get("subjectAltName", ())
        if kind in ("DNS", "IP Address")
    )


def _canonical(name: str) -> str:
    text = name.strip()
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text.lower().rstrip(".")
    # A socket of both families shows IPv4 peers like this.
    return str(getattr(address, "ipv4_mapped", None) or address)


# ---- connections -------------------------------------------------------------------------------


@final
class TlsStream:
    """The TLS of one connection: bytes in, bytes out, no socket.

    Args:
        tls: Certificates and names.
        host: The address at the other end.
        is_server: Whether the other end made the connection.
    """

    __slots__ = ("_control", "_host", "_in", "_object", "_out", "_tls", "is_ended", "is_open")

    def __init__(self, tls: Tls, host: str, *, is_server: bool) -> None:
        self.is_open = False
        """Whether the handshake is over and the peer is who it should be."""
        self.is_ended = False
        """Whether the peer has said that nothing more will come."""
        self._tls = tls
        self._host = host
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._control = 0
        context = tls.server if is_server else tls.client
        self._object = context.wrap_bio(self._in, self._out, server_side=is_server)

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` has something."""
        return self._out.pending > 0

    def take(self) -> bytes:
        """What is to be sent; also after an error, since it tells the peer."""
        return self._out.read()

    def write(self, data: bytes) -> None:
        """Encrypt; only once it is open."""
        self._object.write(data)

    def feed(self, data: bytes) -> bytes:
        """Take what was received, and return what it says. To begin, give nothing.

        Raises:
            ConnectionAbortedError: The peer is not who it should be, or broke the protocol.
        """
        self._in.write(data)
        plain: list[bytes] = []
        is_handshake = not self.is_open
        before = self._out.pending
        try:
            if is_handshake:
                self._object.do_handshake()
                self._check_name()
                self.is_open = True
            while True:
                piece = self._object.read(_READ_BYTES)
                if not piece:
                    break
                plain.append(piece)
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        except ssl.SSLError as why:
            raise ConnectionAbortedError(f"TLS: {_reason(why)}") from None
        if not is_handshake:
            self._control += self._out.pending - before
            if self._control > CONTROL_MAX_BYTES:
                raise ConnectionAbortedError("TLS: the peer asks for new keys again and again")
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def _check_name(self) -> None:
        tls = self._tls
        certificate = self._object.getpeercert()
        if tls.is_any or certificate is None:
            return
        if not names_match(certificate, self._host, tls.names):
            wanted = "one of channel.tls.peer_names" if tls.names else f"its address {self._host}"
            raise ConnectionAbortedError(f"TLS: the certificate does not name {wanted}")


async def shake_hands(sock: socket.socket, stream: TlsStream) -> bytes:
    """Do the handshake on a connection that was made here; returns what came behind it.

    Its last bytes are left in the stream, to go out with the first ones of the user.

    Raises:
        OSError: The connection broke, or the peer is not who it should be.
    """
    plain = stream.feed(b"")
    while not stream.is_open:
        await send_all(sock, stream.take())
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(_HANDSHAKE_READ_BYTES)
        except BlockingIOError:
            continue
        if not data:
            raise ConnectionResetError("it closed the connection in the handshake of TLS")
        try:
            plain = stream.feed(data)
        except ConnectionAbortedError:
            await send_all(sock, stream.take())
            raise
    return plain
