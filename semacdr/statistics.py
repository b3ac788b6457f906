"""Is a difference more than chance? Paired bootstrap over users, and Holm's correction for several questions."""

# Shapes: T targets, S bootstrap samples, U users.

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLES = 2_000
_SAMPLES_AT_A_TIME = 200

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """How much higher one mean is than another, macro over domains."""

    mean: float
    low: float
    """2.5 % of the bootstrap samples lie below."""
    high: float
    p: float
    """Two-sided: how often so large a difference comes up if there is none. At least 2 / (samples + 1), and as often as
    the n users who differ all happen to differ in one direction, 2 / 2^n: drawing few users again knows no more."""


def paired_bootstrap(
    gain_T: FloatArray, user_T: IntArray, domain_T: IntArray, *, samples: int = SAMPLES, seed: int = 0
) -> Difference:
    """Return the macro mean of per-target gains, and how sure it is: whole users are drawn, with all their targets.

    Args:
        gain_T: one model's value of each target less the other's, both means over seeds.
        user_T: whose target it is.
        domain_T: where; the macro mean is over domains with targets.
        samples: bootstrap samples.
        seed: of the samples.
    """
    every_user_U = np.ones((1, int(user_T.max()) + 1))
    mean = float(_macro_means(gain_T, user_T, domain_T, every_user_U)[0])
    sample_S = bootstrap_means(gain_T, user_T, domain_T, samples=samples, seed=seed)
    least = min(int((sample_S <= 0).sum()), int((sample_S >= 0).sum()))
    num_differ = len(np.unique(user_T[gain_T != 0]))
    p = min(1.0, max(2 * (least + 1) / (samples + 1), 2.0 ** (1 - num_differ)))
    low, high = np.quantile(sample_S, [0.025, 0.975])
    return Difference(mean, float(low), float(high), p)


def bootstrap_means(
    gain_T: FloatArray, user_T: IntArray, domain_T: IntArray, *, samples: int = SAMPLES, seed: int = 0
) -> FloatArray:
    """Return the macro mean of per-target gains in each bootstrap sample; see ``paired_bootstrap``."""
    user_T = np.unique(user_T, return_inverse=True)[1]
    num_users = int(user_T.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, samples, _SAMPLES_AT_A_TIME):
        size = min(_SAMPLES_AT_A_TIME, samples - start)
        times_SU = rng.multinomial(num_users, np.full(num_users, 1 / num_users), size).astype(np.float64)
        drawn.append(_macro_means(gain_T, user_T, domain_T, times_SU))
    return np.concatenate(drawn)


def _macro_means(gain_T: FloatArray, user_T: IntArray, domain_T: IntArray, times_SU: FloatArray) -> FloatArray:
    """The macro means with each user counted so many times."""
    means, num_users = [], times_SU.shape[1]
    # A sample that misses a domain tells nothing of it.
    for domain in np.unique(domain_T):
        here = domain_T == domain
        total_U = np.bincount(user_T[here], gain_T[here], minlength=num_users)
        count_U = np.bincount(user_T[here], minlength=num_users).astype(np.float64)
        num_targets_S = times_SU @ count_U
        means.append(np.where(num_targets_S > 0, (times_SU @ total_U) / np.maximum(num_targets_S, 1), np.nan))
    macro_S: FloatArray = np.nanmean(means, axis=0)
    return macro_S


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (Holm 1979), in the order given."""
    order = np.argsort(p, kind="stable")
    adjusted = np.zeros(len(p))
    highest = 0.0
    for place, which in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - place) * p[which]))
        adjusted[which] = highest
    return adjusted.tolist()
