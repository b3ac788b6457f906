// The sections of what was measured.

const MAIN_METRICS = ["hr_10", "ndcg_10", "mrr"];
const GROUPS = {
  all: "all targets", warm: "the fit saw the target item", cold: "the fit never saw the target item",
  "own-0": "no event of the user in the target's domain before it", "own-1-2": "one or two there",
  "own-3-5": "three to five there", "own-6+": "six or more there",
  "source-only": "none there, but some in other domains", overlapping: "the history lies in several domains",
  "single-domain": "the history lies in one domain", new: "the user never had the item before", repeat: "the user had it before",
};
// All targets first, then those of each domain, which have no place in the list.
const placeOf = (group) => (group === "all" ? -2 : Object.keys(GROUPS).indexOf(group));
const byGroup = (a, b) => placeOf(a) - placeOf(b);
const PLOTTED_MODELS = 8;

function read(figures) {
  const rows = figures.rows.map(([model, domain, group, seeds, targets, means, deviations]) => ({
    model, domain, group, seeds, targets,
    mean: Object.fromEntries(figures.metrics.map((metric, place) => [metric, means[place]])),
    deviation: Object.fromEntries(figures.metrics.map((metric, place) => [metric, deviations[place]])),
  }));
  const find = new Map(rows.map((row) => [`${row.model}\n${row.domain}\n${row.group}`, row]));
  return {
    rows, metrics: figures.metrics, domains: figures.domains,
    // How many targets most models have in a group. The target-only twin knows one domain of each history, so its groups are others.
    usual: (domain, group) => {
      const sizes = rows.filter((row) => row.domain === domain && row.group === group).map((row) => row.targets);
      return sizes.sort((a, b) => sizes.filter((size) => size === b).length - sizes.filter((size) => size === a).length)[0];
    },
    models: [...new Set(rows.map((row) => row.model))],
    groups: [...new Set(rows.map((row) => row.group))].sort(byGroup),
    at: (model, domain, group = "all") => find.get(`${model}\n${domain}\n${group}`),
  };
}

function value(row, metric) {
  if (!row || row.mean[metric] === null) return "–";
  const deviation = row.deviation[metric];
  return [fixed(row.mean[metric]), deviation === null ? null : h("span", { class: "deviation" }, ` ±${fixed(deviation)}`)];
}

function setting(about) {
  const said = Object.entries(about.setting).filter(([, found]) => found !== null);
  const words = { ties: "ties", candidate_seed: "seed of the candidates" };
  return h("dl", { class: "legend" },
    said.map(([name, found]) => h("div", null, h("span", { class: "soft" }, `${words[name] ?? name}: `), String(found))));
}

function summarySection({ about }) {
  const origins = (rows) => table([{ label: "artifact" }, { label: "made at (UTC)" }, { label: "commit" }, { label: "hardware" }],
    rows.map((one) => [one.artifact, one.created_at, one.commit || "–", one.hardware]));
  const warnings = about.leaks.filter((one) => one.verdict !== "ok").length;
  return section("protocol", "Protocol",
    setting(about),
    h("h3", null, "Leak linter"),
    about.leaks.length === 0 ? h("p", { class: "warning" }, "These evaluations hold no finding of it.")
      : h("p", null, warnings ? `${warnings} of ${about.leaks.length} findings are warnings.` : "Nothing leaks, as far as it can see."),
    about.leaks.length === 0 ? null : table([{ label: "check" }, { label: "verdict" }, { label: "found" }],
      about.leaks.map((one) => [one.check, h("span", { class: one.verdict === "ok" ? "ok" : "warning" }, one.verdict), one.found])),
    h("details", null, h("summary", null, "What this page was made of"), origins([...about.evaluations, ...about.inputs])));
}

