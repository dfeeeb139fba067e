/** The philosophers to choose from. */

import { element, find, site } from "./site.js";

const SVG = "http://www.w3.org/2000/svg";

/** The drawing of a philosopher, hidden from screen readers since his name stands beside it. */
export function portrait(philosopher) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 96 96");
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("class", "portrait");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `page/portraits.svg#${philosopher}`);
  drawing.append(use);
  return drawing;
}

/** Shows the philosophers; calls `choose(philosopher)` at each choice. */
export function people(choose) {
  for (const [key, { name, dates }] of Object.entries(site.people)) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "philosopher", value: key });
    radio.addEventListener("change", () => choose(key));
    label.append(radio, portrait(key), element("span", "name", name), element("span", "dates", dates.replace("-", "–")));
    find("people").append(label);
  }
}
