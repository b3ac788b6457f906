"""The gate stage: candidates beside what is in production, check by check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import structlog

from semacdr.availability import available
from semacdr.dataset import Gate
from semacdr.gate.lists import TOP, coverage, full_lists, overlap
from semacdr.gate.ranks import paired_ndcg, worse_share
from semacdr.manifest import Facts
from semacdr.store import Artifact
from semacdr.store.promotion import GROUPS
from semacdr.tables import GateChecks

log = structlog.get_logger()

_ALL = "all"
_MIN_SHARED = 30
"""Targets that both models have ranked; with fewer of them, and than half of all, nothing is known."""


@dataclass(frozen=True)
class Side:
    """A candidate or what is in production: its artifacts by name, and its evaluation; empty: there is none."""

    artifacts: Mapping[str, Artifact]

    def version(self, name: str) -> str | None:
        """Return the version of an artifact; None if there is none."""
        return self.artifacts[name].manifest.version if name in self.artifacts else None


@dataclass(frozen=True)
class _Check:
    """One check of one domain."""

    artifact: str
    check: str
    domain: str
    value: float | None
    production_value: float | None
    bound: float | None
    passed: bool
    reason: str


def judge(config: Gate, wanted_recall: float, seed: int, candidate: Side, production: Side, output: Path) -> Facts:
    """Write the table ``gate_checks``, and say in ``details.verdicts`` which versions may go into production.

    Args:
        config: the bounds.
        wanted_recall: of an index.
        seed: of the bootstrap.
        candidate: ``checkpoint``, ``evaluation``, ``index``, ``semantics``, ``sequences``, ``items``, recommendations.
        production: ``checkpoint``, ``evaluation`` of it, ``items`` and ``recommendations``, as far as there are any;
            ``best_checkpoint`` and ``best_evaluation``: of the best that was in production lately.
        output: the artifact's folder.
    """
    checks = [*_of_checkpoint(config, seed, candidate, production), *_of_index(config, wanted_recall, candidate)]
    bad = [check for check in checks if check.artifact == "checkpoint" and not check.passed]
    checks += _of_recommendations(config, candidate, production, checkpoint_passed=not bad)
    versions = {
        group: {"candidate": candidate.version(group), "production": production.version(group)} for group in GROUPS
    }
    rows = [asdict(check) | versions[check.artifact] for check in checks]
    schema = {name: column.dtype for name, column in GateChecks.columns().items()}
    pl.DataFrame(rows, schema=schema).sort("artifact", "check", "domain").write_parquet(output / "gate_checks.parquet")
    verdicts: dict[str, Any] = {}
    for group, names in GROUPS.items():
        reasons = [check.reason for check in checks if check.artifact == group and not check.passed]
        verdict = {"passed": not reasons, "reasons": reasons}
        verdicts |= {candidate.artifacts[name].reference: verdict for name in names}
        log.info("gate", artifact=candidate.artifacts[group].reference, **verdict)
    failed = sum(not check.passed for check in checks)
    return Facts(rows_in=len(checks), details={"verdicts": verdicts}, metrics={"failed_checks": failed}, seed=seed)


def _of_checkpoint(config: Gate, seed: int, candidate: Side, production: Side) -> Iterator[_Check]:
    """NDCG@10 on the targets that both have ranked: refused when a drop beyond the margin is sure enough."""
    evaluation = candidate.artifacts["evaluation"]
    found = _ranks(candidate.artifacts["checkpoint"], evaluation)
    if "checkpoint" in production.artifacts and "evaluation" not in production.artifacts:
        reason = f"{production.artifacts['checkpoint'].reference} is in production and was never evaluated"
        yield _Check("checkpoint", "ndcg_10", _ALL, None, None, None, False, reason)
        return
    if "evaluation" not in production.artifacts:
        for (domain,), ranks in found.group_by("domain", maintain_order=True):
            value = _number(paired_ndcg(ranks, ranks)["candidate"].mean())
            reason = f"{domain}: NDCG@10 {value:.4f} ({evaluation.reference}), nothing to compare with"
            yield _Check("checkpoint", "ndcg_10", str(domain), value, None, None, True, reason)
        return
    of_production = production.artifacts["evaluation"]
    before = _ranks(production.artifacts["checkpoint"], of_production)
    yield from _compared(config, seed, "ndcg_10", candidate, before, of_production)
    best = production.artifacts.get("best_evaluation")
    if best is not None and best.reference != of_production.reference:
        # Ranked so long ago that few targets are shared, it tells nothing; production's own comparison has been made.
        before = _ranks(production.artifacts["best_checkpoint"], best)
        checks = _compared(config, seed, "ndcg_10_best", candidate, before, best)
        yield from (check for check in checks if check.value is not None)


def _compared(
    config: Gate, seed: int, name: str, candidate: Side, before: pl.DataFrame, then_ranked: Artifact
) -> Iterator[_Check]:
    """A check per domain, on the targets that both have ranked."""
    against = "production" if name == "ndcg_10" else "the best of late"
    now_ranked = candidate.artifacts["evaluation"]
    for (domain,), ranks in _ranks(candidate.artifacts["checkpoint"], now_ranked).group_by(
        "domain", maintain_order=True
    ):
        pairs = paired_ndcg(ranks, before)
        if pairs.height < min(_MIN_SHARED, ranks.height / 2):
            reason = f"{domain}: {pairs.height} of {ranks.height} test targets were ranked by both: too few to tell"
            yield _Check("checkpoint", name, str(domain), None, None, None, False, reason)
            continue
        now, then = _number(pairs["candidate"].mean()), _number(pairs["production"].mean())
        margin = config.max_drop * then
        sure = worse_share(pairs, margin, resamples=config.resamples, seed=seed)
        reason = (
            f"{domain}: NDCG@10 {now:.4f} ({now_ranked.reference}), {against} {then:.4f} ({then_ranked.reference})"
            f" on {pairs.height:,} shared targets; {sure:.0%} sure of a drop beyond {margin:.4f}"
            f" (refused from {config.confidence:.0%} on)"
        )
        yield _Check("checkpoint", name, str(domain), now, then, then - margin, sure < config.confidence, reason)


def _ranks(checkpoint: Artifact, evaluation: Artifact) -> pl.DataFrame:
    """The ranks by a checkpoint, in an evaluation of it."""
    preset = checkpoint.manifest.details["preset"]
    ranks = evaluation.scan("evaluation_ranks").filter(pl.col("model") == preset)
    return ranks.select("user_id", "domain", "item_id", "rank").sort("domain", "user_id", "item_id").collect()


def _number(value: object) -> float:
    assert isinstance(value, float)
    return value


def _of_index(config: Gate, wanted_recall: float, candidate: Side) -> Iterator[_Check]:
    for name, facts in sorted(candidate.artifacts["index"].manifest.details["indexes"].items()):
        recall = float(facts["recall_10"])
        reason = f"{name}: recall@10 {recall:.4f} (at least {wanted_recall})"
        yield _Check("index", "recall_10", name, recall, None, wanted_recall, recall >= wanted_recall, reason)
    share = float(candidate.artifacts["semantics"].manifest.metrics.get("failure_share", 0))
    most = config.max_failure_share
    reason = f"{share:.1%} of the LLM's texts failed the audit (at most {most:.0%})"
    yield _Check("index", "failure_share", _ALL, share, None, most, share <= most, reason)


def _of_recommendations(
    config: Gate, candidate: Side, production: Side, *, checkpoint_passed: bool
) -> Iterator[_Check]:
    group = "recommendations"
    reason = "made by a checkpoint that " + ("passed" if checkpoint_passed else "was refused")
    yield _Check(group, "checkpoint", _ALL, None, None, None, checkpoint_passed, reason)
    new = candidate.artifacts[group]
    users = candidate.artifacts["user_vectors"].scan()
    sequences = candidate.artifacts["sequences"].scan()
    items = candidate.artifacts["items"].scan()
    top_k = int(new.manifest.details["top_k"])
    condition = new.manifest.config["recommendations"]["availability"]
    offered = items if condition is None else available(items.collect(), condition).lazy()
    for domain, share in full_lists(new.scan(), users, sequences, offered, top_k).items():
        least = config.min_full_lists
        reason = f"{domain}: {share:.1%} of users have a full list (at least {least:.0%})"
        yield _Check(group, "full_lists", domain, share, None, least, share >= least, reason)
    old = production.artifacts.get(group)
    covered = coverage(new.scan(), items)
    before = coverage(old.scan(), production.artifacts["items"].scan()) if old else {}
    for domain, share in covered.items():
        least_share = before[domain] * (1 - config.max_coverage_drop) if domain in before else None
        passed = least_share is None or share >= least_share
        reason = f"{domain}: {share:.1%} of items are in anyone's first {TOP}"
        reason += f" (at least {least_share:.1%})" if least_share is not None else "; nothing to compare with"
        yield _Check(group, "coverage_10", domain, share, before.get(domain), least_share, passed, reason)
    for domain, share in (overlap(new.scan(), old.scan()) if old else {}).items():
        least = config.min_overlap
        reason = f"{domain}: {share:.1%} of a user's first {TOP} were there before (at least {least:.0%})"
        yield _Check(group, "overlap_10", domain, share, None, least, share >= least, reason)