function metricsSection({ figures, training }) {
  const data = read(figures);
  const shown = MAIN_METRICS.filter((metric) => data.metrics.includes(metric));
  const columns = [{ label: "model" }, { label: "seeds", number: true },
    ...data.domains.flatMap((domain) => shown.map((metric) => ({ label: [domain, h("br"), metricName(metric)], number: true })))];
  const best = (domain, metric) => Math.max(...data.models.map((model) => data.at(model, domain)?.mean[metric] ?? -1));
  const ordered = [...data.models].sort((a, b) => (data.at(b, "macro")?.mean.ndcg_10 ?? 0) - (data.at(a, "macro")?.mean.ndcg_10 ?? 0));
  const rows = ordered.map((model) => [model, count(data.at(model, "macro")?.seeds ?? 1),
    ...data.domains.flatMap((domain) => shown.map((metric) => {
      const row = data.at(model, domain);
      return { cell: value(row, metric), best: row?.mean[metric] === best(domain, metric) };
    }))]);
  const all = ordered.map((model) => [model, ...data.metrics.map((metric) => value(data.at(model, "macro"), metric))]);
  const targets = data.domains.map((domain) => `${domain} ${count(data.at(ordered[0], domain).targets)}`).join(", ");
  const took = [{ label: "model" }, { label: "seeds", number: true }, { label: "parameters", number: true },
    { label: "best epoch", number: true }, { label: "validation NDCG@10", number: true }, { label: "CPU s", number: true }];
  return section("metrics", "Metrics",
    h("p", null, `Targets: ${targets}. Macro is the mean over domains. Bold: the highest of its column. ± is the standard deviation over seeds.`),
    table(columns, rows),
    h("details", null, h("summary", null, "Every metric, macro"),
      table([{ label: "model" }, ...data.metrics.map((metric) => ({ label: metricName(metric), number: true }))], all)),
    training.length === 0 ? null : [h("h3", null, "What training took, mean over seeds"),
      table(took, training.map((one) => [one.model, count(one.seeds), count(one.parameters), fixed(one.best_epoch, 1),
        fixed(one.validation_ndcg_10), count(Math.round(one.cpu_seconds))]))]);
}

function groupsSection({ figures }) {
  const data = read(figures);
  const models = [...data.models]
    .sort((a, b) => (data.at(b, "macro")?.mean.ndcg_10 ?? 0) - (data.at(a, "macro")?.mean.ndcg_10 ?? 0)).slice(0, PLOTTED_MODELS);
  const picked = { metric: "ndcg_10", domain: "macro" };
  const place = h("div");
  const draw = () => {
    const rows = data.groups.map((group) => {
      const points = models.map((model, series) => ({ model, series, row: data.at(model, picked.domain, group) }))
        .filter(({ row }) => row && row.mean[picked.metric] !== null && row.targets === data.usual(picked.domain, group))
        .map(({ model, series, row }) => {
          const [mean, deviation] = [row.mean[picked.metric], row.deviation[picked.metric]];
          const spread = deviation === null ? {} : { low: Math.max(0, mean - deviation), high: mean + deviation };
          return { series, value: mean, ...spread, title: `${model}, ${group}: ${fixed(mean)} over ${count(row.targets)} targets` };
        });
      const targets = data.usual(picked.domain, group);
      return { label: group, targets, note: targets ? `n ${count(targets)}` : "", points };
    }).filter((row) => row.points.length);
    const head = [{ label: "group" }, { label: "targets", number: true }, ...models.map((model) => ({ label: model, number: true }))];
    const found = (model, row) => [data.at(model, picked.domain, row.label)].find((one) => one?.targets === row.targets);
    const cells = rows.map((row) => [h("span", { title: GROUPS[row.label] }, row.label), count(row.targets),
      ...models.map((model) => value(found(model, row), picked.metric))]);
    place.replaceChildren(
      figure(`${metricName(picked.metric)} in each group of targets, ${picked.domain}`, legend(models),
        dots(rows, { axis: metricName(picked.metric), base: 0 })),
      table(head, cells));
  };
  const metrics = data.metrics.filter((metric) => !metric.startsWith("coverage"));
  draw();
  return section("groups", "Groups of targets",
    data.models.length > models.length ? h("p", { class: "soft" }, `The ${models.length} best of ${data.models.length} models, by macro NDCG@10.`) : null,
    h("div", { class: "controls" },
      choice("Metric", ["ndcg_10", ...metrics.filter((metric) => metric !== "ndcg_10")].map((metric) => [metric, metricName(metric)]),
        (metric) => { picked.metric = metric; draw(); }),
      choice("Domain", ["macro", ...data.domains.filter((domain) => domain !== "macro")].map((domain) => [domain, domain]),
        (domain) => { picked.domain = domain; draw(); })),
    place,
    h("details", null, h("summary", null, "What the groups are"),
      table([{ label: "group" }, { label: "targets in it" }], data.groups.map((group) => [group, GROUPS[group] ?? ""]))));
}

