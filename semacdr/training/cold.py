"""How much is added to the score of cold items, so that lists show as many of them as people take."""

# Shapes: Q queries, I items of one domain, K ranks, N domains.

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semacdr.model.gate import ScoreGate
from semacdr.model.histories import IntArray
from semacdr.model.ranking import CHUNK_SCORES, chunks, left_out
from semacdr.training.sight import Sight
from semacdr.training.validation import CUT, Validation

MAX_QUERIES = 500
"""Of a domain."""


@torch.inference_mode()
def cold_boosts(
    gate: ScoreGate, validation: Validation, sight: Sight, asked: IntArray, share: float
) -> Float[Tensor, " domains"]:
    """Return the boosts with which the first ten ranks hold as many cold items as the targets are.

    The likelihood that the gate is fitted by knows what cold items are worth all together; but they share it among
    many, and none comes up. No boost is below zero, and where no target is cold, none is above.

    Args:
        gate: to which they are added.
        validation: the targets.
        sight: of the experts.
        asked: which targets; ``MAX_QUERIES`` of each domain at most are looked at, evenly spread.
        share: so many times as many cold items are wanted; 0: no boost.
    """
    queries, vocabulary = validation.queries, validation.inputs.vocabulary
    boost_N = torch.zeros(len(vocabulary.domains))
    for domain, (start, stop) in enumerate(vocabulary.bounds):
        of_domain = asked[queries.domain[asked] == domain]
        is_cold = sight.support(queries.item[of_domain], queries.time_s[of_domain]) == 0
        if not share or not is_cold.any() or stop - start <= CUT:
            continue
        some = of_domain[np.unique(np.linspace(0, len(of_domain) - 1, MAX_QUERIES).astype(np.int64))]
        needed = torch.cat(
            [
                _boosts_needed(gate, validation, sight, chosen, domain)
                for chosen in chunks(some, CHUNK_SCORES // (stop - start))
            ]
        )
        needed = needed[needed < torch.inf].sort().values
        at = min(int(share * is_cold.mean() * len(some) * CUT), len(needed)) - 1
        boost_N[domain] = needed[at].clamp(min=0) if at >= 0 else 0.0
    return boost_N


def _boosts_needed(gate: ScoreGate, validation: Validation, sight: Sight, chosen: IntArray, domain: int) -> Tensor:
    """Return, for each query and k, the boost above which ``k`` cold items are among the first ten: [Q * K].

    The k-th cold item has to pass what is the eleventh less k-th of the others then; infinite: there are too few.
    """
    queries, (start, stop) = validation.queries, validation.inputs.vocabulary.bounds[domain]
    final_QI, bucket = sight.final(gate, sight.scores(chosen, domain), queries, chosen, (start, stop))
    row, item = left_out(validation.events, queries, chosen, domain)
    final_QI[torch.from_numpy(row), torch.from_numpy(item - start)] = -torch.inf
    cold_QK, warm_QK = (final_QI.masked_fill(out, -torch.inf).topk(CUT).values for out in (bucket > 0, bucket == 0))
    needed_QK = warm_QK.flip(1) - cold_QK
    # Neither of the two is there.
    return needed_QK.masked_fill(needed_QK.isnan(), torch.inf).flatten()
