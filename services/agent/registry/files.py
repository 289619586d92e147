"""Reads a model's folder and lets nothing out that is not proven by its manifest and signature."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.agent.domain.errors import ModelRefusedError
from services.agent.registry.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    SIGNATURE_FILE,
    Manifest,
    parse_manifest,
)
from services.agent.registry.signature import verify


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A model's files as bytes in memory, each read once and proven: what was verified is what is run."""

    manifest: Manifest
    onnx: bytes
    card: str
    """Markdown; empty if it has none."""


def read_verified(folder: Path, keys: Iterable[Ed25519PublicKey]) -> VerifiedModel:
    """Read ``<name>/<version>/`` and verify signature first, then digests.

    Raises:
        ModelRefusedError: A file is missing, unsigned, changed or out of place; the message says which.
    """
    content = _read(folder / MANIFEST_FILE)
    verify(content, _read(folder / SIGNATURE_FILE), keys)
    manifest = parse_manifest(content)
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise ModelRefusedError("the folder is not that of the manifest's name and version")
    onnx = _read_matching(folder, MODEL_FILE, manifest)
    card = _read_matching(folder, CARD_FILE, manifest).decode() if CARD_FILE in manifest.files else ""
    return VerifiedModel(manifest, onnx, card)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelRefusedError(f"{path.name} cannot be read") from error


def _read_matching(folder: Path, name: str, manifest: Manifest) -> bytes:
    content = _read(folder / name)
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise ModelRefusedError(f"{name} is not the file that was signed: its SHA-256 differs")
    return content
