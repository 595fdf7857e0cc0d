"use strict";
// The page starts its own script a second time as a worker, which computes the network so that drawing stays smooth.
// A question is {number, do, ...}; its answer has the same number.

const ANSWERS = {
  network: null,

  open({ graph, check }) {
    this.network = new Network(graph);
    if (!check) return {};
    this.network.run(Float32Array.from(bytesOf(check.image), (byte) => byte / 255));
    return this.network.check(check.reference);
  },

  run({ image }) {
    const started = performance.now();
    const values = this.network.run(image).slice();
    return { values, milliseconds: performance.now() - started };
  },

  unit({ index, unit }) {
    return explain(this.network, index, unit);
  },
};

if (self.document === undefined) {
  self.onmessage = ({ data }) => {
    try {
      const answer = ANSWERS[data.do](data);
      self.postMessage({ number: data.number, answer }, answer.values ? [answer.values.buffer] : []);
    } catch (error) {
      self.postMessage({ number: data.number, error: String(error.stack || error) });
    }
  };
}

// The worker, seen from the page: ask(question) resolves to the answer.
function startWorker(script) {
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const worker = new Worker(url);
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.number);
    waiting.delete(data.number);
    if (data.error) reject(new Error(data.error));
    else resolve(data.answer);
  };
  return (question) =>
    new Promise((resolve, reject) => {
      last += 1;
      waiting.set(last, { resolve, reject });
      worker.postMessage({ ...question, number: last });
    });
}
