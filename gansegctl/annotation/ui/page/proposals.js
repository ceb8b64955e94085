// The right-hand side: what a segmenter fitted on the strokes so far makes of other images, and what to paint next.

import { getJson } from "./api.js";
import { $ } from "./page.js";

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const percent = (share) => `${Math.round(share * 100)} %`;

export class Proposals {
  /** on: { add(seed), show(place), take(seed), places() → [{seed, exemplar}], current() → seed } */
  constructor(on) {
    this.on = on;
    this.found = null;
    this.timer = null;
    this.shown = "";
  }

  /** Look for news soon, and again while a refit is under way. */
  soon(wait = 250) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), wait);
  }

  async look() {
    try {
      const news = await getJson("api/proposals");
      this.found = news.proposals;
      this.showStatus(news);
      if (news.pending) this.soon(400);
    } catch {
      this.soon(2000);
    }
  }

  showStatus(news) {
    const found = news.proposals;
    let line = news.error ? `The refit failed: ${news.error}` : news.pending ? "Refitting…" : "";
    if (found && found.exemplars.length && !news.error) {
      const seconds = `${found.fit_seconds.toFixed(1)} s fit, ${found.seconds.toFixed(1)} s in all`;
      line = news.pending ? `Refitting… (before: ${seconds})` : `Refitted: ${seconds}`;
    } else if (!news.pending && !line) line = "Waits for two classes.";
    $("refit").textContent = line;
    const key = JSON.stringify([found && found.revision, this.on.places().length, this.on.current()]);
    if (key === this.shown) return;
    this.shown = key;
    this.draw();
  }

  /** Everything anew: after a refit, or when another image is shown. */
  draw() {
    const found = this.found;
    const places = new Map(this.on.places().map((e) => [e.seed, e.exemplar]));
    const current = this.on.current();
    const has = found && found.exemplars.length;
    $("others-title").hidden = $("others").hidden = !has || found.exemplars.length < 2;
    $("samples-title").hidden = $("samples").hidden = !has;
    if (!found) return;
    $("advice").replaceChildren(...found.advice.map((a) => this.adviceCard(a, places)));
    if (!found.advice.length) $("advice").append(element("p", { class: "faint" }, "Paint two classes, and a segmenter is fitted after every stroke."));
    const here = found.exemplars.find((p) => p.seed === current);
    $("here").replaceChildren(...(here ? [this.card(here, "this image", null), this.takeButton(current)] : []));
    $("others").replaceChildren(...found.exemplars.filter((p) => p.seed !== current).map((p) => this.card(p, `exemplar ${p.seed}`, () => this.on.show(places.get(p.seed)))));
    $("samples").replaceChildren(...found.samples.map((p) => this.card(p, `sample ${p.seed}`, () => this.on.add(p.seed))));
  }

  takeButton(seed) {
    return element("button", { type: "button", onclick: () => this.on.take(seed) }, "Take this for the unpainted pixels");
  }

  image(seed, kind) {
    return element("img", { src: `api/proposal/${seed}/${kind}?r=${this.found.revision}`, alt: "" });
  }

  adviceCard(advice, places) {
    const known = this.found.samples.some((p) => p.seed === advice.seed) || this.found.exemplars.some((p) => p.seed === advice.seed);
    const place = places.get(advice.seed);
    const press = () => (place === undefined ? this.on.add(advice.seed) : this.on.show(place));
    const text = element("div", {}, `Seed ${advice.seed}: ${advice.why}.`, element("br"),
      element("button", { type: "button", onclick: press }, place === undefined ? "Add to the strip" : "Show"));
    const image = known ? this.image(advice.seed, "image") : place !== undefined ? element("img", { src: `api/image/${place}`, alt: "" }) : element("span");
    return element("div", { class: "tip", "data-kind": advice.kind }, image, text);
  }

  card(p, name, press) {
    const gain = Math.round(p.gain * 1000) / 10;
    const change = gain ? element("span", { class: gain > 0 ? "more" : "less" }, ` ${gain > 0 ? "▲" : "▼"} ${Math.abs(gain)}`) : "";
    const text = `${name}: ${percent(p.sure)} sure, least of ${p.weakest}`;
    const images = [this.image(p.seed, "image"), this.image(p.seed, "overlay")];
    images[1].className = "over";
    const look = press
      ? element("button", { type: "button", class: "look", "aria-label": `${text}. ${name.startsWith("sample") ? "Add to the strip" : "Show"}`, title: text, onclick: press }, ...images)
      : element("span", { class: "look", title: text }, ...images);
    return element("figure", { class: "card" }, look,
      element("figcaption", {}, `${percent(p.sure)} sure`, change, element("br"), `least: ${p.weakest}`));
  }
}
