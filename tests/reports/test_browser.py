"""The page in a real browser, from a file, with nothing to fetch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser, Page

from semacdr.comparison import transfer_report
from semacdr.comparison.report import report_on
from semacdr.pipeline import Context
from tests.reports.conftest import HOSTILE
from tests.reports.test_report import evaluated

pytestmark = pytest.mark.slow


@dataclass
class Opened:
    """A page, and what it said and asked for while it was open."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Opened]:
    tab = browser.new_page()
    found = Opened(tab)
    tab.on("console", lambda message: found.said.append(message.text))
    tab.on("pageerror", lambda error: found.said.append(str(error)))
    tab.on("request", lambda request: found.asked.append(request.url))
    tab.goto(page.as_uri())
    yield found
    tab.close()
    assert found.said == []
    assert found.asked == [page.as_uri()]


def test_every_section_is_drawn(opened: Opened):
    tab = opened.page
    assert tab.title() == "toy: gts, full, refit"
    links = tab.locator("nav a")
    targets = [link.get_attribute("href") for link in links.all()]
    assert targets == [f"#{name}" for name in (
        "protocol", "metrics", "groups", "transfer", "curves", "semantics", "gates", "explorer"
    )]  # fmt: skip
    assert all(tab.locator(target).count() == 1 for target in targets)
    assert "popularity" in tab.locator("#metrics table").first.inner_text()
    assert "seeded permutation" in tab.locator("#protocol").inner_text()
    for name in ("groups", "curves", "semantics", "gates"):
        assert tab.locator(f"#{name} svg").count() > 0
    # Axes that were computed from nothing would be labelled NaN.
    assert "NaN" not in tab.content()
    assert "undefined" not in tab.locator("main").inner_text()


def test_where_nothing_was_trained_no_curves_are_drawn(browser: Browser, page: Path, tmp_path: Path):
    head, rest = page.read_text().split('id="document">')
    document, tail = rest.split("</script>", 1)
    without = json.dumps(json.loads(document) | {"curves": []}).replace("<", "\\u003c")
    (tmp_path / "report.html").write_text(f'{head}id="document">{without}</script>{tail}')
    tab = browser.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    assert "Nothing was trained" in tab.locator("#curves").inner_text()
    assert tab.locator("#curves svg").count() == 0
    assert tab.locator("#gates svg").count() > 0
    tab.close()


def test_transfer_and_harm_are_drawn(browser: Browser, context: Context):
    found = [evaluated(context, name) for name in ("semacdr", "semacdr:alone")]
    tab = browser.new_page()
    tab.goto((report_on(context, found, "semacdr").path / "report.html").as_uri())
    header, *rows = [row.split("\t") for row in tab.locator("#transfer table").first.inner_text().splitlines()]
    assert header == ["group", "targets", "gain", "95 % interval", "helped", "harmed", "by chance"]
    shares = transfer_report(found, "semacdr", "hr_10").groups[0].shares
    assert shares.by_chance is not None
    shown = [f"{100 * share:.2f} %" for share in (shares.helped, shares.harmed, shares.by_chance)]
    assert (rows[0][0], rows[0][4:]) == ("all", shown)
    assert tab.locator("#transfer svg").count() == 4
    tab.close()


def test_a_user_is_picked_by_keyboard_and_the_top_ten_shows(opened: Opened, context: Context):
    tab = opened.page
    first = tab.locator(".user h3").first.inner_text()
    tab.locator("#users").focus()
    tab.keyboard.press("ArrowDown")
    heading = tab.locator(".user h3").first.inner_text()
    assert heading != first
    user = heading.removeprefix("User ")
    rows = context.store.get("toy", "recommendations").scan().filter(user_id=user).sort("domain", "rank").collect()
    titles = context.store.get("toy", "items").scan().select("domain", "item_id", "title").collect()
    expected = rows.filter(pl.col("rank") <= 10).join(titles, on=["domain", "item_id"], maintain_order="left")
    shown = tab.locator(".user .list .item")
    assert [one.text_content() for one in shown.all()] == expected["title"].to_list()
    shown.nth(3).focus()
    tab.keyboard.press("Enter")
    card = tab.locator("#item")
    assert card.locator("h3").text_content() == expected["title"][3]
    assert expected["reason"][3] in card.inner_text()
    assert expected["decided_by"][3] in card.inner_text()


def test_a_user_is_found_by_name(opened: Opened, context: Context):
    user = context.store.get("toy", "user_vectors").scan().select("user_id").collect()["user_id"].max()
    opened.page.locator("input[type=search]").fill(user)
    assert opened.page.locator("#users option").count() == 1
    assert opened.page.locator(".user h3").first.inner_text() == f"User {user}"


def test_hostile_texts_stay_texts(opened: Opened):
    tab = opened.page
    for _ in range(2):
        tab.locator("#users").press("ArrowDown")
        for item in tab.locator(".user .item").all():
            item.click()
            assert any(hostile in tab.locator("#item").text_content() for hostile in HOSTILE)
    assert tab.title() == "toy: gts, full, refit"
    assert tab.locator("img, b").count() == 0
    assert tab.locator("script").count() == 2


def test_groups_are_drawn_anew_for_another_metric_and_domain(opened: Opened):
    tab = opened.page
    tab.locator("#groups").get_by_label("Metric").select_option("hr_50")
    tab.locator("#groups").get_by_label("Domain").select_option("films")
    assert tab.locator("#groups figcaption").inner_text() == "HR@50 in each group of targets, films"
    assert tab.locator("#groups svg circle").count() > 0


def test_map_names_the_item_under_the_pointer(opened: Opened):
    tab = opened.page
    figure = tab.locator("#semantics figure:has(output)").first
    figure.locator("svg").hover()
    assert figure.locator("output").text_content().startswith(("books: ", "films: "))
    assert figure.locator("output").text_content() != "Point at the map to read a title."


def test_policy_lets_nothing_else_run(opened: Opened):
    tab = opened.page
    tab.evaluate("""() => {
      const script = document.createElement('script');
      script.textContent = "document.title = 'run'";
      document.body.append(script);
    }""")
    assert tab.title() == "toy: gts, full, refit"
    assert "Content Security Policy" in opened.said.pop()
    assert opened.said == []
