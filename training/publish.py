"""Writes a model's folder so that the agent service accepts it: digests, manifest, signature, in one move."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from services.agent.registry.manifest import MANIFEST_FILE, MODEL_FILE, SIGNATURE_FILE, Manifest
from services.agent.registry.signature import sign
from training.onnx_graph import IR_VERSION, OPSET

ROOT: Final = Path(__file__).resolve().parents[1]
MODELS: Final = ROOT / "models"
SHIPPED_KEYS: Final = ROOT / "services" / "agent" / "trusted_keys"

_LIBRARIES: Final = ("numpy", "onnx", "torch", "stable-baselines3", "gymnasium")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs, and where its public half is."""

    key: Ed25519PrivateKey
    public_path: Path


def signing_key() -> SigningKey:
    """Return the key of ``TRADEBOT_SIGNING_KEY``, or the one of the data folder, made on first use.

    Its public half is written beside it, where ``make up`` trusts it; elsewhere name that folder in
    ``AGENT_TRUSTED_KEYS`` to have the models accepted.
    """
    data = Path(os.environ.get("TRADEBOT_DATA", ROOT / ".data"))
    path = Path(os.environ.get("TRADEBOT_SIGNING_KEY", data / "signing" / "private.pem"))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Ed25519PrivateKey.generate()
        path.touch(mode=0o600)
        path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is not an Ed25519 private key")
    public_path = path.parent / "trusted" / "public.pem"
    public_path.parent.mkdir(exist_ok=True)
    public_path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return SigningKey(key, public_path)


def library_versions() -> dict[str, str]:
    """Return the versions that the bytes of a model depend on."""
    return {name: version(name) for name in _LIBRARIES}


def publish(manifest: Manifest, files: Mapping[str, bytes], models: Path, key: Ed25519PrivateKey) -> Path:
    """Write ``<name>/<version>/`` anew, complete or not at all, and return it.

    The manifest's digests and ONNX facts are filled in here.
    """
    if MODEL_FILE not in files:
        raise ValueError(f"there is no {MODEL_FILE}")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    complete = msgspec.structs.replace(manifest, files=digests, onnx={"opset": OPSET, "ir": IR_VERSION})
    content = msgspec.json.format(msgspec.json.encode(complete, order="sorted"), indent=2) + b"\n"
    folder = models / manifest.name / manifest.version
    # The registry does not look into names with a dot in front.
    building = models / manifest.name / f".{manifest.version}.new"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for name, data in (*files.items(), (MANIFEST_FILE, content), (SIGNATURE_FILE, sign(content, key))):
        (building / name).write_bytes(data)
    if folder.exists():
        shutil.rmtree(folder)
    building.rename(folder)
    return folder


def republish(
    folder: Path,
    files: Mapping[str, bytes],
    results: Mapping[str, Any],
    data: Mapping[str, str],
    key: Ed25519PrivateKey,
) -> None:
    """Put a new card with its plots and results into a published folder and sign it again; the model stays."""
    manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
    manifest = msgspec.structs.replace(manifest, results=dict(results), data=dict(data))
    model = (folder / MODEL_FILE).read_bytes()
    publish(manifest, {MODEL_FILE: model, **files}, folder.parents[1], key)


def now() -> datetime:
    """Return the time that a manifest carries, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
