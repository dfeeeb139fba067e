/** Keeps the page at the end of the conversation, unless its reader has scrolled up; « ↓ » then leads back. */

const NEAR = 8; // px from the end that still count as the end

export class Follow {
  /**
   * @param {HTMLElement} end the element whose lower edge is followed
   * @param {HTMLElement} down the button, shown while the reader is elsewhere and `wanted()`
   */
  constructor(end, down, wanted) {
    history.scrollRestoration = "manual";
    Object.assign(this, { end, down, wanted, follows: false, last: scrollY });
    addEventListener("scroll", () => this.#scrolled(), { passive: true });
    down.addEventListener("click", () => this.reveal());
    // Whatever changes the height of page or window: text, a notice, the question bar, a screen that turns.
    const observer = new ResizeObserver(() => (this.follows ? this.reveal() : this.#scrolled()));
    observer.observe(end);
    observer.observe(document.documentElement);
  }

  /** Goes to the end and stays there. */
  reveal() {
    this.follows = true;
    const below = this.#below();
    if (below > 0) scrollBy({ top: below, behavior: "instant" });
    this.#scrolled();
  }

  /** Goes back to the beginning of the page. */
  leave() {
    this.follows = false;
    scrollTo({ top: 0, behavior: "instant" });
    this.#scrolled();
  }

  #below() {
    return this.end.getBoundingClientRect().bottom - innerHeight;
  }

  #scrolled() {
    if (this.#below() <= NEAR) this.follows = true;
    else if (scrollY < this.last) this.follows = false; // only the reader scrolls up; added text does not
    this.last = scrollY;
    this.down.hidden = this.follows || !this.wanted();
  }
}
