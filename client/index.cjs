"use strict";
// CommonJS door to the ES module in src/, which loads at the first call. The error class is one and the same.
const { SNBError } = require("./src/error.cjs");

const module_ = () => import("./src/index.js");
const later = (name) => async (...args) => (await module_())[name](...args);

/** The stream itself must be there at once, while the module loads. */
function streamSNB(...args) {
  const opened = module_().then((snb) => snb.streamSNB(...args));
  const result = opened.then((stream) => stream.result);
  result.catch(() => {}); // who reads the stream has seen the error there
  return {
    result,
    async *[Symbol.asyncIterator]() {
      yield* await opened;
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
