"""Which models are loaded, which version of each is active, and which ones only shadow it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from services.agent.domain.decision import Opinion
from services.agent.domain.errors import ModelNotFoundError
from services.agent.features import FeatureArray
from services.agent.registry.manifest import Manifest


class Model(Protocol):
    """A loaded model."""

    @property
    def manifest(self) -> Manifest:
        """What it is."""
        ...

    @property
    def card(self) -> str:
        """Its model card, Markdown."""
        ...

    def judge(self, features: FeatureArray) -> Sequence[Opinion]:
        """Return one opinion a feature row; a row's opinion does not depend on the other rows."""
        ...


class ModelSelection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator wants of one model."""

    active: str | None = None
    """Version that decides; None is the newest. Pin, roll back and roll forward with it."""
    shadow: tuple[str, ...] = ()
    """Versions that decide beside it for the record."""


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``selection.json`` beside the models."""

    default: str = "edge"
    """Model of calls that name none."""
    models: dict[str, ModelSelection] = {}


@dataclass(frozen=True, slots=True)
class Choice:
    """The models that answer a call."""

    active: Model
    shadows: tuple[Model, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One version and its part."""

    model: Model
    is_default: bool
    active: bool
    shadow: bool
    pinned: bool = False
    """Active because the operator chose it."""


class Catalogue:
    """An immutable view of all models; replaced as a whole, so a call sees one state from start to end.

    Raises:
        ModelNotFoundError: The selection names a model or version that is not loaded.
    """

    def __init__(self, models: Sequence[Model], selection: Selection) -> None:
        ordered = sorted(models, key=lambda model: model.manifest.order, reverse=True)
        self._default = selection.default
        self._versions: dict[tuple[str, str], Model] = {(m.manifest.name, m.manifest.version): m for m in ordered}
        choices: dict[str, Choice] = {}
        for model in ordered:
            name = model.manifest.name
            if name not in choices:
                choices[name] = self._choose(name, selection.models.get(name, ModelSelection()), newest=model)
        for name in (self._default, *selection.models):
            if name not in choices:
                raise ModelNotFoundError
        self._choices: Mapping[str, Choice] = choices
        self._pinned = frozenset(name for name, wanted in selection.models.items() if wanted.active is not None)

    def _choose(self, name: str, wanted: ModelSelection, newest: Model) -> Choice:
        active = newest if wanted.active is None else self._version(name, wanted.active)
        return Choice(active, tuple(self._version(name, version) for version in wanted.shadow))

    def _version(self, name: str, version: str) -> Model:
        try:
            return self._versions[name, version]
        except KeyError:
            raise ModelNotFoundError from None

    def resolve(self, name: str, version: str) -> Choice:
        """Return who answers; empty words mean the default model and its active version.

        A pinned version answers alone, without shadows.

        Raises:
            ModelNotFoundError: There is no such model or version.
        """
        name = name or self._default
        if version:
            return Choice(self._version(name, version))
        try:
            return self._choices[name]
        except KeyError:
            raise ModelNotFoundError from None

    def get(self, name: str, version: str) -> Entry:
        """Return one version and its part; an empty version is the active one.

        Raises:
            ModelNotFoundError: There is no such model or version.
        """
        return self._entry(self.resolve(name, version).active)

    def entries(self) -> list[Entry]:
        """Return all versions by name, then newest first."""
        by_name: dict[str, list[Model]] = {}
        for model in self._versions.values():
            by_name.setdefault(model.manifest.name, []).append(model)
        return [self._entry(model) for name in sorted(by_name) for model in by_name[name]]

    def _entry(self, model: Model) -> Entry:
        name = model.manifest.name
        choice = self._choices[name]
        active = model is choice.active
        return Entry(model, name == self._default, active, model in choice.shadows, active and name in self._pinned)
