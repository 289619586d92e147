"""Trains ``rl-ppo``: stable-baselines3's PPO on the same features and markets, for comparison and for those who ask.

With a fixed stake and no influence on the market, one bar's action changes nothing later: gamma is 0, and what is left is
a contextual bandit. The payout is baked into the policy by its reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from markets import expected_profit
from services.agent.features import FEATURES, ODD_FEATURES, FeatureArray
from training.dataset import COMPARED, training_rows
from training.network import BOUND
from training.progress import Progress

HOLD, CALL, PUT = range(3)
WIDTH: Final = 96
MIRROR: Final = np.where(np.arange(FEATURES) < ODD_FEATURES, -1.0, 1.0).astype(np.float32)
"""What mirroring the market does to the features."""
SWAPPED: Final = (HOLD, PUT, CALL)
"""What mirroring the market does to the actions."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """How it learns."""

    seed: int = 21
    payout_rate: float = 0.87
    steps: int = 4_000_000
    envs: int = 512
    rollout: int = 16
    batch: int = 2048
    epochs: int = 4
    rate: float = 1e-3
    """Learning rate at the start; it falls linearly to 0."""
    entropy: float = 0.4
    """Weight of the entropy at the start; it falls linearly. Too little, and the policy holds on reversals before it has
    learnt to trade them, and never looks again."""
    last_entropy: float = 0.02
    """Its weight at the end: what keeps the log odds of the actions small enough for single precision."""


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """The policy, and what torch says on some rows to hold the file against."""

    weights: dict[str, np.ndarray[Any, np.dtype[np.float32]]]
    """Two networks, ``actor.N`` and ``critic.N``, and what their inputs are standardised and mirrored by."""
    rows: FeatureArray
    logits: np.ndarray[Any, np.dtype[np.float32]]


class BarsEnv(VecEnv):  # type: ignore[misc]  # stable-baselines3 is not installed where types are checked
    """Many bars at once, each an episode of one step: features in, hold, call or put out, the profit as reward.

    The reward is the expected profit under the market's exact probability, weighted like the loss of the default model.
    """

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(settings.seed)
        features = training_rows(self._rng).features
        # The odd features have mean 0 by symmetry.
        self.mean = np.where(np.arange(FEATURES) < ODD_FEATURES, 0.0, features.mean(axis=0)).astype(np.float32)
        self.scale = (1.0 / (features.std(axis=0) + 1e-3)).astype(np.float32)
        space = gymnasium.spaces.Box(-BOUND, BOUND, (FEATURES,), np.float32)
        super().__init__(settings.envs, space, gymnasium.spaces.Discrete(3))
        self._order = np.empty(0, dtype=np.intp)
        self._at = 0
        self._actions = np.zeros(settings.envs, dtype=np.int64)

    def reset(self) -> FeatureArray:
        """Return the first bars."""
        return self._next_bars()

    def step_async(self, actions: Any) -> None:
        """Take the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[FeatureArray, Any, Any, list[dict[str, Any]]]:
        """Pay for the actions and show the next bars."""
        p_win = np.where(self._actions == CALL, self._p_up, 1.0 - self._p_up)
        profit = np.where(self._actions == HOLD, 0.0, expected_profit(p_win, self._settings.payout_rate))
        rewards = (profit * self._weight).astype(np.float32)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        return self._next_bars(), rewards, np.ones(self.num_envs, dtype=bool), infos

    def _next_bars(self) -> FeatureArray:
        if self._at + self.num_envs > len(self._order):
            rows = training_rows(self._rng)
            self._rows = rows
            self._order = self._rng.permutation(len(rows.p_up))
            self._at = 0
        picked = self._order[self._at : self._at + self.num_envs]
        self._at += self.num_envs
        self._p_up = self._rows.p_up[picked]
        self._weight = self._rows.weight[picked]
        return self.standardise(self._rows.features[picked])

    def standardise(self, features: FeatureArray) -> FeatureArray:
        """Return feature rows as the policy gets them."""
        standardised: FeatureArray = np.clip((features - self.mean) * self.scale, -BOUND, BOUND)
        return standardised

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute once for each bar."""
        return [getattr(self, attr_name, None)] * len(self._indices(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the bars are one."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: the bars are one."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Nothing is wrapped."""
        _ = wrapper_class
        return [False] * len(self._indices(indices))

    def _indices(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


class _Networks(nn.Module):  # type: ignore[misc]  # as above
    """Actor and critic, the actor averaged with its own mirror image: a put is a call in the mirror.

    Without that, PPO learnt to trade one direction of a reversal and stayed there.
    """

    latent_dim_pi = 3
    latent_dim_vf = 1

    def __init__(self) -> None:
        super().__init__()
        self.actor = _tower(3)
        self.critic = _tower(1)
        self.register_buffer("mirror", torch.from_numpy(MIRROR))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        seen, mirrored = self.actor(features), self.actor(features * self.mirror)
        return (seen + mirrored[:, list(SWAPPED)]) * 0.5

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.critic(features)
        return values


def _tower(outputs: int) -> nn.Sequential:
    tower = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, outputs)
    )
    # It begins without a preference.
    nn.init.zeros_(tower[-1].weight)
    nn.init.zeros_(tower[-1].bias)
    return tower


class _MirroredPolicy(ActorCriticPolicy):  # type: ignore[misc]  # as above
    """SB3's policy with our networks and nothing behind them."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = _Networks()

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net, self.value_net = nn.Identity(), nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class _Tick(BaseCallback):  # type: ignore[misc]  # as above
    """Moves the progress bar on and lowers the entropy's weight at every rollout."""

    def __init__(self, bar: Any, settings: PolicySettings) -> None:
        super().__init__()
        self._bar = bar
        self._settings = settings

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        left = self.model._current_progress_remaining  # noqa: SLF001 - SB3 tells it in no other way
        first, last = self._settings.entropy, self._settings.last_entropy
        self.model.ent_coef = last + (first - last) * left
        next(self._bar, None)


def train_policy(settings: PolicySettings, progress: Progress) -> TrainedPolicy:
    """Train PPO; deterministic by seed on one thread."""
    torch.set_num_threads(1)
    env = BarsEnv(settings)
    model = PPO(
        _MirroredPolicy,
        env,
        seed=settings.seed,
        gamma=0.0,
        gae_lambda=0.0,
        n_steps=settings.rollout,
        batch_size=settings.batch,
        n_epochs=settings.epochs,
        learning_rate=lambda left: settings.rate * left,
        ent_coef=settings.entropy,
        policy_kwargs={"ortho_init": False},
        device="cpu",
    )
    rollouts = -(-settings.steps // (settings.envs * settings.rollout))
    bar = iter(progress.track(range(rollouts), "rl-ppo: rollouts"))
    next(bar)
    model.learn(settings.steps, callback=_Tick(bar, settings))
    for _ in bar:
        pass
    rows = training_rows(np.random.default_rng(settings.seed + 1)).features[:COMPARED]
    inputs = torch.from_numpy(env.standardise(rows))
    with torch.no_grad():
        logits = model.policy.mlp_extractor.forward_actor(inputs).numpy()
    networks = model.policy.mlp_extractor
    weights = {"mean": env.mean, "scale": env.scale, "mirror": MIRROR}
    for head in ("actor", "critic"):
        linear = [module for module in getattr(networks, head) if isinstance(module, nn.Linear)]
        for layer, module in enumerate(linear):
            weights[f"{head}.{layer}.weight"] = module.weight.detach().numpy()
            weights[f"{head}.{layer}.bias"] = module.bias.detach().numpy()
    return TrainedPolicy(weights, rows, logits)
