"""EASE (Steck 2019): item-to-item weights that rebuild each user's items from the others', in closed form.

With X (users x items), P = (X'X + ridge)^-1 and B = I - P / diag(P), a history x scores x B. Users are fewer than items
here and the identity of Woodbury needs only a matrix of users: P = (I - X' (XX' + ridge)^-1 X) / ridge, exactly.
"""

# Shapes: U users with events in the fit, I1 items and the padding, Q queries.

import numpy as np
import torch
from scipy import linalg, sparse
from torch import Tensor

from semacdr.errors import DataError
from semacdr.model.histories import Events, IntArray, Queries, ragged
from semacdr.model.ranking import Scorer
from semacdr.model.vocabulary import Vocabulary

MAX_USERS = 20_000
"""Their matrix takes 3.2 GB at that."""


def ease_scorer(fit: Events, events: Events, queries: Queries, vocabulary: Vocabulary, ridge: float) -> Scorer:
    """Return EASE, fitted on all domains' events together.

    Args:
        fit: the events that it is fitted on.
        events: that histories are cut from.
        queries: that are asked.
        vocabulary: of the items.
        ridge: weight of the penalty.

    Raises:
        DataError: there are more users than a matrix of them has room for.
    """
    if fit.num_users > MAX_USERS:
        raise DataError(
            "ease: too many users", found=fit.num_users, expected=f"at most {MAX_USERS}", do="leave this floor out"
        )
    width = vocabulary.num_items + 1
    x_UI = _bag(np.repeat(np.arange(fit.num_users), np.diff(fit.offsets)), fit.item, (fit.num_users, width))
    gram_UU = (x_UI @ x_UI.T).toarray().astype(np.float64)
    gram_UU[np.diag_indices_from(gram_UU)] += ridge
    inverse_UU = linalg.inv(gram_UU, overwrite_a=True, check_finite=False).astype(np.float32)
    kept_I1 = np.asarray(x_UI.multiply(inverse_UU @ x_UI).sum(axis=0)).ravel()
    diagonal_I1 = (1 - kept_I1).clip(min=1e-6)

    def scores(chosen: IntArray, domain: int) -> Tensor:
        start, stop = vocabulary.bounds[domain]
        row, index = ragged(events.offsets[queries.user[chosen]], queries.stop[chosen])
        history_QI = _bag(row, events.item[index], (len(chosen), width))
        rebuilt_QI = (history_QI @ x_UI.T).toarray() @ inverse_UU @ x_UI[:, start:stop]
        here_QI = history_QI[:, start:stop].toarray()
        score_QI = here_QI - (here_QI - rebuilt_QI) / diagonal_I1[start:stop]
        return torch.from_numpy(score_QI.astype(np.float32))

    return scores


def _bag(row: IntArray, item: IntArray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """A matrix of ones: who had what."""
    bag = sparse.csr_matrix((np.ones(len(row), np.float32), (row, item)), shape=shape)
    bag.data[:] = 1
    return bag
