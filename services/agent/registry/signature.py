"""Ed25519 signatures over manifests: who may say that a model is one of ours.

The keys that are trusted come with the code, not with the models, so that whoever can write a model cannot also make
it trusted.
"""

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from services.agent.domain.errors import ModelRefusedError


def load_trusted_keys(folders: Iterable[Path]) -> tuple[Ed25519PublicKey, ...]:
    """Return the Ed25519 public keys in the folders' ``*.pem`` files.

    Raises:
        ValueError: A file holds something else, or there is no key at all.
    """
    keys = []
    for path in sorted(path for folder in folders for path in folder.glob("*.pem")):
        key = load_pem_public_key(path.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(f"{path} is not an Ed25519 public key")  # noqa: TRY004 - a file's content is no type error
        keys.append(key)
    if not keys:
        raise ValueError("no trusted key: every model would be refused")
    return tuple(keys)


def sign(content: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the signature file for ``content``."""
    return base64.b64encode(key.sign(content)) + b"\n"


def verify(content: bytes, signature: bytes, keys: Iterable[Ed25519PublicKey]) -> None:
    """Return if one of the keys signed ``content``.

    Raises:
        ModelRefusedError: None did.
    """
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except binascii.Error as error:
        raise ModelRefusedError("the signature is not base64") from error
    for key in keys:
        try:
            key.verify(raw, content)
        except InvalidSignature:
            continue
        return
    raise ModelRefusedError("the manifest is not signed by a trusted key")
