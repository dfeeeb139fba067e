"use strict";
// CommonJS entry point of the ES module in src/, which loads at the first call. Both share one error class.
const { SNBError } = require("./src/error.cjs");

const module_ = () => import("./src/index.js");
const later = (name) => async (...args) => (await module_())[name](...args);

/** Returns the stream at once, while the module still loads. */
function streamSNB(...args) {
  const opened = module_().then((snb) => snb.streamSNB(...args));
  const result = opened.then((stream) => stream.result);
  result.catch(() => {}); // whoever reads the stream sees the error there
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
