// Alarm sound. Law: one scheduler; only the highest priority sounds; the state of the sound is
// always in words on the page. A pulse is 523 Hz and its harmonics 2 to 5, each 3 dB less.

const PULSE = {
  // pulse length and start times of one burst, seconds; then the time from start to start
  high: { pulse: 0.15, gaps: [0.1, 0.1, 0.35, 0.1, 0.6, 0.1, 0.1, 0.35, 0.1], every: 10 },
  medium: { pulse: 0.2, gaps: [0.2, 0.2], every: 20 },
  low: { pulse: 0.2, gaps: [], every: 30 },
  notlive: { pulse: 0.4, gaps: [0.3], every: 15 },
};

export class Sound {
  constructor(button) {
    this.button = button;
    this.context = null;
    this.failed = false;
    this.kind = null;
    this.next = 0;
    button.addEventListener("click", () => this.enable());
  }

  async enable() {
    try {
      this.context ??= new AudioContext();
      await this.context.resume();
      this.#pulse(this.context.currentTime + 0.05, 0.12);
    } catch {
      this.failed = true;
    }
    this.show();
  }

  get state() {
    if (this.failed) return "failed";
    return this.context && this.context.state === "running" ? "on" : "off";
  }

  show() {
    const words = { on: "SOUND ON", off: "SOUND NOT ENABLED - click", failed: "SOUND FAILED" };
    if (this.button.dataset.state !== this.state) {
      this.button.dataset.state = this.state;
      this.button.querySelector("span").textContent = words[this.state];
    }
  }

  // `kind`: high, medium, low, notlive or null; `news`: something new of that kind rang.
  tick(kind, news, t) {
    this.show();
    if (this.state !== "on") return;
    if (kind !== this.kind || news) { this.kind = kind; this.next = Math.min(this.next, t); if (kind) this.next = t; }
    if (!kind || t < this.next) return;
    const { pulse, gaps, every } = PULSE[kind];
    let at = this.context.currentTime + 0.03;
    this.#pulse(at, pulse);
    for (const gap of gaps) { at += pulse + gap; this.#pulse(at, pulse); }
    this.next = t + every * 1000;
  }

  #pulse(at, length) {
    const out = this.context.createGain();
    out.gain.setValueAtTime(0, at);
    out.gain.linearRampToValueAtTime(0.25, at + length * 0.15);
    out.gain.setValueAtTime(0.25, at + length * 0.85);
    out.gain.linearRampToValueAtTime(0, at + length);
    out.connect(this.context.destination);
    for (let n = 1; n <= 5; n += 1) {
      const tone = this.context.createOscillator(), level = this.context.createGain();
      tone.frequency.value = 523 * n;
      level.gain.value = 10 ** (-3 * (n - 1) / 20) / 3;
      tone.connect(level).connect(out);
      tone.start(at);
      tone.stop(at + length);
    }
  }
}
