// The sections of the model behind the figures.

const VIEWS = { agnostic: "agnostic text", specific: "specific text", id: "ID", fused: "fused vector" };
const NAMES = ["agnostic", "specific", "id"];

const FITS = {
  "train": "Fit on training events",
  "train-mixed": "The mixed history alone, fitted on training events",
  "refit": "Fit again on training and validation events",
};

function curvesSection({ curves }) {
  return section("curves", "Learning curves",
    curves.length ? curves.map((one) => [
      h("h3", null, FITS[one.fit]),
      h("div", { class: "row" },
        one.step.length ? figure(one.steps_per_point > 1 ? `Loss, mean of ${one.steps_per_point} steps` : "Loss of each step",
          lines([{ name: "loss", x: one.step, y: one.loss }], { xAxis: "step", yAxis: "loss" })) : null,
        one.validation_ndcg_10.some((value) => value !== null) ? figure("NDCG@10 on validation, macro",
          lines([{ name: "NDCG@10", x: one.epoch, y: one.validation_ndcg_10 }], { xAxis: "epoch", yAxis: "NDCG@10", points: true })) : null)])
      : h("p", { class: "soft" }, "Nothing was trained: the experts and their gate score alone."));
}

function probeFigure(probe) {
  const words = { llm_texts: "LLM: texts that an LLM wrote", all_texts: "All: the items' own words among them" };
  const found = Object.entries(probe);
  if (!found.length) return h("p", { class: "soft" }, "The domain probe found too few texts, or one domain alone.");
  const rows = found.flatMap(([which, one]) => ["specific", "agnostic"].map((view) => ({
    label: `${view}, ${which === "llm_texts" ? "LLM" : "all"}`, note: percent(one[view]),
    points: [{ series: NAMES.indexOf(view), value: one[view], title: `${view}, ${words[which]}; ${percent(one[view])}` }] })));
  const [, first] = found[0];
  return figure("Domain probe: how often a linear classifier guesses an item's domain from its text's vector",
    dots(rows, { axis: "accuracy", marks: [{ value: first.chance, label: "chance" }], format: (tick) => percent(tick, 0) }),
    h("p", { class: "small soft" }, "The nearer to chance the agnostic text stands, the less of the domain is left in it. ",
      found.map(([which, one]) => `${words[which]}, ${count(one.items_per_domain_agnostic)} items of each domain. `).join("")));
}

function semanticsSection({ probe, maps }) {
  const domains = [...new Set(maps.items.map(([domain]) => domain))];
  const planes = Object.entries(maps.views).map(([view, plane]) => {
    const points = maps.items.map(([domain, id, title], place) => ({
      x: plane.x[place], y: plane.y[place], series: domains.indexOf(domain), title: `${domain}: ${title ?? id}` }));
    const axis = (place) => `component ${place + 1} (${percent(plane.variance[place])} of the variance)`;
    return figure(VIEWS[view], scatter(points, maps.scale, { xAxis: axis(0), yAxis: axis(1) }));
  });
  return section("semantics", "Semantics",
    probeFigure(probe),
    h("h3", null, "Maps of items"),
    maps.items.length === 0 ? h("p", { class: "soft" }, "Next to no item has both texts: there is nothing to draw.") : [
    h("p", null, `The same ${count(maps.items.length)} items on each, drawn at random, as many of each domain, on the two directions in which `,
      "their vectors differ most. Where domains lie on each other, the view does not tell them apart."),
    legend(domains), h("div", { class: "row narrow" }, planes)]);
}

function gatesSection({ item_weights: items, score_weights: scores }) {
  const domains = [...new Set(items.map((one) => one.domain))];
  const decided = scores.support.map((support) => {
    const rows = scores.decided.filter(([bucket]) => bucket === support);
    const total = rows.reduce((sum, [, , items_]) => sum + items_, 0);
    return { label: support, note: `n ${count(total)}`, total,
      parts: scores.scores.map((score) => rows.filter(([, name]) => name === score).reduce((sum, row) => sum + row[2], 0) / (total || 1)) };
  }).filter((row) => row.total);
  return section("gates", "Gates by support",
    h("p", null, "Support is how many events the fit saw of an item."),
    h("div", { class: "row" }, domains.map((domain) => figure(`Item gate, ${domain}: share of each view in the items' vectors`,
      shares(items.filter((one) => one.domain === domain).map((one) => ({
        label: one.support, note: `n ${count(one.items)}`, parts: NAMES.map((view) => one[view]) })),
      NAMES.map((view) => VIEWS[view]), "mean share by support")))),
    figure("Which score decided the recommended items, by their support", shares(decided, scores.scores, "share of the first ten of all lists")),
    scores.weights === null ? h("p", { class: "soft" }, "This preset has no experts: the trained score is the final one.")
      : h("details", null, h("summary", null, "The score gate's weights"),
        h("p", { class: "small" }, "At the mean query, per unit of each score. Scores differ in their spread: compare along a row alone."),
        table([{ label: "score" }, ...scores.support.map((label) => ({ label, number: true }))],
          [...scores.scores.map((score, place) => [score, ...scores.weights[place].map((weight) => fixed(weight, 3))]),
            ["added to all of this support", ...scores.bias.map((weight) => fixed(weight, 3))]])));
}
