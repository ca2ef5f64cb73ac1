// The live tail: new denies on top of a table while the page is looked at. Every page works
// without this file.
//
// <table data-live="/review/live?after=7" data-rows="25"> says where it listens and how many rows
// it keeps; <template data-row> inside it is a row, in which data-cell names what goes where. What
// clients chose comes as JSON and is set as text, never as markup.
"use strict";

for (const table of document.querySelectorAll("table[data-live]")) {
  follow(table, table.tBodies[0], table.querySelector("template[data-row]"));
}

function follow(table, body, template) {
  let source = null;
  let last = "";
  let isPaused = false;
  const sign = signOf(table, () => {
    isPaused = !isPaused;
    isPaused ? stop("paused") : start();
    return isPaused;
  });

  function start() {
    if (source || isPaused) return;
    const url = new URL(table.dataset.live, location.href);
    if (last) url.searchParams.set("after", last);
    source = new EventSource(url);
    source.onopen = () => sign.say("on", "live");
    source.onmessage = (event) => {
      last = event.lastEventId;
      if (event.data) add(JSON.parse(event.data));
    };
    source.addEventListener("trouble", (event) => sign.say("off", JSON.parse(event.data)));
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return sign.say("off", "connecting");
      stop("not live: load the page again");
      sign.say("off", "not live: load the page again");
    };
  }

  function stop(words) {
    if (source) source.close();
    source = null;
    sign.say("", words);
  }

  function add(row) {
    const made = template.content.cloneNode(true);
    for (const cell of made.querySelectorAll("[data-cell]")) {
      cell.textContent = row[cell.dataset.cell];
    }
    for (const a of made.querySelectorAll("a[data-link]")) {
      row.href ? (a.href = row.href) : a.replaceWith(...a.childNodes);
    }
    for (const kind of made.querySelectorAll("[data-class]")) {
      kind.classList.add("class-" + row.class_text);
    }
    for (const times of made.querySelectorAll("[data-times]")) {
      row.count > 1 ? (times.textContent = " ×" + row.count) : times.remove();
    }
    made.firstElementChild.classList.add("fresh");
    body.prepend(made);
    while (body.rows.length > Number(table.dataset.rows || 50)) body.rows[body.rows.length - 1].remove();
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop("waiting");
    else start();
  });
  start();
}

// What says beside the heading whether the table is live, with a button to pause it.
function signOf(table, toggle) {
  const place = document.createElement("span");
  const words = document.createElement("span");
  const button = document.createElement("button");
  place.className = "live";
  words.setAttribute("role", "status");
  words.textContent = "connecting";
  button.type = "button";
  button.textContent = "Pause";
  button.onclick = () => { button.textContent = toggle() ? "Resume" : "Pause"; };
  place.append(words, button);
  const section = table.closest("section");
  section.querySelector("h2").after(place);
  return {
    say(state, text) {
      place.dataset.state = state;
      words.textContent = text;
    },
  };
}
