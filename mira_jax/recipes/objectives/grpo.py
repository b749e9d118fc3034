"""GRPO (Shao et al. 2024, arXiv 2402.03300) on episodes, with a mask of the steps that are credited, as Anchor-GRPO needs it
(WebAnchor, arXiv 2601.03164).

In order of computation:

    1  reward      R = 1 for a success that ended with exit(), 0 for other episodes; or R_plan, the grade of the first response
    2  advantage   A = (R - mean) / (std + eps) over the attempts at a task                             `rl.groups`
    3  credit      all steps, the first step (the plan), or the steps after it (the execution)
    4  loss        L = -w min(rho A, clip(rho) A) + kl_weight KL(pi || pi_ref) per response token       `rl.policy_gradient`

Anchor-GRPO is two runs. The first has the reward and the credit of the plan, the second the reward of the outcome and the credit of the
execution. GRPO has the reward of the outcome and the credit of all steps, First-step GRPO the reward of the outcome and the credit of the
plan.

Groups without a spread of rewards are left out and counted. Episodes with an infrastructure error are neither rewarded nor compared. An
episode that ran out of steps has no reward, whatever its outcome, and a plan that was cut at the token limit has none.

The episodes must have been drawn at temperature 1 from the whole vocabulary, and record the log-probability of each token. `mira online`
also computes them with the trainer's own weights, as pi_old. Without that, as in `mira train`, pi_old is what the sampler reported.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mira_jax.config import NonNegative, Positive
from mira_jax.data.steps import step_examples
from mira_jax.errors import UserError
from mira_jax.recipes.base import OLD, REFERENCE, Prepared, TokenShape
from mira_jax.recipes.labels import mean, read_labels
from mira_jax.rl import policy_gradient
from mira_jax.rl.groups import Scale, group_advantages
from mira_jax.training.log_probs import response_hidden, token_entropies, token_log_probs
from mira_jax.training.metrics import Mean
from mira_jax.trajectories.records import Status, Trajectory
from mira_jax.trajectories.side_tables import SideTable
from mira_jax.trajectories.token_columns import TokenColumn

SAMPLER = "sampler_log_prob"
"""Token column: log mu, by the sampler."""


@dataclasses.dataclass(frozen=True)
class GRPO:
    reward: Literal["outcome", "plan"] = "outcome"
    """outcome: 1 for a success, 0 otherwise. plan: the grade of the first response (`mira label`, `plan`)."""
    credit: Literal["all", "plan", "execution"] = "all"
    """Which steps are trained on: all, the first one, or those after it."""
    scale: Scale = "std"
    """std: advantages are divided by the standard deviation of the group. none: they are not."""
    clip_low: Positive = 0.2
    """A token with a negative advantage is pushed down until its probability is this share lower than at the start of the updates."""
    clip_high: Positive = 0.2
    """A token with a positive advantage is pushed up until its probability is this share higher."""
    kl_weight: NonNegative = 0.001
    """Weight of KL(pi || pi_ref), where pi_ref is `init_from`. 0: it is not computed."""
    kl: policy_gradient.KL = "k3"
    """Its estimate."""
    max_importance: Positive = 2.0
    """Upper bound of the importance weights that correct for the sampler."""
    normalize: Literal["tokens", "episodes"] = "episodes"
    """tokens: the mean over the credited tokens of a batch. episodes: the sum over the credited tokens of an episode, divided by `length`,
    averaged over episodes; the weight of a token then does not depend on the length of its episode."""
    length: Positive = 100.0
    """episodes: the constant that sums over tokens are divided by. About the number of credited tokens of an episode."""
    entropy_weight: NonNegative = 0.0
    """Adds min(weight H, |A| / entropy_kappa) to the advantage of a token, where H is the entropy in nats. 0: not computed."""
    entropy_kappa: Positive = 2.0
    """Bound of the share of the advantage that entropy adds."""

    name: ClassVar[str] = "actor"
    objective: ClassVar[str] = "grpo"
    heads: ClassVar[tuple[str, ...]] = ()
    reads_responses: ClassVar[bool] = True
    examples = staticmethod(step_examples)

    @property
    def token_columns(self) -> dict[str, TokenShape]:
        """The token columns that the loss reads in online training."""
        return dict.fromkeys((SAMPLER, OLD, *((REFERENCE,) if self.kl_weight else ())), TokenShape())

    def prepare(self, reader: Sequence[Trajectory], tables: Sequence[SideTable]) -> Prepared:
        """Columns: `advantage` and `episode_share`, 1 / the number of credited steps of the episode. Token column: `sampler_log_prob`.

        Raises:
            UserError: episodes are not labelled, were not drawn at temperature 1, or their log-probs are not recorded.
        """
        episodes = _Episodes(self.reward)
        labels = read_labels(episodes.read(reader))
        first = np.flatnonzero(labels.numbers == 0)
        rewards, valid = np.array(episodes.rewards, np.float32), labels.sound[first]
        groups = group_advantages(rewards, labels.task[first], valid, self.scale)
        episode = np.cumsum(labels.numbers == 0) - 1
        credited = {"all": labels.numbers >= 0, "plan": labels.numbers == 0, "execution": labels.numbers > 0}[self.credit]
        sampled = np.array(episodes.sampled, bool)
        keep = groups.used[episode] & credited & sampled & labels.sound
        steps = np.bincount(episode[keep], minlength=len(first))
        share = np.where(keep, 1 / np.maximum(steps[episode], 1), 0).astype(np.float32)
        summary = {
            "episodes": int(valid.sum()), "reward": mean(rewards[valid]), "reward_std": float(rewards[valid].std()) if valid.any() else 0.0,
            "success_rate": mean(labels.success[first][valid]), "groups": groups.groups, "groups_without_spread": groups.without_spread,
            "groups_too_small": groups.too_small, "infra_errors": int((~valid).sum()),
            "steps_not_sampled": int((~sampled & credited & labels.sound).sum()), "kept_share": mean(keep[labels.sound]),
        }  # fmt: skip
        columns = {"advantage": groups.advantages[episode], "episode_share": share}
        return Prepared(keep, columns, token_columns={SAMPLER: TokenColumn.of(episodes.log_probs)}, summary=summary)

    def loss(self, model: nnx.Module, batch: dict[str, jax.Array]) -> tuple[Mean, dict[str, Mean]]:
        mask = batch["response_mask"]
        hidden_BxRxD = response_hidden(model, batch)
        log_prob = token_log_probs(model, hidden_BxRxD, batch["response_targets"]) * mask
        sampler = batch[SAMPLER]
        old = batch.get(OLD, sampler)
        advantage = jnp.take_along_axis(batch["advantage"], batch["response_segment"], axis=1)
        metrics = {}
        if self.entropy_weight:
            entropy = token_entropies(model, hidden_BxRxD)
            advantage = advantage + policy_gradient.entropy_shaping(entropy, advantage, self.entropy_weight, self.entropy_kappa)
            metrics["entropy"] = _mean(entropy, mask)
        clip = (log_prob, old, advantage, self.clip_low, self.clip_high)
        weight = policy_gradient.truncated_importance(old, sampler, self.max_importance)
        loss = -weight * policy_gradient.clipped_surrogate(*clip)
        if self.kl_weight:
            if REFERENCE not in batch:
                raise UserError("recipe.kl_weight: only `mira online` computes the probabilities of the reference; set it to 0")
            kl = policy_gradient.kl_estimate(log_prob, batch[REFERENCE], self.kl)
            loss = loss + self.kl_weight * kl
            metrics["kl"] = _mean(kl, mask)
        metrics |= {
            "nll_per_token": _mean(-log_prob, mask),
            "ratio": _mean(jnp.exp(log_prob - old), mask),
            "clipped": _mean(policy_gradient.is_clipped(*clip), mask),
            "sampler_difference": _mean(jnp.abs(old - sampler), mask),
            "importance_truncated": _mean(jnp.exp(old - sampler) > self.max_importance, mask),
        }
        total = jnp.sum(loss * mask)
        if self.normalize == "tokens":
            return Mean(total, jnp.sum(mask)), metrics
        return Mean(total / self.length, jnp.sum(batch["episode_share"] * batch["step_mask"])), metrics


def _mean(values_BxR: jax.Array, mask_BxR: jax.Array) -> Mean:
    return Mean(jnp.sum(values_BxR * mask_BxR), jnp.sum(mask_BxR))


class _Episodes:
    """What the objective reads of each episode in addition to its labels."""

    def __init__(self, reward: str):
        self._reward = reward
        self.rewards: list[float] = []
        """One per episode with steps. 0 for an infrastructure error, which is not used."""
        self.sampled: list[bool] = []
        """For each step, whether the policy drew its response."""
        self.log_probs: list[Sequence[float]] = []
        """For each step, log mu of its tokens. Empty if it was not drawn."""

    def read(self, trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """Passes the trajectories on. Raises UserError."""
        for trajectory in trajectories:
            if trajectory.steps:
                sound = trajectory.status is not Status.INFRA_ERROR
                self.rewards.append(self._reward_of(trajectory) if sound else 0.0)
                for step in trajectory.steps:
                    drawn = sound and step.token_ids is not None
                    if drawn and step.log_probs is None:
                        raise UserError(
                            f"trajectory {trajectory.id}: step {step.index} has tokens without log-probs; the ratio needs them; use "
                            "an endpoint that returns them (mira_jax.serve, vLLM, SGLang)"
                        )
                    self.sampled.append(drawn)
                    self.log_probs.append((step.log_probs or ()) if drawn else ())
                if sound:
                    self._check_sampling(trajectory)
            yield trajectory
        if self.sampled and not any(self.sampled):
            raise UserError(
                "data.folders: no step has the tokens that the policy drew, since its endpoint returned none or it is a script; "
                "use an endpoint that returns token ids and log-probabilities (mira_jax.serve, vLLM, SGLang)"
            )

    def _reward_of(self, trajectory: Trajectory) -> float:
        if self._reward == "outcome":
            return float(trajectory.success and trajectory.status is not Status.HORIZON)
        if trajectory.plan_grade is None:
            raise UserError(f"trajectory {trajectory.id} has no grade of its plan; label these episodes with plan.kind (`mira label`)")
        return 0.0 if trajectory.steps[0].cut else trajectory.plan_grade.score

    @staticmethod
    def _check_sampling(trajectory: Trajectory) -> None:
        policy = trajectory.policy
        if any(step.token_ids is not None for step in trajectory.steps) and (policy.temperature, policy.top_p, policy.top_k) != (1, 1, 0):
            raise UserError(
                f"trajectory {trajectory.id}: drawn with temperature {policy.temperature:g}, top_p {policy.top_p:g}, top_k {policy.top_k}; "
                "the objective needs draws from the model itself: collect with policy.temperature=1 and without top_p and top_k"
            )
