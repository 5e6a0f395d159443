"use strict";
// Everything shown comes from /facts.json (the run's own records) and from the answers; unknown stays unknown.
const WORDS = {
  en: {
    ask: "Ask", asking: "Asking…", shortcut: "Ctrl + Enter", student: "student", teacher: "teacher", saved: "saved",
    meter: "What it has cost so far", unknown: "unknown", requests: "requests", eur: "EUR", wh: "energy, Wh", ms: "last answer, ms",
    empty: "No answer yet.", quiet: "An empty answer.", message: "message",
    note: "Euros and energy are this session's requests at the average per request that the run measured; milliseconds are measured here and now.",
    accuracy: (value, items) => `${(100 * value).toFixed(1)} % right on ${items} items of the evaluation`,
    nokey: (name, url) => `Not asked: start the server with ${url ? "" : "--teacher URL and "}the teacher's key in ${name} to see it here.`,
  },
  fr: {
    ask: "Demander", asking: "En cours…", shortcut: "Ctrl + Entrée", student: "élève", teacher: "professeur", saved: "économisé",
    meter: "Ce que cela a coûté jusqu'ici", unknown: "inconnu", requests: "requêtes", eur: "EUR", wh: "énergie, Wh", ms: "dernière réponse, ms",
    empty: "Pas encore de réponse.", quiet: "Une réponse vide.", message: "message",
    note: "Euros et énergie : les requêtes de cette session, à la moyenne par requête mesurée par l'exécution ; les millisecondes sont mesurées ici et maintenant.",
    accuracy: (value, items) => `${(100 * value).toFixed(1).replace(".", ",")} % de réponses justes sur ${items} questions de l'évaluation`,
    nokey: (name, url) => `Non interrogé : lancez le serveur avec ${url ? "" : "--teacher URL et "}la clé du professeur dans ${name} pour le voir ici.`,
  },
};
const SIDES = ["student", "teacher"];
const state = { language: navigator.language.startsWith("fr") ? "fr" : "en", facts: null, busy: false };
for (const side of SIDES) state[side] = { requests: 0, ms: null, tokens: null, text: null, problem: null };
const byId = (id) => document.getElementById(id);
const say = (word) => WORDS[state.language][word];

function element(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function number(value, digits) {
  if (value === null || value === undefined) return say("unknown");
  return value.toLocaleString(state.language, { maximumSignificantDigits: digits });
}

/** Requests of a side times what one costs; null where the run did not measure it. */
function spent(side, what) {
  const each = state.facts[side].figures[what];
  return each === null ? null : (state[side].requests * each) / 1000;
}

function saved(what) {
  if (!state.facts.asks_teacher) return null;
  const [student, teacher] = SIDES.map((side) => spent(side, what));
  return student === null || teacher === null ? null : teacher - student;
}

function drawCard(side) {
  const { name, figures, key_env: key, base_url: url } = state.facts[side];
  const now = state[side];
  const silent = side === "teacher" && !state.facts.asks_teacher;
  const parts = [element("h2", `${say(side)}: ${name}`)];
  if (figures.accuracy !== null) parts.push(element("p", say("accuracy")(figures.accuracy, figures.items), "soft"));
  if (silent) parts.push(element("p", say("nokey")(key || "TEACHER_KEY", url), "answer empty"));
  else if (now.problem) parts.push(element("p", now.problem, "answer bad"));
  else if (now.text === null) parts.push(element("p", say("empty"), "answer empty"));
  else parts.push(element("p", now.text || say("quiet"), now.text ? "answer" : "answer empty"));
  byId(side).replaceChildren(...parts);
}

function drawMeter() {
  const silent = !state.facts.asks_teacher;
  const rows = [
    ["requests", (side) => number(state[side].requests, 9), () => ""],
    ["eur", (side) => number(spent(side, "eur_1000"), 3), () => number(saved("eur_1000"), 3)],
    ["wh", (side) => number(spent(side, "wh_1000"), 3), () => number(saved("wh_1000"), 3)],
    ["ms", (side) => (state[side].ms === null ? "–" : number(state[side].ms, 9)), () => ""],
  ];
  byId("meter").tBodies[0].replaceChildren(
    ...rows.map(([word, value, difference]) => {
      const row = element("tr", "");
      const cells = SIDES.map((side) => element("td", side === "teacher" && silent ? "–" : value(side)));
      row.dataset.row = word;
      row.append(Object.assign(element("th", say(word)), { scope: "row" }), ...cells, element("td", silent ? "–" : difference()));
      return row;
    }),
  );
}

function draw() {
  document.documentElement.lang = state.language;
  document.title = state.facts.name;
  byId("name").textContent = state.facts.name;
  byId("summary").textContent = state.facts.summary;
  byId("verdict").textContent = state.facts.verdict;
  const other = state.language === "en" ? "fr" : "en";
  byId("language").textContent = { en: "English", fr: "Français" }[other];
  byId("language").lang = other;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of document.querySelectorAll("label[data-field=message]")) node.textContent = say("message");
  byId("ask").textContent = say(state.busy ? "asking" : "ask");
  byId("ask").disabled = state.busy;
  SIDES.forEach(drawCard);
  drawMeter();
}

function drawForm() {
  for (const name of state.facts.fields) {
    const label = element("label", name);
    label.htmlFor = `field-${name}`;
    label.dataset.field = name;
    const box = Object.assign(document.createElement("textarea"), { id: `field-${name}`, name, rows: 1 });
    byId("fields").append(label, box);
  }
  for (const example of state.facts.examples) {
    const chip = element("button", state.facts.fields.map((name) => example[name]).filter(Boolean).join(" · "));
    chip.type = "button";
    chip.addEventListener("click", () => {
      for (const box of document.querySelectorAll("#fields textarea")) box.value = example[box.name] ?? "";
    });
    byId("examples").append(chip);
  }
  byId("examples").hidden = state.facts.examples.length === 0;
}

async function askOne(side, fields) {
  const now = state[side];
  try {
    const response = await fetch("ask", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ who: side, fields }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error.message);
    Object.assign(now, { text: answer.text, ms: answer.ms, tokens: answer.tokens, problem: null, requests: now.requests + 1 });
  } catch (error) {
    now.problem = error.message;
  }
  draw();
}

async function ask(event) {
  event?.preventDefault();
  if (state.busy) return;
  const boxes = [...document.querySelectorAll("#fields textarea")];
  if (!boxes.some((box) => box.value.trim())) return boxes[0].focus();
  const fields = Object.fromEntries(boxes.map((box) => [box.name, box.value.trim()]));
  state.busy = true;
  draw();
  await Promise.all(SIDES.filter((side) => side === "student" || state.facts.asks_teacher).map((side) => askOne(side, fields)));
  state.busy = false;
  draw();
}

async function start() {
  state.facts = await (await fetch("facts.json")).json();
  drawForm();
  draw();
  byId("form").addEventListener("submit", ask);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(event);
  });
  byId("language").addEventListener("click", () => {
    state.language = state.language === "en" ? "fr" : "en";
    draw();
  });
}

start();
