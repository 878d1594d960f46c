// One bed: what its numbers may say at this moment. Law: a number is shown as live only while its
// age, counted from receipt on the gateway, is within the limits below. Wall clocks are for
// display and are never subtracted; `t` below is performance.now().

const OK = 0, QUESTIONABLE = 2, TEST = 3, CALIBRATION = 4, IMPLAUSIBLE = 5, ALARM_INHIBITED = 6;
const LIVE_MS = 3000, STALE_MS = 10000, LOST_MS = 30000;
const SPOT_LIVE_MS = 15 * 60000, SPOT_STALE_MS = 60 * 60000;
const SPOT = new Set(["temperature", "nibp_systolic", "nibp_diastolic", "nibp_mean", "o2_flow", "consciousness"]);
const SHORT = { heart_rate: "HR", pulse_rate: "PR", spo2: "SpO2", resp_rate: "RR", temperature: "Temp",
  nibp_systolic: "NIBP", abp_systolic: "ABP", cvp_mean: "CVP", etco2: "EtCO2", fio2: "FiO2",
  o2_flow: "O2", perfusion_index: "PI", consciousness: "ACVPU" };
const DECIMALS = { temperature: 1, o2_flow: 1, perfusion_index: 2 };
const STARS = { high: "***", medium: "**", low: "*" };
export const RANK = { high: 0, medium: 1, low: 2 };
// These must be there: their silence is an alarm. The others are shown as --- when they go.
const WATCHED = new Set(["heart_rate", "pulse_rate", "spo2", "resp_rate", "abp_systolic"]);
const SHOWN_AT_LEAST_MS = 5000, NAME_MAX = 12, QUIET_RANKS = 1.5;
const SPARK_MS = 15 * 60000, SPARK_STEP_MS = 5000, SPARK_GAP_MS = 30000;
const SCALE = { hr: [30, 180], spo2: [70, 100] };

export function clockText(ms, seconds = true) {
  const at = new Date(ms);
  const pad = (n) => String(n).padStart(2, "0");
  return `${pad(at.getHours())}:${pad(at.getMinutes())}${seconds ? ":" + pad(at.getSeconds()) : ""}`;
}

// Why an alarm is shown and does not ring, in words; empty: it rings. A name is cut, so that its
// two lines stay within the bar.
function quietText(a) {
  if (a.acknowledged) return `ack by ${a.by.length > NAME_MAX ? `${a.by.slice(0, NAME_MAX)}…` : a.by}`;
  if (a.shelved) return `shelved until ${clockText(a.shelved, false)}`;
  return a.suppressed ? "suppressed" : "";
}

