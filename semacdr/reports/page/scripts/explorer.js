// Pick a user: the histories side by side, the lists, and what is known of an item in them.

const THREADS = { target: "target history", source: "source history", mixed: "mixed history" };

function bar(parts, names) {
  const said = names.map((name, place) => `${name} ${percent(parts[place], 0)}`).join(", ");
  const pieces = parts.map((part, place) => {
    const piece = h("i", { class: colour(place) });
    piece.style.width = `${100 * part}%`;
    return piece;
  });
  return [h("div", { class: "share", role: "img", "aria-label": said }, pieces),
    h("div", { class: "legend small" }, names.map((name, place) =>
      h("span", { class: colour(place) }, h("i"), h("span", null, `${name} ${percent(parts[place], 0)}`))))];
}

function decided(row) {
  if (row.decided_by !== "trained" || !row.history) return row.decided_by ?? "";
  return `trained: ${[THREADS[row.history], VIEWS[row.view]].filter(Boolean).join(", ")}`;
}

function itemCard(item, row, items) {
  const title = (place) => items[place].title ?? "(no title)";
  const text = (view) => [h("h4", null, `${view} text`), h("p", null, item[view] ?? "none")];
  const why = row && [
    h("h4", null, "Why it is in the list"), h("p", null, `${row.reason}.`),
    table([{ label: "decided by" }, { label: "history" }, { label: "view" }, { label: "score", number: true }],
      [[row.decided_by ?? "–", row.history ? THREADS[row.history] : "–", row.view ? VIEWS[row.view] : "–", fixed(row.score, 3)]]),
    row.nearest.length ? [h("h4", null, "Nearest past items, by the cosine of the fused vectors"),
      h("ul", { class: "items" }, row.nearest.map((one) => h("li", null, h("span", { class: "place" }, fixed(one.similarity, 2)),
        `${items[one.item].domain}: ${title(one.item)}`)))] : null];
  const written = { generated: "written by", imported: "imported, written by" };
  return h("div", { class: "card", id: "item", "aria-live": "polite" },
    h("h3", null, item.title ?? "(no title)"),
    h("p", { class: "small soft" }, [item.domain, item.item_id, item.brand].filter(Boolean).join(" · ")),
    why,
    text("agnostic"), text("specific"),
    item.source ? h("p", { class: "small soft" }, item.source === "fallback" ? "Nobody wrote them: the item's own words."
      : `${written[item.source]} ${item.writer}`) : null,
    item.shares ? [h("h4", null, "Share of each view in its vector"), bar(item.shares, NAMES.map((name) => VIEWS[name]))] : null);
}

function explorerSection({ explorer: { users, items, model } }) {
  if (!users.length) return section("explorer", "Explorer", h("p", { class: "soft" }, "No user has a list."));
  const shown = h("div", { class: "user" });
  const card = h("div");
  let pressed = null;
  const opens = new WeakMap();
  const open = (button, item, row) => {
    pressed?.setAttribute("aria-pressed", "false");
    pressed = button;
    button.setAttribute("aria-pressed", "true");
    card.replaceChildren(itemCard(item, row, items));
  };
  const itemButton = (place, row) => {
    const item = items[place];
    const chosen = () => { opens.get(button)(); card.scrollIntoView({ block: "nearest" }); };
    const button = h("button", { class: "item", type: "button", "aria-pressed": "false", onclick: chosen },
      item.title ?? `(no title) ${item.item_id}`);
    opens.set(button, () => open(button, item, row));
    return button;
  };
  const ranked = ([rank, candidates]) => h("span", { class: rank <= 10 ? "tag hit" : "tag", title: `${model}, first seed` },
    `target, rank ${count(rank)} of ${count(candidates)}`);
  const history = (domain, found) => h("div", null,
    h("h4", null, `${domain}: ${count(found.events)} events, the last first`),
    h("ol", { class: "items" }, found.last.map((event) => h("li", null, h("span", { class: "day" }, event.day),
      h("span", null, itemButton(event.item), " ", event.rank ? ranked(event.rank) : null)))));
  const listed = (domain, rows, weights) => h("div", { class: "list" },
    h("h4", null, `${domain}: the top ${rows.length}`),
    h("ol", { class: "items" }, rows.map((row, place) => h("li", null, h("span", { class: "place" }, place + 1),
      h("span", null, itemButton(row.item, row), " ", h("span", { class: "tag" }, decided(row)))))),
    weights ? [h("h4", null, "Share of each history in the user's vector"), bar(weights, Object.values(THREADS))] : null);
  const pick = (user) => {
    pressed = null;
    shown.replaceChildren(
      h("h3", null, `User ${user.user_id}`),
      h("div", { class: "domains" }, Object.entries(user.history).map(([domain, found]) => history(domain, found))),
      h("h3", null, "Recommended"),
      h("div", { class: "domains" }, Object.entries(user.lists).map(([domain, rows]) => listed(domain, rows, user.shares[domain]))));
    card.replaceChildren(h("p", { class: "soft" }, "Choose an item to read its texts, and why it is in the list."));
    opens.get(shown.querySelector(".list .item"))?.();
  };
  const describe = (user) => `${user.user_id}: ${Object.entries(user.history).map(([domain, found]) => `${domain} ${found.events}`).join(", ")}`;
  const select = h("select", { id: "users", onchange: () => pick(users[Number(select.value)]) });
  const none = h("p", { class: "soft" });
  const filter = (words) => {
    const found = users.map((user, place) => [user, place]).filter(([user]) => describe(user).toLowerCase().includes(words.toLowerCase()));
    select.replaceChildren(...found.map(([user, place]) => h("option", { value: place }, describe(user))));
    none.textContent = found.length ? "" : "No user of this sample is called that.";
    if (found.length) pick(found[0][0]);
  };
  filter("");
  return section("explorer", "Explorer",
    h("p", null, `${count(users.length)} users, drawn at random; half of them have a history in several domains, as far as there are such. `,
      "Lists are made from the whole history, so targets of the test stand in it; their ranks were given before."),
    h("div", { class: "controls" },
      h("label", null, "User, and events in each domain", select),
      h("label", null, "Find", h("input", { type: "search", oninput: (event) => filter(event.target.value) }))),
    none,
    h("div", { class: "explorer" }, shown, card));
}
