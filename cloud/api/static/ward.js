// The ward station. Law: the page decides by its own monotonic clock whether it is live; silence
// of the stream is seen here, not waited for. Beds stand in the order the server gives, which is
// fixed; an alarm never moves a tile.

import { Bed, RANK, clockText } from "./tile.js";
import { Sound } from "./sound.js";

const BEAT_LOST_MS = 6000, DARK_MS = 10000, GAP_MS = 5000, NOTE_MS = 120000, AGAIN_MS = 250, TICK_MS = 250, DRIFT_PER_MS = 0.0002;
const $ = (id) => document.getElementById(id);
const beds = new Map();
const station = { dark: false, trustAfter: -Infinity, names: true, colours: {} };
const sound = new Sound($("sound"));
let source = null, lastBeat = -Infinity, feedLive = false, darkSince = null, base = null, baseAt = 0;
let serverNow = null, lastTick = performance.now(), beatOn = false, rung = new Set(), signedIn = false;
let knownOnce = false, darkText = "", noteUntil = 0;

// How long a message was under way beyond the quickest so far: a stream that lags looks its age.
function delayOf(at, t) {
  const offset = t - at;
  base = base === null ? offset : Math.min(offset, base + (t - baseAt) * DRIFT_PER_MS);
  baseAt = t;
  return Math.max(0, offset - base);
}

function take(body, t, whole) {
  const delay = delayOf(body.at, t);
  serverNow = { ms: body.now, at: t - delay };
  if (whole) {
    feedLive = body.live;
    $("user").textContent = body.user;
    const keep = new Set(body.beds.map((tile) => tile.key));
    for (const [key, bed] of beds) if (!keep.has(key)) { watcher.unobserve(bed.node); bed.node.remove(); beds.delete(key); }
  }
  for (const tile of body.beds) {
    let bed = beds.get(tile.key);
    if (!bed) {
      if (!whole) { again(); continue; } // its place is in a state only: ask for one now
      bed = new Bed($("tile"));
      bed.node.id = `bed-${tile.key}`;
      beds.set(tile.key, bed);
      watcher.observe(bed.node);
    }
    bed.update(tile, t, delay);
  }
  if (whole) {
    const order = body.beds.map((tile) => beds.get(tile.key).node);
    const grid = $("grid");
    order.forEach((node, at) => { if (grid.children[at] !== node) grid.insertBefore(node, grid.children[at] || null); });
    $("empty").hidden = order.length > 0;
  }
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const bed = [...beds.values()].find((each) => each.node === entry.target);
    if (bed) bed.visible = entry.isIntersecting;
  }
}, { threshold: 0.4 });

let asked = null;
function again() {
  asked ??= setTimeout(() => { asked = null; if (signedIn && source) connect(); }, AGAIN_MS);
}

function connect() {
  if (source) source.close();
  source = new EventSource("/ward/events");
  source.onopen = () => { base = null; };
  source.addEventListener("state", (e) => { const t = performance.now(); lastBeat = t; take(JSON.parse(e.data), t, true); render(); });
  source.addEventListener("beds", (e) => take(JSON.parse(e.data), performance.now(), false));
  source.addEventListener("alert", (e) => { take(JSON.parse(e.data), performance.now(), false); render(); });
  source.addEventListener("heartbeat", (e) => {
    const t = performance.now(), body = JSON.parse(e.data);
    delayOf(body.at, t);
    lastBeat = t;
    beatOn = !beatOn;
    feedLive = body.live;
    serverNow = { ms: body.now, at: t };
  });
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(begin, 2000); };
}

function live(t) { return t - lastBeat <= BEAT_LOST_MS && feedLive; }

function render() {
  const t = performance.now();
  if (t - lastTick > GAP_MS) {
    station.trustAfter = t;
    noteUntil = t + NOTE_MS;
    $("hiddennote").textContent = `page was hidden or asleep ${Math.round((t - lastTick) / 1000)} s`;
  }
  else if (t > noteUntil && $("hiddennote").textContent) $("hiddennote").textContent = "";
  lastTick = t;
  const isLive = live(t);
  const now = serverNow ? serverNow.ms + (t - serverNow.at) : null;
  if (isLive) darkSince = null;
  else if (darkSince === null) {
    darkSince = Number.isFinite(lastBeat) ? Math.min(t, feedLive ? lastBeat : t) : t;
    darkText = now === null ? "the start" : clockText(now - (t - darkSince));
  }
  station.dark = !isLive && t - darkSince > (feedLive ? DARK_MS : DARK_MS - BEAT_LOST_MS);
  const strip = $("notlive");
  strip.hidden = isLive || !knownOnce && t < BEAT_LOST_MS;
  if (isLive) knownOnce = true;
  if (!isLive) {
    const text = `STATION NOT LIVE since ${darkText} - look at the bedside monitors`;
    if (strip.textContent !== text) strip.textContent = text;
  }
  $("beat").dataset.live = isLive ? "yes" : "no";
  $("beat").dataset.on = beatOn ? "yes" : "no";
  $("beattext").textContent = isLive ? "LIVE" : "NOT LIVE";
  // the clock is the server's, carried on by the page's own timer; it stops being shown when dark
  $("clock").textContent = now === null || station.dark ? "--:--:--" : clockText(now);

  for (const bed of beds.values()) bed.render(t, station);
  count(t, isLive);
}

