// The page.

const page = JSON.parse(document.getElementById("document").textContent);
const sections = [summarySection, metricsSection, groupsSection, comparisonSection, transferSection, curvesSection, semanticsSection,
  gatesSection, explorerSection].map((make) => make(page)).filter(Boolean);
document.querySelector("header").append(
  h("h1", null, page.about.title),
  h("p", { class: "soft" }, page.about.evaluations.map((one) => one.artifact).join(", ")));
document.querySelector("main").replaceChildren(
  h("nav", { "aria-label": "Sections" }, sections.map((one) => h("a", { href: `#${one.id}` }, one.querySelector("h2").textContent))),
  ...sections);