function forest(rows, metric) {
  return dots(rows.map((one) => ({ label: one.against ?? one.group, note: one.num_targets === undefined ? "" : `n ${count(one.num_targets)}`,
    points: [{ series: one.low > 0 ? 2 : one.high < 0 ? 1 : 6, value: one.mean, low: one.low, high: one.high,
      title: `${one.against ?? one.group}: ${signed(one.mean)} [${signed(one.low)}, ${signed(one.high)}]` }] })),
  { axis: `difference in ${metricName(metric)}, with its 95 % interval`, base: 0, format: (tick, digits) => (tick === 0 ? "0" : signed(tick, digits)) });
}

function comparisonTable(rows) {
  return table([{ label: "less that of" }, { label: "difference", number: true }, { label: "95 % interval", number: true },
    { label: "p", number: true }, { label: "p (Holm)", number: true }],
  rows.map((one) => [one.against, signed(one.mean), `${signed(one.low)} to ${signed(one.high)}`, fixed(one.p), fixed(one.p_holm)]));
}

function comparisonSection({ compared }) {
  if (!compared.comparisons) return null;
  return section("comparison", "Is it more than chance?",
    h("p", null, `${compared.model} less each other row, macro: a paired bootstrap over users, 2,000 samples; p corrected by Holm.`),
    Object.entries(compared.comparisons).map(([metric, rows]) => [
      figure(metricName(metric), forest(rows, metric)), comparisonTable(rows)]));
}

function transferSection({ compared }) {
  if (!compared.transfer) {
    return section("transfer", "Transfer and harm",
      h("p", { class: "soft" }, "Nothing to show: these evaluations hold no target-only twin of the model. ",
        "`semacdr transfer DATASET` trains one and asks the controls; then `semacdr report DATASET` shows it here."));
  }
  return section("transfer", "Transfer and harm",
    h("p", null, `Gain of ${compared.model} over its target-only twin, for whom each user is another one in every domain. `,
      "Helped and harmed: shares of users for whom the sum over their targets is higher, or lower, than the twin's of the same seed. ",
      "By chance: how many another seed of the same model would harm."),
    Object.entries(compared.transfer).map(([metric, { groups, controls }]) => [metric, [...groups].sort((a, b) => byGroup(a.group, b.group)), controls])
      .map(([metric, groups, controls]) => [
      h("h3", null, metricName(metric)),
      h("div", { class: "row" },
        figure("Gain by group", forest(groups, metric)),
        figure("Users harmed (left; dot: by chance) and helped (right)", dots(groups.map((one) => ({
          label: one.group, note: `n ${count(one.num_targets)}`,
          points: [{ bar: true, series: 1, value: -one.harmed, title: `harmed: ${percent(one.harmed)}` },
            { bar: true, series: 2, value: one.helped, title: `helped: ${percent(one.helped)}` },
            ...(one.by_chance == null ? [] : [{ series: 3, value: -one.by_chance, title: `by chance: ${percent(one.by_chance)}` }])] })),
        { axis: "share of users", base: 0, format: (tick) => percent(Math.abs(tick)) }))),
      table([{ label: "group" }, { label: "targets", number: true }, { label: "gain", number: true }, { label: "95 % interval", number: true },
        { label: "helped", number: true }, { label: "harmed", number: true }, { label: "by chance", number: true }],
      groups.map((one) => [one.group, count(one.num_targets), signed(one.mean), `${signed(one.low)} to ${signed(one.high)}`,
        percent(one.helped, 2), percent(one.harmed, 2), one.by_chance == null ? "" : percent(one.by_chance, 2)])),
      h("h4", null, "The model against its twin, and against itself with each control"),
      comparisonTable(controls)]));
}