function count(t, isLive) {
  const by = { high: 0, medium: 0, low: 0 };
  let kind = null, quiet = 0;
  const ringing = new Set(), off = [];
  for (const bed of beds.values()) {
    for (const item of bed.alarming || []) {
      if (item.quiet) { quiet += 1; continue; }
      by[item.fill] += 1;
      if (item.fill !== "low") ringing.add(`${bed.tile.key}/${item.id}/${item.fill}`);
    }
    if (bed.top && !bed.top.quiet && !bed.visible && bed.top.fill !== "low") off.push(bed);
  }
  for (const each of ["low", "medium", "high"]) if (by[each]) kind = each;
  if (!isLive && kind !== "high") kind = "notlive";
  const some = Object.keys(by).filter((each) => by[each]).map((each) => `${by[each]} ${each}`);
  if (quiet) some.push(`${quiet} quiet`);
  const text = `${beds.size} ${beds.size === 1 ? "bed" : "beds"} · ${some.length ? `alarms: ${some.join(", ")}` : "no alarms"}`;
  if ($("counts").textContent !== text) $("counts").textContent = text;
  document.title = (by.high + by.medium ? `(${by.high + by.medium}) ` : "") + (isLive ? "Ward station" : "NOT LIVE - Ward station");
  sound.tick(kind, [...ringing].some((id) => !rung.has(id)), t);
  rung = ringing;
  strip(off);
}

function strip(off) {
  const nav = $("offpage");
  nav.hidden = off.length === 0;
  // worst first, in bed order; a strip that covers the beds would help nobody
  off.sort((a, b) => RANK[a.top.fill] - RANK[b.top.fill]);
  const room = innerWidth <= 520 ? 4 : 8, rest = off.slice(room);
  off = off.slice(0, room);
  const wanted = off.map((bed) => `${bed.top.fill}|Bed ${bed.tile.bed || "?"} ${bed.top.text}|${bed.node.id}`).join("\n") + `|${rest.length}`;
  if (nav.dataset.wanted === wanted) return;
  nav.dataset.wanted = wanted;
  nav.replaceChildren(...off.map((bed) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.fill = bed.top.fill;
    button.textContent = `Bed ${bed.tile.bed || "?"} ${bed.top.text}`;
    button.addEventListener("click", () => { bed.node.scrollIntoView({ block: "center" }); bed.node.focus({ preventScroll: true }); });
    return button;
  }));
  if (rest.length) {
    const more = document.createElement("span");
    more.textContent = `and ${rest.length} more`;
    nav.append(more);
  }
}

// One clock flashes everything: 2 Hz for high, 0.5 Hz for medium, half of the time on.
const still = matchMedia("(prefers-reduced-motion: reduce)");
function flash() {
  const t = performance.now(), root = document.documentElement.dataset;
  const fast = still.matches || t % 500 < 250 ? "on" : "off", slow = still.matches || t % 2000 < 1000 ? "on" : "off";
  if (root.fast !== fast) root.fast = fast;
  if (root.slow !== slow) root.slow = slow;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["hr", "spo2", "line", "stale"]) station.colours[name] = style.getPropertyValue(`--${name}`).trim();
  for (const bed of beds.values()) bed.drawn = 0;
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  colours();
}

function remembered(key) { try { return localStorage.getItem(key); } catch { return null; } }
function remember(key, value) { try { localStorage.setItem(key, value); } catch { /* a private window forgets */ } }

const system = matchMedia("(prefers-color-scheme: light)");
theme(remembered("theme") || (system.matches ? "light" : "dark"));
system.addEventListener("change", () => { if (!remembered("theme")) theme(system.matches ? "light" : "dark"); });
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  remember("theme", next);
  theme(next);
  render();
});

function names(on) {
  station.names = on;
  $("names").setAttribute("aria-pressed", String(on));
  $("names").textContent = on ? "Names: on" : "Names: off";
}
names(remembered("names") !== "no");
$("names").addEventListener("click", () => { names(!station.names); remember("names", station.names ? "yes" : "no"); render(); });

$("grid").addEventListener("keydown", (e) => {
  const tiles = [...$("grid").children], at = tiles.indexOf(document.activeElement);
  if (at < 0) return;
  const columns = getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: tiles.length - 1 - at }[e.key];
  if (step === undefined) return;
  e.preventDefault();
  tiles[Math.min(tiles.length - 1, Math.max(0, at + step))].focus();
});

function show(inside) {
  signedIn = inside;
  for (const id of ["top", "grid"]) $(id).hidden = !inside;
  $("signin").hidden = inside;
  if (!inside) { $("notlive").hidden = true; $("offpage").hidden = true; $("empty").hidden = true; $("name").focus(); }
}

async function begin() {
  let answer;
  try { answer = await fetch("/ward/state", { cache: "no-store" }); } catch { setTimeout(begin, 2000); return; }
  if (answer.status === 401 || answer.status === 403) {
    if (source) source.close();
    source = null;
    for (const bed of beds.values()) bed.node.remove();
    beds.clear();
    show(false);
    return;
  }
  if (!answer.ok) { setTimeout(begin, 2000); return; }
  if (!signedIn) { lastBeat = performance.now(); lastTick = lastBeat; }
  show(true);
  connect();
}

$("form").addEventListener("submit", async (e) => {
  e.preventDefault();
  const body = new URLSearchParams(new FormData($("form")));
  $("refused").textContent = "";
  let answer;
  try { answer = await fetch("/ward/signin", { method: "POST", body }); } catch { $("refused").textContent = "The server does not answer."; return; }
  $("password").value = "";
  if (answer.ok) { begin(); return; }
  const wait = answer.headers.get("retry-after");
  $("refused").textContent = answer.status === 429 ? `Too many tries. Wait ${wait} s.` : answer.status === 401 ? "Name or password is wrong." : "The server refused; try again.";
});

$("signout").addEventListener("click", async () => {
  await fetch("/ward/signout", { method: "POST" }).catch(() => {});
  begin();
});

setInterval(() => { if (signedIn) render(); }, TICK_MS);
setInterval(flash, 50);
begin();
