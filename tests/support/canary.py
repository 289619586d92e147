"""Searches everything a running system writes, stores or shows for secrets that were planted in it."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import aiohttp
import asyncpg
import psutil
import redis.asyncio
import yaml

from local.folder import read_run_file

_ADMIN_PAGES: Final = ("config_dump", "stats", "stats/prometheus", "clusters", "listeners", "server_info", "runtime")
_SHORTEST: Final = 6
"""Bytes; what is shorter is found by chance."""


def forms(secret: str) -> set[bytes]:
    """Every way a secret may be written down: as it is, escaped, in hex, in base64 at any offset, a UUID as bytes."""
    raw = [secret.encode()]
    with suppress(ValueError):
        raw += [UUID(secret).bytes, UUID(secret).hex.encode()]
    found = set(raw)
    for each in raw:
        found |= {each.hex().encode(), each.hex().upper().encode(), each[::-1]}
        for offset in range(3):
            # What stands before and after it is not known: the characters that depend on it are left out.
            text = base64.b64encode(bytes(offset) + each)
            core = text[-(-offset * 8 // 6) : (offset + len(each)) * 8 // 6]
            found |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    found |= {quote(secret, safe="").encode(), "".join(f"%{byte:02X}" for byte in secret.encode()).encode()}
    found |= {json.dumps(secret)[1:-1].encode(), secret.encode("utf-16-le")}
    return {form for form in found if len(form) >= _SHORTEST}


class Searcher:
    """Knows secrets by name and finds them.

    Args:
        secrets: By a name that may be told.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._forms = [(name, form) for name, secret in secrets.items() for form in forms(secret)]
        self.searched: dict[str, int] = {}
        """Bytes that were searched, by place."""
        self.hits: set[tuple[str, str]] = set()
        """Place and name of each secret that was found."""

    def search(self, place: str, data: bytes | str) -> None:
        """Look into something that was found at a place."""
        data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        self.searched[place] = self.searched.get(place, 0) + len(data)
        self.hits |= {(place, name) for name, form in self._forms if form in data}

    def files(self, root: Path, without: Sequence[Path] = ()) -> None:
        """Look into every file of a folder: logs, the engines' data with its write-ahead logs, run files, cores."""
        for path in _files(root, without):
            with suppress(FileNotFoundError):
                self.search(str(path.relative_to(root)), path.read_bytes())

    def processes(self, pids: Iterable[int], without: Iterable[str] = ()) -> None:
        """Look into environment and command line of processes and their children.

        Args:
            pids: The processes.
            without: Names of variables that the test itself has set.
        """
        ours = tuple(f"{name}=".encode() for name in without)
        for pid in pids:
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                with suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
                    place = f"process {process.name()}"
                    folder = Path("/proc", str(process.pid))
                    variables = (folder / "environ").read_bytes().split(b"\0")
                    self.search(f"{place} environ", b"\0".join(v for v in variables if not v.startswith(ours)))
                    self.search(f"{place} cmdline", (folder / "cmdline").read_bytes())

    async def tables(self, url: str) -> None:
        """Look into every row of every table as text; bytes show as hex there."""
        connection = await asyncpg.connect(url)
        try:
            tables = await connection.fetch(
                "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            for table in tables:
                rows = await connection.fetch(f"SELECT t::text AS row FROM {table['name']} t")  # noqa: S608  # quoted by format
                self.search(f"table {table['name']}", "\n".join(row["row"] for row in rows))
            shown = await connection.fetch("SELECT query FROM pg_stat_activity")
            self.search("pg_stat_activity", "\n".join(str(row["query"]) for row in shown))
        finally:
            await connection.close()

    async def live_state(self, url: str) -> None:
        """Look into every key of Redis, unpacked."""
        async with redis.asyncio.Redis.from_url(url) as client:
            async for key in client.scan_iter(count=500):
                self.search("redis keys", key)
                async for value in _values(client, key):
                    self.search("redis values", value)
            self.search("redis info", str(await client.info("everything")) + str(await client.client_list()))

    async def edge(self, data: Path) -> None:
        """Look into what Envoy's admin interface shows."""
        async with aiohttp.ClientSession() as http:
            for page in _ADMIN_PAGES:
                async with http.get(f"{edge_admin(data)}/{page}") as answer:
                    self.search(f"admin {page}", await answer.read())

    async def system(self, data: Path, pids: Iterable[int], *, set_by_us: Iterable[str] = ()) -> None:
        """Look into all of it, but for what the simulator keeps, which is the broker."""
        facts = read_run_file(data)
        assert facts is not None
        await self.tables(facts["postgres"])
        await self.live_state(facts["redis"])
        await self.edge(data)
        self.processes([*facts["pids"].values(), *pids], without=set_by_us)
        await asyncio.to_thread(self.files, data, (data / "simulator",))


def edge_admin(data: Path) -> str:
    """Return the address of Envoy's admin interface, of a system on a data folder."""
    address = yaml.safe_load((data / "run" / "envoy.yaml").read_text())["admin"]["address"]["socket_address"]
    return f"http://{address['address']}:{address['port_value']}"


def _files(root: Path, without: Sequence[Path]) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        if any(Path(folder).is_relative_to(left) for left in without):
            continue
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


async def _values(client: Any, key: bytes) -> AsyncIterator[bytes]:
    match await client.type(key):
        case b"string":
            yield await client.get(key) or b""
        case b"hash":
            yield _flat(await client.hgetall(key))
        case b"set":
            yield _flat(await client.smembers(key))
        case b"zset":
            yield _flat(await client.zrange(key, 0, -1))
        case b"list":
            yield _flat(await client.lrange(key, 0, -1))
        case b"stream":
            for _, fields in await client.xrange(key):
                yield _flat(fields)
        case b"none":
            pass
        case kind:
            raise NotImplementedError(f"say how to read a {kind!r}")


def _flat(values: Any) -> bytes:
    parts = [*values.keys(), *values.values()] if isinstance(values, dict) else values
    return b"\n".join(parts)
