"use strict";
// CommonJS door to the ES module in src/, which loads at the first call; the error class is one and the same.
const { SNBError } = require("./src/error.cjs");

const module_ = () => import("./src/index.js");
const later = (name) => async (...args) => (await module_())[name](...args);

/** The stream itself must be there at once, so it is opened when it is first read. */
function streamSNB(...args) {
  let opened;
  const open = () => (opened ??= module_().then((snb) => snb.streamSNB(...args)));
  return {
    async *[Symbol.asyncIterator]() {
      yield* await open();
    },
    get result() {
      return open().then((stream) => stream.result);
    },
  };
}

module.exports = {
  SNBError,
  callSNB: later("callSNB"),
  cancelSNB: later("cancelSNB"),
  pollSNB: later("pollSNB"),
  startSNB: later("startSNB"),
  streamSNB,
};
