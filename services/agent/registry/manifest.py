"""A model's manifest: what it is, what it was made for, and the digests of its files."""

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from services.agent.domain.errors import ModelRefusedError

MODEL_FILE: Final = "model.onnx"
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
CARD_FILE: Final = "card.md"
WORD: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``manifest.json``. The signature covers its bytes, its digests cover the other files."""

    name: str
    """What a bot's settings call the model; equals the folder's parent."""
    version: str
    """Numbers with dots; equals the folder's name."""
    kind: Literal["probability", "policy"]
    """What the file answers: ``p_up``, or ``logits`` of hold, call, put and their ``value``."""
    description: str
    """One paragraph for people."""
    create_time: datetime
    """When it was trained."""
    features_version: str
    """The definition of the features it was trained on."""
    expiry_bars: int
    """Life of the option in candles."""
    min_history: int
    """Closed candles below which it must not decide."""
    payout_range: tuple[float, float]
    """Payout rates it was validated for."""
    margin: float
    """Probability demanded beyond break-even when the caller says nothing."""
    policy_payout: float | None
    """The payout rate baked into a policy; None for a probability."""
    files: dict[str, str]
    """SHA-256 of every file of the folder but the manifest and its signature, hex."""
    onnx: dict[str, int]
    """``opset`` and ``ir``."""
    training: dict[str, Any]
    """Seeds, ranges, shares, versions: what it takes to make it again."""
    data: dict[str, str]
    """SHA-256 of the real data it was judged on, by name; it was trained on none of it."""
    results: dict[str, Any]
    """The measures of the card, for programs."""

    @property
    def sha256(self) -> str:
        """Digest of the ONNX file."""
        return self.files[MODEL_FILE]

    @property
    def order(self) -> tuple[int, ...]:
        """What versions are sorted by."""
        return tuple(int(part) for part in self.version.split("."))


def parse_manifest(content: bytes) -> Manifest:
    """Return the manifest.

    Raises:
        ModelRefusedError: It is not one.
    """
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ModelRefusedError(f"the manifest is not valid: {error}") from error
    if not all(part.isdigit() for part in manifest.version.split(".")):
        raise ModelRefusedError("the version must be numbers with dots")
    if MODEL_FILE not in manifest.files:
        raise ModelRefusedError(f"the manifest has no digest of {MODEL_FILE}")
    return manifest