export function spanText(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const pad = (n) => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600);
  return (h ? `${h}:` : "") + `${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
}

function ageText(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
}

function set(node, text) { if (node.textContent !== text) node.textContent = text; }
function mark(node, name, value) {
  if (value == null) { if (name in node.dataset) delete node.dataset[name]; }
  else if (node.dataset[name] !== value) node.dataset[name] = value;
}

export class Bed {
  constructor(template) {
    this.node = template.content.firstElementChild.cloneNode(true);
    const find = (q) => this.node.querySelector(q);
    this.at = { bed: find(".bed"), who: find(".who"), ward: find(".ward"), state: find(".state"),
      bar: find(".bar"), place: find(".bar .place"), text: find(".bar .text"), more: find(".bar .more"), since: find(".bar .since"),
      extra: find(".extra"), spark: find(".spark"), age: find(".age"), device: find(".device") };
    this.cells = {};
    for (const name of ["hr", "spo2", "rr", "bp", "temp"]) {
      const node = find(`.vital.${name}`);
      this.cells[name] = { node, label: node.querySelector("b"), num: node.querySelector(".main") || node.querySelector(".num"), note: node.querySelector(".note") };
    }
    this.vitals = {};
    this.alarms = [];
    this.firstSeen = new Map();
    this.sparks = { hr: [], spo2: [] };
    this.drawn = 0;
    this.top = null;
    this.visible = true;
  }

  // `born`: when, on this page's clock, the gateway received what the tile says.
  update(tile, heard, delay) {
    this.tile = tile;
    const before = this.vitals;
    this.vitals = {};
    for (const [name, v] of Object.entries(tile.vitals)) {
      const old = before[name];
      const same = old && old.t === v.t;
      // the same reading again, late in the stream, is not fresher than it was
      const born = same ? Math.min(old.born, heard - delay - v.age) : heard - delay - v.age;
      this.vitals[name] = { ...v, born, heard: same ? old.heard : heard };
    }
    this.alarms = tile.alarms.map((a) => ({ ...a, began_at: heard - delay - a.for_ms, heard }));
    for (const a of this.alarms) if (!this.firstSeen.has(a.id)) this.firstSeen.set(a.id, a.state === "ended" ? -Infinity : heard);
    for (const id of this.firstSeen.keys()) if (!this.alarms.some((a) => a.id === id)) this.firstSeen.delete(id);
    if (tile.spark) {
      for (const name of ["hr", "spo2"]) this.sparks[name] = (tile.spark[name] || []).map(([ago, v]) => [heard - delay - ago, v]);
    } else {
      this.#append("hr", this.vitals.heart_rate || this.vitals.pulse_rate);
      this.#append("spo2", this.vitals.spo2);
    }
  }

  #append(name, v) {
    if (!v || v.v === null || v.v === undefined || v.s !== OK) return;
    const points = this.sparks[name];
    const last = points[points.length - 1];
    if (last && v.born - last[0] < SPARK_STEP_MS) last[1] = name === "spo2" ? Math.min(last[1], v.v) : v.v;
    else points.push([v.born, v.v]);
    while (points.length && points[0][0] < v.born - SPARK_MS) points.shift();
  }

  // What may be said of one vital: live, ageing, stale, none.
  judge(name, t, station) {
    const v = this.vitals[name];
    if (!v) return { age: "none" };
    const age = Math.max(0, t - v.born);
    const spot = SPOT.has(name);
    const live = spot ? SPOT_LIVE_MS : Math.min(STALE_MS, Math.max(LIVE_MS, 2 * v.every));
    const stale = spot ? SPOT_STALE_MS : STALE_MS;
    let state = age <= live ? "live" : age <= stale ? "ageing" : "stale";
    if (station.dark || v.heard < station.trustAfter) state = "stale";
    return { age: state, ms: age, v, spot };
  }

  #digits(name, value) { return value.toFixed(DECIMALS[name] ?? 0); }

  #fill(cell, name, j, text, station) {
    mark(cell.node, "age", j.age);
    let note = "";
    if (j.age === "none") { set(cell.num, "---"); set(cell.note, ""); return; }
    const empty = j.v.v === null || j.v.v === undefined;
    if (j.age === "stale") {
      set(cell.num, "---");
      const at = clockText(j.v.t, !j.spot);
      note = empty ? `none at ${at}` : `last ${text} at ${at}`;
    } else if (empty) {
      set(cell.num, "---");
      mark(cell.node, "age", "none");
      note = j.v.s === IMPLAUSIBLE ? "implausible" : "no signal";
    } else {
      set(cell.num, text);
      if (j.v.s === QUESTIONABLE) note = "? doubtful";
      else if (j.v.s === ALARM_INHIBITED) note = "alarms off at bed";
      else if (j.v.s === TEST) note = "TEST";
      else if (j.v.s === CALIBRATION) note = "CALIBRATION";
      if (j.age === "ageing") note = ageText(j.ms);
      else if (j.spot && !note) note = clockText(j.v.t, false);
    }
    set(cell.note, note);
  }

  render(t, station) {
    const tile = this.tile;
    set(this.at.bed, tile.bed || "No bed");
    const who = station.names ? tile.name : tile.initials;
    set(this.at.who, tile.bed || tile.name ? who : "device without a patient");
    set(this.at.ward, tile.ward);
    set(this.at.device, tile.device ? `device ${tile.device}` : "");

    const j = {};
    for (const name of Object.keys(this.vitals)) j[name] = this.judge(name, t, station);
    const get = (name) => j[name] || { age: "none" };
    const text = (name) => { const v = this.vitals[name]; return v && v.v !== null && v.v !== undefined ? this.#digits(name, v.v) : "---"; };

    const fresh = (name) => ["live", "ageing"].includes(get(name).age);
    const rate = fresh("heart_rate") || !fresh("pulse_rate") && this.vitals.heart_rate ? "heart_rate" : this.vitals.pulse_rate ? "pulse_rate" : "heart_rate";
    set(this.cells.hr.label, SHORT[rate]);
    this.#fill(this.cells.hr, rate, get(rate), text(rate), station);
    this.#fill(this.cells.spo2, "spo2", get("spo2"), text("spo2"), station);
    this.#fill(this.cells.rr, "resp_rate", get("resp_rate"), text("resp_rate"), station);
    const line = fresh("abp_systolic") ? "abp" : this.vitals.nibp_systolic || this.vitals.nibp_diastolic || !this.vitals.abp_systolic ? "nibp" : "abp";
    this.#pressure(line, get, text, station);
    this.#fill(this.cells.temp, "temperature", get("temperature"), text("temperature"), station);
    const extras = ["etco2", "fio2", "cvp_mean", "o2_flow", "perfusion_index"].filter((name) => this.vitals[name]);
    set(this.at.extra, extras.map((name) => `${SHORT[name]} ${fresh(name) ? text(name) : "---"}`).join(" · "));

    this.#state(t, j, station);
    this.#bar(t, j, station, rate);
    if (t - this.drawn > 1000 && this.visible) this.#draw(t, station);
  }

  #pressure(line, get, text, station) {
    const cell = this.cells.bp;
    const s = `${line}_systolic`, d = `${line}_diastolic`, m = `${line}_mean`;
    set(cell.label, line === "abp" ? "ABP" : "NIBP");
    const lead = this.vitals[s] ? s : this.vitals[d] ? d : m;
    const at = this.vitals[lead] && this.vitals[lead].t;
    const part = (name) => this.vitals[name] && this.vitals[name].t === at ? text(name) : "--";
    const j = get(lead), mean = part(m);
    this.#fill(cell, lead, j, `${part(s)}/${part(d)}`, station);
    const shown = ["live", "ageing"].includes(j.age) && !mean.startsWith("--");
    set(cell.node.querySelector("small"), shown ? `(${mean})` : "");
  }

  #state(t, j, station) {
    const all = Object.values(j);
    const continuous = all.filter((x) => !x.spot);
    const watched = Object.entries(j).filter(([name]) => WATCHED.has(name)).map(([, x]) => x);
    const youngest = Math.min(...all.map((x) => x.ms), Infinity);
    const heard = all.some((x) => x.age === "live" && (!x.spot || x.ms <= LIVE_MS));
    const newest = all.reduce((a, x) => (!a || x.v.t > a.v.t ? x : a), null);
    this.lost = all.length > 0 && youngest > (continuous.length ? LOST_MS : SPOT_STALE_MS);
    let state = "LIVE";
    if (station.dark) state = "NOT LIVE";
    else if (this.lost) state = "LOST";
    else if (watched.some((x) => x.age === "stale")) state = "STALE";
    else if (watched.some((x) => x.age === "ageing")) state = "AGEING";
    mark(this.node, "state", state);
    const last = newest ? clockText(newest.v.t) : "--:--:--";
    set(this.at.state, state === "LOST" ? `NOT LIVE since ${last}` : state);
    set(this.at.age, heard && !station.dark ? `live ${ageText(youngest)}` : `last data ${last} (${ageText(youngest)})`);
    this.youngest = youngest;
  }

  #bar(t, j, station, rate) {
    // a physiological alarm, then what is technically wrong
    const active = this.alarms.filter((a) => a.state !== "ended" || t - this.firstSeen.get(a.id) < SHOWN_AT_LEAST_MS);
    active.sort((a, b) => RANK[a.priority] - RANK[b.priority] || b.began - a.began);
    const list = active.map((a) => {
      const of = j[a.vital];
      const unknown = a.state === "active" && of && of.age === "stale";
      const quiet = quietText(a), latched = a.state === "latched";
      const words = quiet || (unknown ? `unknown since ${clockText(of.v.t, false)}` : latched ? spanText(t - a.began_at) : "");
      return { fill: a.priority, vital: a.vital, id: `${a.id}/${a.level}`, quiet: quiet !== "",
        text: `${STARS[a.priority]} ${a.text}`, words: latched ? `latched, ${words}` : words,
        since: spanText(t - a.began_at) };
    });
    if (this.lost && !station.dark) list.push({ fill: "medium", text: "!! NO DATA", since: spanText(this.youngest), id: "lost" });
    else if (!station.dark) {
      for (const [name, x] of Object.entries(j)) {
        if (!WATCHED.has(name) || name === "pulse_rate" && rate === "heart_rate") continue;
        const silent = x.age === "stale", empty = !silent && (x.v.v === null || x.v.v === undefined);
        if (silent || empty) list.push({ fill: "low", text: `! ${SHORT[name]} ${silent ? "no data" : "no signal"}`, since: silent ? spanText(x.ms) : "", id: name });
      }
    }
    // one that nobody has answered stands before one of the next rank that somebody has
    const rank = (item) => RANK[item.fill] + (item.quiet ? QUIET_RANKS : 0);
    list.sort((a, b) => rank(a) - rank(b));
    const top = list[0] || null;
    this.top = top;
    this.alarming = list;
    mark(this.node, "fill", top ? top.fill : null);
    mark(this.at.bar, "fill", top ? top.fill : "none");
    mark(this.at.bar, "quiet", top && top.quiet ? "yes" : null);
    // the bar itself is what a screen reader is told, once: its running time is kept out of that
    const role = top && top.fill !== "low" && !top.quiet ? "alert" : null;
    if (this.at.bar.getAttribute("role") !== role) {
      if (role) this.at.bar.setAttribute("role", role);
      else this.at.bar.removeAttribute("role");
    }
    set(this.at.place, role ? `Bed ${this.tile.bed || "unknown"}, ${top.fill} alarm: ` : "");
    const was = this.alarms.find((a) => a.state === "ended" && !active.includes(a));
    set(this.at.text, top ? top.text : was ? `was ${was.text}  ${clockText(was.began)}-${clockText(was.ended)}` : "");
    set(this.at.more, list.length > 1 ? `+${list.length - 1}` : "");
    // how long an alarm runs is not known once its vital is silent
    set(this.at.since, top ? top.words || top.since : "");
    mark(this.at.since, "words", top && top.words ? "yes" : null);
    const cellOf = { heart_rate: "hr", pulse_rate: "hr", spo2: "spo2", resp_rate: "rr", temperature: "temp" };
    const fills = {};
    for (const item of list) {
      if (!item.vital || !["high", "medium", "low"].includes(item.fill)) continue;
      const cell = cellOf[item.vital] || (/^(nibp|abp)_/.test(item.vital) ? "bp" : null);
      if (cell && !fills[cell]) fills[cell] = item;
    }
    for (const [name, cell] of Object.entries(this.cells)) {
      mark(cell.node, "fill", fills[name]?.fill ?? null);
      mark(cell.node, "quiet", fills[name]?.quiet ? "yes" : null);
    }
  }

  #draw(t, station) {
    this.drawn = t;
    const canvas = this.at.spark, ratio = window.devicePixelRatio || 1;
    const w = canvas.clientWidth, h = canvas.clientHeight;
    if (!w || !h) return;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) { canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio); }
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, w, h);
    const left = 10, right = w - 10, x = (at) => right - (t - at) / SPARK_MS * (right - left);
    g.fillStyle = station.colours.line;
    for (let minutes = 0; minutes <= 15; minutes += 5) g.fillRect(Math.round(x(t - minutes * 60000)), 2, 1, h - 4);
    g.font = "11px system-ui, sans-serif";
    g.fillStyle = station.colours.stale;
    g.textBaseline = "bottom";
    g.fillText("-15 min", left + 4, h - 1);
    for (const name of ["spo2", "hr"]) {
      const [low, high] = SCALE[name];
      const y = (v) => 3 + (1 - (Math.min(high, Math.max(low, v)) - low) / (high - low)) * (h - 6);
      g.strokeStyle = station.colours[name];
      g.lineWidth = 1.6;
      g.lineJoin = "round";
      g.beginPath();
      let last = null;
      for (const [at, v] of this.sparks[name]) {
        if (t - at > SPARK_MS) continue;
        if (last !== null && at - last <= SPARK_GAP_MS) g.lineTo(x(at), y(v));
        else { g.moveTo(x(at) - 1, y(v)); g.lineTo(x(at), y(v)); }
        last = at;
      }
      g.stroke();
    }
  }
}
