"""Who is helped and who is harmed, counted by hand."""

import numpy as np

from semacdr.comparison.transfer import Shares, count_users

USER = np.array([4, 4, 7, 9])
"""The first of three users has two targets."""


def test_users_are_counted_seed_by_seed_beside_what_another_seed_does():
    own = np.array([[1, 0, 0, 1], [1, 1, 0, 0]], np.float64).T
    alone = np.array([[0, 1, 0, 0], [0, 1, 0, 1]], np.float64).T
    # Seed 0: a hit for another one, nothing, helped. Seed 1: helped, nothing, harmed.
    # With the other seed: of the model one is better off and one worse, of the twin one better; then the reverse.
    expected = Shares(helped=(1 + 1) / 2 / 3, harmed=(0 + 1) / 2 / 3, by_chance=(1 + 1 + 0 + 1) / 4 / 3)
    assert count_users(own, alone, USER) == expected


def test_with_one_seed_nobody_knows_what_chance_does():
    assert count_users(np.ones((4, 1)), np.zeros((4, 1)), USER) == Shares(1.0, 0.0, None)


def test_what_adding_up_rounds_changes_nobody():
    own, alone = np.array([[0.1], [0.2], [0.0], [0.0]]), np.array([[0.3], [0.0], [0.0], [0.0]])
    assert own.sum() != alone.sum()
    assert count_users(own, alone, USER) == count_users(alone, own, USER) == Shares(0.0, 0.0, None)
