// Keeps a page up to date. Without it everything works but that: pages are made by the service, and so are news.
//
// A stream says that there are news. Then the page is asked for again, and what is marked `data-live` is made equal to
// it, element by element, where it differs: so focus, selection, scroll position and open details stay. No text is
// ever made into HTML here; the browser does that with the service's own pages, as it does when it opens them.
"use strict";

(() => {
  const FIRST_PAUSE_S = 1;
  const LONGEST_PAUSE_S = 60;
  const SILENCE_S = 50; // three times as long as the service is silent
  const SPREAD_S = 0.3; // those who hear of news at once do not all ask at once
  const AGES_S = 5;
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

  const root = document.documentElement;
  const pulse = document.getElementById("pulse");
  let aheadS = Date.now() / 1000 - Number(root.dataset.now); // of this clock before the service's
  let stream = null;
  let asking = null; // the request for the page that is under way
  let isAskedAgain = false;
  let failures = 0;
  let timer = 0;
  let coming = null; // the next request, after news
  let silence = 0;

  // Ages

  const age = (seconds) => {
    const [size, unit] = UNITS.find(([each]) => seconds >= 2 * each) ?? [1, "s"];
    return `${Math.floor(Math.max(seconds, 0) / size)} ${unit}`;
  };

  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  const tellAges = () => {
    const now = Date.now() / 1000 - aheadS;
    for (const each of document.querySelectorAll("time[data-form]")) {
      const seconds = now - Date.parse(each.dateTime) / 1000;
      if (Number.isNaN(seconds)) continue;
      if (each.dataset.form === "age") say(each, age(seconds));
      else if (each.dataset.form === "left") say(each, age(-seconds));
      else say(each, seconds < 0 ? `in ${age(-seconds)}` : `${age(seconds)} ago`);
    }
  };

  // Making one element equal to another

  const keyOf = (node) => node.dataset?.key || node.id || "";

  const isLike = (node, other) => node.nodeType === other.nodeType && node.nodeName === other.nodeName;

  const copyAttributes = (element, wanted) => {
    for (const { name } of [...element.attributes]) {
      const isOurs = name === "open" && element.nodeName === "DETAILS";
      if (!wanted.hasAttribute(name) && !isOurs) element.removeAttribute(name);
    }
    for (const { name, value } of wanted.attributes) {
      if (element.getAttribute(name) !== value) element.setAttribute(name, value);
    }
  };

  const copyChildren = (element, wanted) => {
    const keys = new Set([...wanted.children].map(keyOf));
    const known = new Map();
    for (const child of [...element.children]) {
      const key = keyOf(child);
      if (key && !keys.has(key)) child.remove();
      else if (key && !known.has(key)) known.set(key, child);
    }
    let place = element.firstChild;
    for (const next of wanted.childNodes) {
      const key = keyOf(next);
      const found = key ? known.get(key) : place && !keyOf(place) ? place : null;
      known.delete(key);
      if (!found || !isLike(found, next)) {
        element.insertBefore(document.importNode(next, true), place);
        continue;
      }
      if (found === place) place = place.nextSibling;
      else element.insertBefore(found, place);
      copy(found, next);
    }
    while (place) {
      const rest = place.nextSibling;
      place.remove();
      place = rest;
    }
  };

  const copy = (node, wanted) => {
    if (node.isEqualNode(wanted)) return;
    if (node.nodeType === Node.ELEMENT_NODE) {
      copyAttributes(node, wanted);
      copyChildren(node, wanted);
    } else if (node.data !== wanted.data) {
      node.data = wanted.data;
    }
  };

  const show = (page) => {
    const focused = document.activeElement;
    for (const wanted of page.querySelectorAll("[data-live][id]")) {
      const shown = document.getElementById(wanted.id);
      if (shown && isLike(shown, wanted)) copy(shown, wanted);
    }
    if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
    const told = page.documentElement.dataset;
    aheadS = Date.now() / 1000 - Number(told.now);
    root.dataset.version = told.version;
    if (document.title !== page.title) document.title = page.title;
    tellAges();
  };

  // News

  const tell = (text, isAway = false) => {
    say(pulse.lastElementChild, text);
    pulse.classList.toggle("away", isAway);
    pulse.hidden = false;
  };

  const isOfThisRelease = (page) =>
    page.querySelector("script[src]")?.getAttribute("src") === document.querySelector("script[src]").getAttribute("src");

  const stop = () => {
    clearTimeout(timer);
    clearTimeout(coming);
    clearTimeout(silence);
    coming = null;
    stream?.close();
    stream = null;
    const request = asking;
    asking = null;
    request?.abort();
    isAskedAgain = false;
  };

  const goOnLater = () => {
    stop();
    failures += 1;
    tell("not live, trying again", true);
    const pause = Math.min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (failures - 1));
    timer = setTimeout(ask, pause * (0.5 + Math.random() / 2) * 1000);
  };

  const take = (request) => {
    const page = request.response;
    if (request.status !== 200 || !page?.documentElement?.dataset.version) {
      goOnLater();
    } else if (!isOfThisRelease(page)) {
      stop();
      tell("there is a newer dashboard: reload", true);
    } else {
      show(page);
      if (!stream) listen();
      if (isAskedAgain) timer = setTimeout(ask, 1000);
    }
  };

  const ask = () => {
    if (asking) {
      isAskedAgain = true;
      return;
    }
    isAskedAgain = false;
    const request = new XMLHttpRequest();
    asking = request;
    request.open("GET", location.pathname + location.search);
    request.responseType = "document";
    request.timeout = 30000;
    request.onloadend = () => {
      if (asking !== request) return;
      asking = null;
      take(request);
    };
    request.send();
  };

  const askNow = () => {
    coming = null;
    ask();
  };

  const hear = () => {
    failures = 0;
    tell("live");
    clearTimeout(silence);
    silence = setTimeout(goOnLater, SILENCE_S * 1000);
  };

  const listen = () => {
    const address = new URL(root.dataset.news, location.origin);
    address.searchParams.set("since", root.dataset.version);
    stream = new EventSource(address);
    stream.onopen = hear;
    stream.onerror = goOnLater;
    stream.addEventListener("beat", hear);
    stream.addEventListener("version", (event) => {
      hear();
      if (event.data !== root.dataset.version) coming ??= setTimeout(askNow, Math.random() * SPREAD_S * 1000);
    });
  };

  const look = () => {
    stop();
    if (document.visibilityState === "visible") ask();
  };

  setInterval(() => document.visibilityState === "visible" && tellAges(), AGES_S * 1000);
  if (root.dataset.version !== undefined) {
    document.addEventListener("visibilitychange", look);
    addEventListener("online", look);
    addEventListener("pagehide", stop);
    addEventListener("pageshow", (event) => event.persisted && look());
    if (document.visibilityState === "visible") listen();
  }
})();
