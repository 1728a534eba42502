// The page: shows people, and passes on what their readers do. Everything that they know is in person.js.

import { OUTBOX_MAX, Person } from "./person.js";

const NAMES = ["ada", "ben"];
const STATUS = {
  ready: "Connected",
  connecting: "Connecting …",
  "catching up": "Catching up …",
  waiting: "Reconnecting …",
  closed: "Network is off",
  refused: "Refused",
};
const CLOSE_MS = 5 * 60_000;
const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en", { weekday: "long", day: "numeric", month: "long", year: "numeric" });

// The names of users by their ids, as far as anybody on this page has seen them.
const names = new Map();

for (const name of NAMES) document.querySelector("#people").append(panel(name));

function panel(first_name) {
  const view = document.querySelector("#person").content.cloneNode(true).firstElementChild;
  const find = (selector) => view.querySelector(selector);
  // Everybody who was here keeps what waits to be sent.
  const people = new Map();
  let person;
  let is_on = true;

  function sign_in(name) {
    person?.cut();
    if (!people.has(name)) people.set(name, new Person(name, names, () => person.name === name && show(view, person)));
    person = people.get(name);
    find(".messages").replaceChildren();
    label(view, name);
    if (is_on) person.connect();
    show(view, person);
  }

  find(".network").addEventListener("click", () => {
    is_on = !is_on;
    find(".network").setAttribute("aria-checked", String(is_on));
    if (is_on) person.connect();
    else person.cut();
  });
  find(".who").addEventListener("submit", (event) => {
    event.preventDefault();
    find(".name").blur();
  });
  find(".name").addEventListener("change", ({ target }) => target.value.trim() && sign_in(target.value.trim()));
  find(".earlier").addEventListener("click", () => person.earlier());
  writing(find(".write"), () => person);
  sign_in(first_name);
  return view;
}

// Every control says whose it is: there are several of each on the page.
function label(view, name) {
  view.setAttribute("aria-label", name);
  const labels = {
    ".name": `Name ${name}`,
    ".network": `Network of ${name}`,
    ".scroll": `Messages that ${name} sees`,
    textarea: `Message from ${name}`,
  };
  for (const [selector, label] of Object.entries(labels)) view.querySelector(selector).setAttribute("aria-label", label);
  view.querySelector(".name").value = name;
  view.querySelector("textarea").placeholder = `Write as ${name}`;
}

// Enter sends, Shift and Enter make a new line. The form has `novalidate`: a browser sends no form with a field that was refused,
// and so would never ask again whether there is room.
function writing(form, person) {
  const field = form.elements.body;
  field.addEventListener("input", () => field.value && person().types());
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim() === "") return;
    const is_taken = person().send(field.value);
    field.setCustomValidity(is_taken ? "" : `The outbox is full (${OUTBOX_MAX})`);
    if (is_taken) field.value = "";
    else field.reportValidity();
  });
}

function show(view, person) {
  const find = (selector) => view.querySelector(selector);
  const is_news = view.dataset.phase !== person.phase;
  view.dataset.phase = person.phase;
  text(find(".status"), person.refusal ? person.refusal.message : STATUS[person.phase]);
  show_name(find(".name"), person, is_news);
  find(".earlier").hidden = !person.has_earlier || person.phase !== "ready";
  show_messages(find(".messages"), person);
  text(find(".typing"), typing(person));
  text(find(".here"), here(person));
  show_outbox(find(".outbox"), person);
}

// Another name is what helps after most refusals. Whoever writes elsewhere is not disturbed.
function show_name(field, { phase }, is_news) {
  const is_refused = phase === "refused";
  field.setAttribute("aria-invalid", String(is_refused));
  if (!is_refused || !is_news || document.activeElement !== document.body) return;
  field.focus();
  field.select();
}

function typing({ typing }) {
  const people = [...typing.values()].map(({ name }) => name);
  return people.length === 0 ? "" : `${people.join(" and ")} ${people.length === 1 ? "is" : "are"} typing …`;
}

function here({ phase, here }) {
  if (phase !== "ready") return "";
  const known = here.filter((name) => name !== null).sort();
  const others = here.length - known.length;
  return `Here: ${[...known, ...(others ? [`${others} more`] : [])].join(", ")}`;
}

