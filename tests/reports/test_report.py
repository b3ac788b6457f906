from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import CliRunner, Result

from semacdr.cli import main
from semacdr.comparison import Request, evaluate_row, find_row, per_target
from semacdr.comparison.report import compared, report_on
from semacdr.dataset import Protocol
from semacdr.errors import ConfigError
from semacdr.evaluation.task import Setting
from semacdr.model.checkpoint import load_checkpoint
from semacdr.model.gate import NUM_BUCKETS
from semacdr.pipeline import Context, find_stage, run_stage
from semacdr.reports import explorer, gates, maps
from semacdr.reports.page import write_page
from semacdr.store import Artifact
from semacdr.tables import Candidates, FitOn
from tests.reports.conftest import HOSTILE

GTS = Setting(Protocol.GTS, Candidates.FULL, FitOn.REFIT)


def document(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="document">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def evaluated(context: Context, name: str, setting: Setting = GTS) -> Artifact:
    overrides = context.dataset.training.overrides if name.startswith("semacdr") else None
    return evaluate_row(context, Request(find_row(name, overrides), setting, 2))


@pytest.fixture(scope="module")
def data(page: Path) -> dict[str, Any]:
    return document(page)


def test_second_report_is_the_first(context: Context, page: Path):
    assert run_stage(find_stage("report"), context)["report"].path == page.parent


def test_page_does_not_depend_on_anything_else(page: Path):
    text = page.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", text)
    assert text.count("<script") == 2
    assert text.count("</script>") == 2


def test_figures_are_those_of_the_evaluation(context: Context, data: dict[str, Any]):
    rows = context.store.get("toy", "evaluation").scan().collect()
    figures = data["figures"]
    shown = {tuple(row[:3]): dict(zip(figures["metrics"], row[5], strict=True)) for row in figures["rows"]}
    for row in rows.to_dicts():
        assert shown[row["model"], row["domain"], row["group"]][row["metric"]] == pytest.approx(row["value"], abs=1e-5)
    assert data["about"]["setting"]["protocol"] == "gts"
    # Those of training, such as texts that tell the future, stand with the checkpoint.
    found = [context.store.get("toy", name).manifest.details["leaks"] for name in ("evaluation", "checkpoint")]
    assert {one["found"] for one in data["about"]["leaks"]} == {one["found"] for leaks in found for one in leaks}
    assert {one["check"] for one in data["about"]["leaks"]} > {"cuts", "histories", "candidates", "texts"}


def test_explorer_shows_the_last_events_and_the_first_ranks(context: Context, data: dict[str, Any]):
    items, users = data["explorer"]["items"], data["explorer"]["users"]
    assert len(users) == 40
    user = users[0]
    log = context.store.get("toy", "interactions").scan().filter(user_id=user["user_id"]).collect()
    for domain, history in user["history"].items():
        of_domain = log.filter(domain=domain).sort("timestamp_s", "item_id", descending=True)
        assert history["events"] == of_domain.height
        assert [items[event["item"]]["item_id"] for event in history["last"]] == of_domain["item_id"].head(10).to_list()
    ranks = (
        context.store.get("toy", "evaluation").scan("evaluation_ranks").filter(pl.col("model") == "semacdr").collect()
    )
    rows = ranks.select("user_id", "item_id", "rank", "num_candidates").rows()
    known = {(user_id, item_id): [rank, of] for user_id, item_id, rank, of in rows}
    shown = {
        (user["user_id"], items[event["item"]]["item_id"]): event["rank"]
        for user in users for history in user["history"].values() for event in history["last"] if "rank" in event
    }  # fmt: skip
    assert shown
    assert shown.items() <= known.items()


def test_explorer_says_what_is_written_and_known_of_an_item(context: Context, data: dict[str, Any]):
    item = next(one for one in data["explorer"]["items"] if "agnostic" in one)
    texts = (
        context.store.get("toy", "semantics").scan().collect().filter(item_id=item["item_id"], domain=item["domain"])
    )
    assert {item["agnostic"], item["specific"]} == set(texts["text"])
    vector = (
        context.store.get("toy", "item_vectors").scan().collect().filter(item_id=item["item_id"], domain=item["domain"])
    )
    assert item["shares"] == pytest.approx(vector.select("^weight_.*$").row(0), abs=1e-3)


def test_explorer_leaves_users_out_beyond_its_bytes(context: Context, monkeypatch: pytest.MonkeyPatch):
    inputs = {name: context.store.get("toy", name) for name in find_stage("report").inputs}
    evaluations = [inputs["evaluation"]]
    whole = explorer.explorer(inputs, evaluations, "semacdr")
    monkeypatch.setattr(explorer, "MOST_BYTES", 40_000)
    less = explorer.explorer(inputs, evaluations, "semacdr")
    assert 0 < len(less["users"]) < len(whole["users"])
    assert less["users"] == whole["users"][: len(less["users"])]
    assert len(json.dumps(less, ensure_ascii=False)) < 40_000


def test_maps_keep_what_they_can_of_the_distances(context: Context, monkeypatch: pytest.MonkeyPatch):
    inputs = {name: context.store.get("toy", name) for name in ("embeddings", "item_vectors", "items")}
    monkeypatch.setattr(maps, "MAP_ITEMS", 30)
    found = maps.maps(inputs)
    assert found == maps.maps(inputs)
    assert [domain for domain, _, _ in found["items"]].count("books") == 15
    plane = found["views"]["agnostic"]
    rows = pl.DataFrame(found["items"], ["domain", "item_id", "title"], orient="row").join(
        inputs["embeddings"].scan().filter(pl.col("view").cast(pl.String) == "agnostic").collect(),
        on=["domain", "item_id"], maintain_order="left",
    )  # fmt: skip
    centred = rows["vector"].to_numpy() - rows["vector"].to_numpy().mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    assert plane["variance"] == pytest.approx(variances[:2] / variances.sum(), abs=1e-3)
    assert max(map(abs, plane["x"] + plane["y"])) == found["scale"]


def test_maps_of_items_without_texts_are_empty(context: Context, tmp_path: Path):
    embeddings = context.store.get("toy", "embeddings")
    embeddings.scan().collect().head(0).write_parquet(tmp_path / "embeddings.parquet")
    textless = Artifact(embeddings.manifest, lambda: tmp_path)
    vectors = context.store.get("toy", "item_vectors")
    assert maps.maps({"embeddings": textless, "item_vectors": vectors}) == {"items": [], "views": {}, "scale": 1_000}


def test_gates_are_told_by_support(data: dict[str, Any]):
    weights = data["item_weights"]
    assert {one["domain"] for one in weights} == {"books", "films"}
    cold = [one for one in weights if one["support"] == "0 (cold)"]
    assert [one["id"] for one in cold] == [0, 0]
    assert sum(one["items"] for one in weights) == 220
    assert all(one["agnostic"] + one["specific"] + one["id"] <= 1 + 1e-3 for one in weights)
    scores = data["score_weights"]
    assert sum(row[2] for row in scores["decided"]) == 40 * 2 * 10
    assert len(scores["weights"]) == len(scores["scores"])


def test_weights_by_support_are_those_of_the_mean_query(context: Context):
    checkpoint = load_checkpoint(context.store.get("toy", "checkpoint").path)
    assert checkpoint.scoring is not None
    gate = checkpoint.scoring.gate
    torch.nn.init.normal_(gate.cold_by_fact)
    torch.nn.init.zeros_(gate.by_pair)
    found = gates.score_weights(checkpoint, context.store.get("toy", "recommendations"))
    mean_1F, bucket = gate.mean_F[None].clone(), torch.arange(NUM_BUCKETS)
    mean_1F[:, 0] = 1
    columns = found["scores"][:-1]
    assert found["scores"][-1] == "trend"
    nothing = gate(torch.zeros(len(columns), 1, NUM_BUCKETS), mean_1F, bucket, torch.tensor(0.0))
    assert found["bias"] == pytest.approx(nothing[0].tolist(), abs=1e-4)
    ones = gate(torch.ones(len(columns), 1, NUM_BUCKETS), mean_1F, bucket, torch.tensor(0.0))
    total = np.array(found["weights"][:-1]).sum(axis=0) + found["bias"]
    assert total == pytest.approx(ones[0].detach().numpy(), abs=2e-3)


def test_page_escapes_its_title(tmp_path: Path):
    size = write_page(tmp_path / "page.html", {"about": {"title": HOSTILE[0]}, "text": HOSTILE})
    text = (tmp_path / "page.html").read_text()
    assert size == (tmp_path / "page.html").stat().st_size
    assert "&lt;/script&gt;" in text
    assert text.count("</script>") == 2
    assert document(tmp_path / "page.html")["text"] == list(HOSTILE)


def test_compared_holds_what_the_tables_say(context: Context):
    names = ("semacdr", "semacdr:alone", "semacdr:source-off", "title")
    found = [evaluated(context, name) for name in names]
    told = compared(found, "semacdr")
    values = per_target(found, "hr_10")
    assert [one["against"] for one in told["comparisons"]["hr_10"]] == list(names[1:])
    title = next(one for one in told["comparisons"]["hr_10"] if one["against"] == "title")
    means = values.group_by("domain").agg(pl.col("semacdr", "title").mean())
    assert title["mean"] == pytest.approx((means["semacdr"] - means["title"]).mean())
    assert [one["against"] for one in told["transfer"]["hr_10"]["controls"]] == list(names[1:3])
    assert told["transfer"]["hr_10"]["groups"][0]["group"] == "all"


def test_report_on_several_evaluations_moves_no_current(context: Context, page: Path):
    found = [evaluated(context, name) for name in ("title", "random")]
    made = report_on(context, found, "title")
    assert report_on(context, found, "title").reference == made.reference
    aliases = context.store.aliases("toy", "report")
    assert aliases["gts-full-refit"] == made.manifest.version
    assert context.store.get("toy", "report").path == page.parent
    told = document(made.path / "report.html")
    assert {row[0] for row in told["figures"]["rows"]} == {"title", "random"}
    assert "transfer" not in told["compared"]
    other = evaluated(context, "random", Setting(Protocol.LOO, Candidates.FULL, FitOn.TRAIN))
    with pytest.raises(ConfigError, match="cannot share a table"):
        report_on(context, [found[0], other], "title")
    with pytest.raises(ConfigError, match="no evaluation of 'semacdr' in this table"):
        report_on(context, found, "semacdr")


def call(context: Context, store: Path, *more: str) -> Result:
    runner = CliRunner(env={"SEMACDR_CACHE": str(context.settings.cache), "SEMACDR_THREADS": "1"})
    toml = context.settings.cache.parent / "toy.toml"
    return runner.invoke(main, ["report", str(toml), "--store", str(store), *more])


def test_command_without_comparisons_writes_the_runs_own_page(context: Context, page: Path, tmp_path: Path):
    shutil.copytree(context.settings.store, tmp_path / "store")
    for alias in (tmp_path / "store/toy/evaluation").glob("gts-*"):
        alias.unlink()
    done = call(context, tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert f"{page.parent.name}/report.html" in done.output
    other = call(context, tmp_path / "store", "--protocol", "loo", "--fit", "train", "--candidates", "sampled-999")
    assert other.exit_code == 2
    assert "no evaluation of loo, sampled-999, train" in " ".join(other.output.split())


def test_command_compares_what_is_named_and_refuses_what_is_not_there(context: Context):
    evaluated(context, "title")
    store = Path(context.settings.store)
    done = call(context, store, "gts-full-refit-title", "--model", "title")
    assert done.exit_code == 0, done.output
    made = context.store.get("toy", "report", "gts-full-refit")
    assert f"{made.reference}: " in done.output
    assert call(context, store, "none-such").exit_code == 1
    assert call(context, store, "--protocol", "gtx").exit_code == 2
