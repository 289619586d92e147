"""Seals credentials: AES-256-GCM under a data key of its own for every value, the data key wrapped by a key file's key.

A sealed value is ``version ‖ key id ‖ wrap nonce ‖ wrapped data key ‖ nonce ‖ ciphertext``. Version, session and field are
authenticated: a value moved to another row or column does not open. Changing the key file's key re-wraps the data keys
and leaves the ciphertexts as they are.
"""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.runtime.secret import Secret
from services.session.domain.values import SessionKey

_VERSION: Final = b"\x01"
_KEY_SIZE: Final = 32
_KEY_ID_SIZE: Final = 8
# 96 random bits, as GCM wants them. Each data key seals one value; a wrapping key would need 2^32 values to be at risk.
_NONCE_SIZE: Final = 12
_WRAPPED_SIZE: Final = _KEY_SIZE + 16
_WRAP_END: Final = len(_VERSION) + _KEY_ID_SIZE + _NONCE_SIZE + _WRAPPED_SIZE


class KeyFileError(Exception):
    """The key file is missing, malformed, or open to others. The message names the file and never its content."""


class SealError(Exception):
    """A sealed value does not open: other key, other session or field, or damaged."""


class Vault:
    """Seals and opens. The first key is the current one; the others only open what they sealed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take 32-byte keys, at least one."""
        if not keys or any(len(key) != _KEY_SIZE for key in keys):
            raise ValueError("a vault needs keys of 32 bytes")
        self._current = _key_id(keys[0])
        self._keys = {_key_id(key): AESGCM(key) for key in keys}

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a key file: 32 raw bytes, or one base64 key a line, the current one first, ``#`` begins a comment.

        Raises:
            KeyFileError: It is missing, malformed, or not 0400 or 0600.
        """
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes()
        except OSError as error:
            raise KeyFileError(f"key file {path}: {error.strerror}") from error
        if mode not in {0o400, 0o600}:
            raise KeyFileError(f"key file {path}: mode is {mode:04o}, must be 0400 or 0600")
        if len(content) == _KEY_SIZE:
            return cls([content])
        lines = (line.partition(b"#")[0].strip() for line in content.splitlines())
        try:
            keys = [base64.b64decode(line, validate=True) for line in lines if line]
            return cls(keys)
        except (binascii.Error, ValueError):
            # Without the cause: it could show part of a key.
            raise KeyFileError(f"key file {path}: neither 32 bytes nor lines of base64 keys of 32 bytes") from None

    def seal(self, key: SessionKey, field: str, secret: Secret) -> bytes:
        """Seal a value for one field of one session."""
        data_key = AESGCM.generate_key(bit_length=8 * _KEY_SIZE)
        nonce = os.urandom(_NONCE_SIZE)
        bound = _bound(key, field)
        return self._wrap(data_key, bound) + nonce + AESGCM(data_key).encrypt(nonce, secret.reveal().encode(), bound)

    def open(self, key: SessionKey, field: str, sealed: bytes) -> Secret:
        """Open what was sealed for that field of that session.

        Raises:
            SealError: It does not open.
        """
        bound = _bound(key, field)
        data_key = self._unwrap(sealed, bound)
        nonce, ciphertext = sealed[_WRAP_END : _WRAP_END + _NONCE_SIZE], sealed[_WRAP_END + _NONCE_SIZE :]
        try:
            return Secret(AESGCM(data_key).decrypt(nonce, ciphertext, bound).decode())
        except (InvalidTag, ValueError) as error:
            raise SealError("the sealed value does not open") from error

    def rewrap(self, key: SessionKey, field: str, sealed: bytes) -> bytes:
        """Wrap the data key with the current key; the same bytes if it is so already.

        Raises:
            SealError: It does not open.
        """
        if sealed.startswith(_VERSION + self._current):
            return sealed
        bound = _bound(key, field)
        return self._wrap(self._unwrap(sealed, bound), bound) + sealed[_WRAP_END:]

    def _wrap(self, data_key: bytes, bound: bytes) -> bytes:
        nonce = os.urandom(_NONCE_SIZE)
        return _VERSION + self._current + nonce + self._keys[self._current].encrypt(nonce, data_key, bound)

    def _unwrap(self, sealed: bytes, bound: bytes) -> bytes:
        wrapping = self._keys.get(sealed[len(_VERSION) : len(_VERSION) + _KEY_ID_SIZE])
        if not sealed.startswith(_VERSION) or wrapping is None:
            raise SealError("the value was sealed with a key that is not in the key file")
        start = len(_VERSION) + _KEY_ID_SIZE
        nonce, wrapped = sealed[start : start + _NONCE_SIZE], sealed[start + _NONCE_SIZE : _WRAP_END]
        try:
            return wrapping.decrypt(nonce, wrapped, bound)
        except (InvalidTag, ValueError) as error:
            raise SealError("the sealed value does not open") from error


def _bound(key: SessionKey, field: str) -> bytes:
    return b"|".join((_VERSION, key.encode(), field.encode()))


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"tradebot key id" + key).digest()[:_KEY_ID_SIZE]
