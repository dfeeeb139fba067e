/** French spaces: no line begins with ; : ! ? or », and none ends with «. Nothing is added where no space is. */

export function typeset(text) {
  return text
    .replace(/[ \u00a0]+(?=[;!?])/g, "\u202f")
    .replace(/ +(?=[:»])/g, "\u00a0")
    .replace(/« +/g, "«\u00a0");
}
