"""An experiment: with one position at a time, is it worth waiting for a better edge, and does PPO learn it?

The true probability is known to all three contestants, so that only the timing differs.
"""

from dataclasses import dataclass
from typing import Any, Final

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from markets import FloatArray, expected_profit, standard_markets

HORIZON: Final = 5
PAYOUT: Final = 0.87
STEPS: Final = 400_000
ENVS: Final = 64
BARS: Final = 3000
MARKETS: Final = ("ou_rw", "msar", "ar_mom")


@dataclass(frozen=True, slots=True)
class TimingResult:
    """Expected profit a bar on unseen paths."""

    market: str
    greedy: float
    waiting: float
    margin: float
    """Expected value that the best fixed rule waits for, fraction of the stake."""
    learnt: float


def run_timing(market: str, seed: int) -> TimingResult:
    """Run the experiment on one market."""
    values = [_values(market, np.random.default_rng([seed, part])) for part in range(2)]
    seen, unseen = values
    margins = np.linspace(0.0, 0.4, 41)
    margin = float(max(margins, key=lambda m: _fixed(seen, m)))
    policy = _learn(seen, seed)
    return TimingResult(
        market=market,
        greedy=_fixed(unseen, 0.0),
        waiting=_fixed(unseen, margin),
        margin=margin,
        learnt=_learnt(unseen, policy),
    )


def _values(market: str, rng: np.random.Generator) -> FloatArray:
    """Return the expected value of the better direction at every bar, (paths, bars)."""
    process = standard_markets()[market]
    p_up = process.p_up(process.returns(rng, (ENVS, BARS)), HORIZON)
    return expected_profit(np.maximum(p_up, 1.0 - p_up), PAYOUT)


def _fixed(values: FloatArray, margin: float) -> float:
    busy = np.zeros(len(values), dtype=int)
    total = 0.0
    for bar in values.T:
        enters = (busy == 0) & (bar > margin)
        total += float(bar[enters].sum())
        busy = np.where(enters, HORIZON - 1, np.maximum(busy - 1, 0))
    return total / values.size


class _WaitingEnv(VecEnv):  # type: ignore[misc]  # stable-baselines3 is not installed where types are checked
    """All paths at once, bar by bar: wait or trade; a trade blocks the next bars. Ends never, starts again silently."""

    def __init__(self, values: FloatArray) -> None:
        self._values = values
        space = gymnasium.spaces.Box(-10.0, 10.0, (4,), np.float32)
        super().__init__(len(values), space, gymnasium.spaces.Discrete(2))

    def reset(self) -> Any:
        self._bar = 0
        self._busy = np.zeros(self.num_envs, dtype=int)
        self._mean = np.zeros(self.num_envs)
        return self.observe()

    def observe(self) -> Any:
        value = self._values[:, self._bar]
        self._mean = 0.9 * self._mean + 0.1 * value
        # The scale brings profits of some hundredths of a stake to the size that networks like.
        return np.stack([10 * value, 10 * self._mean, self._busy > 0, self._busy / HORIZON], axis=1).astype(np.float32)

    def step_async(self, actions: Any) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        enters = (self._actions == 1) & (self._busy == 0)
        rewards = np.where(enters, self._values[:, self._bar], 0.0).astype(np.float32)
        self._busy = np.where(enters, HORIZON - 1, np.maximum(self._busy - 1, 0))
        self._bar += 1
        over = self._bar == self._values.shape[1]
        observation = self.reset() if over else self.observe()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        return observation, rewards, np.full(self.num_envs, over), infos

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        _ = indices
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        _ = wrapper_class, indices
        return [False] * self.num_envs


def _learn(values: FloatArray, seed: int) -> PPO:
    torch.set_num_threads(1)
    model = PPO(
        "MlpPolicy",
        _WaitingEnv(values),
        seed=seed,
        gamma=0.99,
        n_steps=64,
        batch_size=1024,
        n_epochs=5,
        learning_rate=lambda left: 1e-3 * left,
        policy_kwargs={"net_arch": [32, 32]},
        device="cpu",
    )
    return model.learn(STEPS)


def _learnt(values: FloatArray, policy: PPO) -> float:
    env = _WaitingEnv(values)
    observation = env.reset()
    total = 0.0
    for _ in range(values.shape[1]):
        actions, _state = policy.predict(observation, deterministic=True)
        env.step_async(actions)
        observation, rewards, _over, _infos = env.step_wait()
        total += float(rewards.sum())
    return total / values.size
