import numpy as np
import pytest
from scipy import stats

from semacdr.statistics import bootstrap_means, holm, paired_bootstrap


def test_bootstrap_of_one_domain_agrees_with_the_normal_interval():
    rng = np.random.default_rng(0)
    gain = rng.normal(0.1, 1.0, 2_000)
    found = paired_bootstrap(gain, np.arange(2_000), np.zeros(2_000, np.int64))
    half = 1.96 * gain.std() / np.sqrt(2_000)
    assert found.mean == pytest.approx(gain.mean())
    assert found.low == pytest.approx(gain.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(gain.mean() + half, abs=0.15 * half)
    assert found.p == pytest.approx(stats.ttest_1samp(gain, 0).pvalue, abs=0.01)


def test_bootstrap_is_macro_over_domains_whatever_their_sizes():
    gain = np.array([1.0] * 20 + [0.0] * 980)
    domain = np.array([0] * 20 + [1] * 980)
    found = paired_bootstrap(gain, np.arange(1_000), domain)
    assert found.mean == 0.5
    assert found.p == 2 / 2_001


def test_bootstrap_draws_users_with_all_their_targets():
    # Each user's two targets gain alike: as two users each they would seem surer than they are.
    rng = np.random.default_rng(1)
    per_user = rng.normal(0, 1, 200)
    gain, domain = np.repeat(per_user, 2), np.tile([0, 1], 200)
    together = paired_bootstrap(gain, np.repeat(np.arange(200), 2), domain)
    apart = paired_bootstrap(gain, np.arange(400), domain)
    assert together.high - together.low > 1.25 * (apart.high - apart.low)


def test_bootstrap_without_a_difference_is_no_finding():
    found = paired_bootstrap(np.zeros(50), np.arange(50), np.zeros(50, np.int64))
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_few_users_prove_nothing_however_often_they_are_drawn():
    # That three users all gain, or all lose, is two of eight ways to throw three coins; an exact test says so, too.
    gain, user = np.array([0.1, 0.2, 0.3, 0.4, 0.0]), np.array([0, 0, 1, 2, 3])
    assert paired_bootstrap(gain, user, np.zeros(5, np.int64)).p == 0.25
    assert stats.wilcoxon([0.3, 0.3, 0.4]).pvalue == 0.25


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_samples_that_miss_a_domain_tell_nothing_of_it():
    # One user has the only target of the second domain: a sample without them is no sample of gain 0 there.
    gain, domain = np.array([0.5] * 9 + [1.0]), np.array([0] * 9 + [1])
    samples = bootstrap_means(gain, np.arange(10), domain)
    assert set(samples.round(9)) == {0.5, 0.75}
