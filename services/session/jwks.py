"""Prints the key set that checks our access tokens: ``python -m services.session.jwks KEY.pem``, for the gateway."""

import json
import sys
from pathlib import Path

from services.session.adapters.tokens import SigningKey


def main() -> None:
    """Read the private key named on the command line and write its public half to stdout."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m services.session.jwks KEY.pem")
    sys.stdout.write(json.dumps(SigningKey.read(Path(sys.argv[1])).jwks()) + "\n")


if __name__ == "__main__":
    main()
