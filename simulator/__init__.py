"""The brokers' platform, locally: the wire of both brands, a deterministic market and a ledger of every order."""