// Keeps what is there, so that a screen reader hears new messages only.
function show_messages(list, person) {
  const present = new Map([...list.children].map((row) => [row.dataset.key, row]));
  let at = list.firstElementChild;
  for (const { key, version, fill } of rows(person)) {
    const row = present.get(key) ?? document.createElement("li");
    present.delete(key);
    if (row.dataset.version !== version) {
      row.dataset.key = key;
      row.dataset.version = version;
      fill(row);
    }
    if (row === at) at = row.nextElementSibling;
    else list.insertBefore(row, at);
  }
  for (const row of present.values()) row.remove();
}

// The rows of the list: a line for each day, the messages, and what happened to the connection in between.
function* rows(person) {
  const notes = [...person.notes];
  let before = null;
  for (const message of person.messages()) {
    while (notes.length > 0 && notes[0].after_seq < message.seq) yield note(notes.shift());
    const day = DAY.format(new Date(message.created_at));
    const is_new_day = day !== before?.day;
    if (is_new_day) yield { key: `day ${day}`, version: day, fill: (row) => fill(row, "day", element("span", day)) };
    const is_close = !is_new_day && is_continued(before.message, message);
    yield {
      key: message.id,
      version: `${message.version} ${message.deleted_at} ${is_close}`,
      fill: (row) => fill_message(row, message, message.author.id === person.me.id, is_close),
    };
    before = { day, message };
  }
  for (const rest of notes) yield note(rest);
}

function note({ number, text }) {
  return { key: `note ${number}`, version: text, fill: (row) => fill(row, "note", element("span", text)) };
}

function is_continued(before, message) {
  const gap_ms = new Date(message.created_at) - new Date(before.created_at);
  return before.author.id === message.author.id && gap_ms < CLOSE_MS;
}

function fill_message(row, message, is_own, is_close) {
  const author = element("b", message.author.username);
  const body = element("span", message.deleted_at ? "This message was deleted" : message.body);
  body.className = message.deleted_at ? "body gone" : "body";
  const time = element("time", CLOCK.format(new Date(message.created_at)));
  time.dateTime = message.created_at;
  const about = element("small", `#${message.seq} `);
  about.append(time, message.edited_at && !message.deleted_at ? " edited" : "");
  row.dataset.seq = message.seq;
  fill(row, ["message", is_own ? "own" : "", is_close ? "close" : ""].join(" ").trim(), author, body, about);
}

// What waits, with the nonces that make it safe to send it again.
function show_outbox(outbox, person) {
  const refused = person.outbox.filter(({ refusal }) => refusal).length;
  const waits = person.outbox.length - refused;
  outbox.hidden = person.outbox.length === 0 && person.phase !== "closed";
  const parts = [...(waits ? [`${waits} ${waits === 1 ? "waits" : "wait"}`] : []), ...(refused ? [`${refused} refused`] : [])];
  text(outbox.querySelector(".count"), `Outbox: ${parts.join(", ") || "nothing waits"}`);
  // A button that somebody is about to press stays where it is.
  const version = JSON.stringify(person.outbox);
  if (outbox.dataset.version === version) return;
  outbox.dataset.version = version;
  outbox.querySelector("ol").replaceChildren(...person.outbox.map((entry) => waiting(entry, person)));
}

function waiting(entry, person) {
  const row = element("li", "");
  const nonce = element("code", entry.nonce);
  nonce.title = "The nonce: sent again with it, the message is stored only once";
  row.append(element("span", entry.body), nonce);
  if (entry.refusal) {
    const again = element("button", "Send again");
    again.addEventListener("click", () => person.again(entry));
    const drop = element("button", "Discard");
    drop.addEventListener("click", () => person.drop(entry));
    row.append(element("em", entry.refusal.message), again, drop);
  } else if (entry.attempts > 0) {
    row.append(element("small", `sent ${entry.attempts === 1 ? "once" : `${entry.attempts} times`}, no ack yet`));
  }
  return row;
}

function fill(row, name, ...children) {
  row.className = name;
  row.replaceChildren(...children);
}

function element(name, content) {
  const made = document.createElement(name);
  made.textContent = content;
  return made;
}

// A live region is read again whenever it is set.
function text(place, content) {
  if (place.textContent !== content) place.textContent = content;
}
