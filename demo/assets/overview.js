// The page that shows the provider and both apps. It hears from them what they show (report.js), and from the demo
// what happens between them (/live).
"use strict";

const panes = new Map([...document.querySelectorAll(".window")].map((el) => [el.id, {
  el, frame: el.querySelector("iframe"), pill: el.querySelector(".pill"), url: el.dataset.url, state: "away", user: "", tried: 0,
}]));
const apps = [...panes.values()].filter((p) => p.el.classList.contains("app"));
const names = Object.fromEntries([...panes].map(([id, p]) => [id, p.el.querySelector("h2").textContent]));
const words = { in: "", out: "Not signed in", ended: "Signed out", login: "Signing in …", away: "" };
let journal = { sessions: 0, opened: "", stories: [] };
let reached = 0; // how far the visitor has come in the list of what to do

function make(tag, className, text) {
  const el = document.createElement(tag);
  if (className) el.className = className;
  if (text !== undefined) el.textContent = text;
  return el;
}

addEventListener("message", (e) => {
  const pane = [...panes.values()].find((p) => p.frame.contentWindow === e.source);
  if (!pane || ![...panes.values()].some((p) => p.url === e.origin)) return;
  pane.state = e.data.state in words ? e.data.state : "out";
  pane.user = String(e.data.user);
  if (pane.state !== "away") { // between two pages the old word stands, so that nothing flickers
    pane.el.dataset.state = pane.state;
    pane.pill.textContent = pane.state === "in" ? pane.user : words[pane.state];
  }
  todo();
  follow();
});

// Signed in at one app, the other asks the provider without a word (prompt=none), as single sign-on is meant to work. An
// app alone in its tab does that when one clicks "Sign in": it takes one click more, and no password.
function follow() {
  for (const p of apps) {
    if (p.state === "in" || p.el.id === journal.opened) {
      p.tried = journal.sessions;
    } else if ((p.state === "out" || p.state === "ended") && p.tried < journal.sessions) {
      p.tried = journal.sessions;
      p.state = "away";
      p.frame.contentWindow.location.replace(p.url + "/auth/login?silent=true&return_to=/");
    }
  }
}

function todo() {
  const ins = apps.filter((p) => p.state === "in").length;
  const outs = apps.filter((p) => p.state === "out" || p.state === "ended").length;
  if (reached === 4 && apps.some((p) => p.state === "login" || p.state === "in")) reached = 0; // once more
  if (ins > 0 && reached < 1) reached = 1;
  if (ins === apps.length) reached = 2;
  if (reached === 2 && outs > 0) reached = 3;
  if (reached === 3 && outs === apps.length) reached = 4;
  [...document.querySelectorAll("#todo li")].forEach((li, i) => {
    li.className = i < reached ? "done" : i === reached ? "now" : "";
    if (i === reached) li.setAttribute("aria-current", "step"); else li.removeAttribute("aria-current");
  });
}

function drawLog() {
  const log = document.getElementById("log");
  const open = new Set([...log.querySelectorAll("details[open]")].map((d) => d.dataset.number));
  log.replaceChildren(...journal.stories.map((story, i) => {
    const details = make("details");
    details.dataset.number = story.number;
    details.open = i === 0 || open.has(String(story.number)) && story.number !== journal.stories[1]?.number;
    const summary = make("summary");
    summary.append(make("b", "", story.title), make("time", "", story.clock));
    const list = make("ol");
    for (const s of story.steps) {
      const li = make("li", s.kind);
      li.append(make("span", "at", "+" + s.at.toFixed(1) + " ms"), make("span", "by " + s.who, names[s.who] || s.who), make("span", "what", s.what));
      list.append(li);
    }
    details.append(summary, list);
    return details;
  }));
}

const meaning = {
  typ: "what kind of token it is", alg: "how it is signed",
  iss: "who says so", aud: "to which app", sub: "who is signed out", sid: "which sign-in of theirs", events: "what it asks for",
  iat: "when it was made", exp: "and until when it counts", jti: "so that it counts once",
};

function value(name, v) {
  if (name === "iat" || name === "exp") return new Date(v * 1000).toTimeString().slice(0, 8);
  if (name === "events") return Object.keys(v).map((k) => k.replace(/^.*\/event\//, "…/")).join(", ");
  return typeof v === "string" ? v : JSON.stringify(v);
}

let chosen = "";
function drawTokens() {
  const story = journal.stories.find((s) => s.tokens);
  if (!story) return;
  const token = story.tokens.find((t) => t.app === chosen) || story.tokens[0];
  const which = document.getElementById("which");
  which.replaceChildren(...story.tokens.map((t) => {
    const button = make("button", t.app, "for " + (names[t.app] || t.app));
    button.type = "button";
    button.setAttribute("aria-pressed", t === token);
    button.onclick = () => {
      chosen = t.app;
      drawTokens();
      which.children[story.tokens.indexOf(t)].focus();
    };
    return button;
  }));
  const table = make("table");
  for (const part of [token.header, token.claims]) {
    const order = Object.keys(meaning);
    const body = table.createTBody();
    for (const name of Object.keys(part || {}).sort((a, b) => order.indexOf(a) - order.indexOf(b))) {
      if (name === "kid") continue; // of no interest here
      const row = body.insertRow();
      const head = make("th", "", name);
      head.scope = "row";
      const cell = make("td", "value", value(name, part[name]));
      cell.title = typeof part[name] === "string" ? part[name] : JSON.stringify(part[name]);
      row.append(head, cell, make("td", "means", meaning[name] || ""));
    }
  }
  document.getElementById("tokens").replaceChildren(table);
}

// The window of whoever does something lights up for a moment.
let seen = "";
function flash() {
  const story = journal.stories[0];
  const steps = story ? story.steps : [];
  const from = seen.startsWith(story?.number + "/") ? Number(seen.split("/")[1]) : 0;
  for (const s of steps.slice(from)) {
    const el = panes.get(s.who)?.el;
    el?.animate?.([{ boxShadow: "0 0 0 3px var(--actor)" }, { boxShadow: "0 0 0 3px transparent" }],
      matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 900);
  }
  seen = story ? story.number + "/" + steps.length : "";
}

new EventSource("/live").onmessage = (e) => {
  journal = JSON.parse(e.data);
  if (journal.stories?.length) {
    drawLog();
    drawTokens();
    flash();
  }
  follow();
};
todo();
