"""Access tokens that the gateway checks: Ed25519-signed JWTs, and the key set (JWKS) to check them with."""

import base64
import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from services.runtime.clock import Clock
from services.runtime.secret import Secret

ISSUER: Final = "tradebot"
AUDIENCE: Final = "tradebot-api"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class SigningKey:
    """The private key that signs, named by the thumbprint of its public half (RFC 7638)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._required = {"crv": "Ed25519", "kty": "OKP", "x": _base64(public)}
        canonical = json.dumps(self._required, separators=(",", ":"), sort_keys=True)
        self.kid = _base64(hashlib.sha256(canonical.encode()).digest())
        """Its name in a token's header and in the key set."""

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """Read an Ed25519 private key in PEM.

        Raises:
            ValueError: The file holds something else.
            OSError: It cannot be read.
        """
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{path} holds no Ed25519 private key")  # noqa: TRY004 - the file is wrong, not a type
        return cls(key)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public key set (RFC 7517)."""
        return {"keys": [{**self._required, "alg": "EdDSA", "use": "sig", "kid": self.kid}]}

    def sign(self, claims: dict[str, object]) -> str:
        """Return a signed token."""
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self.kid})


class JwtTokens:
    """Issues the tokens that Connect answers."""

    def __init__(self, key: SigningKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def issue(self, session_id: str, subject: str, lifetime: timedelta) -> Secret:
        """Return a signed JWT with sub, sid, iss, aud, iat and exp."""
        now = self._clock.now()
        return Secret(
            self._key.sign(
                {
                    "iss": ISSUER,
                    "aud": AUDIENCE,
                    "sub": subject,
                    "sid": session_id,
                    "iat": int(now.timestamp()),
                    "exp": int((now + lifetime).timestamp()),
                }
            )
        )
