"""Keeps the catalogue equal to the models' folder, by looking at it every second."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.agent.domain.errors import ModelNotFoundError, ModelRefusedError
from services.agent.registry.catalogue import Catalogue, Model, Selection
from services.agent.registry.files import VerifiedModel, read_verified
from services.agent.registry.manifest import MANIFEST_FILE, MODEL_FILE, SIGNATURE_FILE

SELECTION_FILE: Final = "selection.json"

_log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int] | None, ...]
"""Modification time and size of a version's files: changes when one of them does."""


class Registry:
    """All models of a folder ``<name>/<version>/``, verified, loaded, and kept up to date.

    What cannot be proven is refused and logged, and what was loaded before stays. A version whose folder is gone is
    forgotten. Calls in flight keep the model they began with.

    Args:
        folder: The models' folder.
        keys: The keys that are trusted.
        load: Makes a verified file runnable; raises ``ModelRefusedError`` if it is not for this service.
    """

    def __init__(self, folder: Path, keys: Iterable[Ed25519PublicKey], load: Callable[[VerifiedModel], Model]) -> None:
        self._folder = folder
        self._keys = tuple(keys)
        self._load = load
        self._seen: dict[Path, Stamp] = {}
        self._models: dict[Path, Model] = {}
        self._selection_stamp: tuple[int, int] | None = None
        self._catalogue: Catalogue | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue as it is now.

        Raises:
            ModelNotFoundError: Nothing was loaded yet.
        """
        if self._catalogue is None:
            raise ModelNotFoundError
        return self._catalogue

    def refresh(self) -> bool:
        """Look at the folder once and return whether the catalogue changed. Reads files: not for the event loop.

        Never raises for what it finds; a catalogue that would be inconsistent does not replace the last good one.
        """
        stamps = {path.parent: _stamp(path.parent) for path in self._folder.glob(f"[!.]*/[!.]*/{MANIFEST_FILE}")}
        models = {path: model for path, model in self._models.items() if path in stamps}
        for path, stamp in stamps.items():
            if self._seen.get(path) == stamp:
                continue
            try:
                model = self._load(read_verified(path, self._keys))
            except ModelRefusedError as error:
                _log.error("model_refused", model=path.parent.name, version=path.name, why=error.message)
                continue
            models[path] = model
            _log.info("model_loaded", model=path.parent.name, version=path.name, sha256=model.manifest.sha256)
        selection_stamp = _file_stamp(self._folder / SELECTION_FILE)
        changed = stamps != self._seen or selection_stamp != self._selection_stamp
        self._seen, self._selection_stamp = stamps, selection_stamp
        if not changed:
            return False
        try:
            self._catalogue = Catalogue(list(models.values()), self._read_selection())
        except (ModelNotFoundError, msgspec.MsgspecError, OSError) as error:
            _log.error("selection_refused", why=str(error))
            # Versions that the last good catalogue still names must survive here too.
            self._models = {**self._models, **models}
            return False
        self._models = models
        return True

    async def watch(self, seconds: float) -> None:
        """Refresh for ever."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.refresh)

    def _read_selection(self) -> Selection:
        path = self._folder / SELECTION_FILE
        return msgspec.json.decode(path.read_bytes(), type=Selection) if path.exists() else Selection()


def _stamp(folder: Path) -> Stamp:
    return tuple(_file_stamp(folder / name) for name in (MANIFEST_FILE, SIGNATURE_FILE, MODEL_FILE))


def _file_stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size
