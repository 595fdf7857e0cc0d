"use strict";
// The page starts its own script a second time as a worker, which computes the network so that drawing stays smooth.
// A question is {number, do, ...}; its answer has the same number.

const ANSWERS = {
  network: null,
  server: null,

  async open({ graph, check, server }) {
    this.server = server;
    if (server) {
      this.network = new Network({ ...graph, weights: await this.asked("weights") });
      return {};
    }
    this.network = new Network(graph);
    this.network.run(Float32Array.from(bytesOf(check.image), (byte) => byte / 255));
    return this.network.check(check.reference);
  },

  // From an image, or from the values of a later node.
  async run({ given, from }) {
    const { network } = this;
    const started = performance.now();
    if (this.server) {
      const found = new Float32Array(await (from ? this.asked("decode", given) : this.asked("run", pixels(given))));
      network.take(found, from);
    } else network.run(given, from);
    const values = network.values.slice();
    return { values, milliseconds: performance.now() - started };
  },

  unit({ index, unit }) {
    return explain(this.network, index, unit);
  },

  async gradients({ image, method }) {
    return { values: new Float32Array(await this.asked(`gradients/${method}`, pixels(image))) };
  },

  // What the server of a live page answers, as bytes.
  async asked(path, body) {
    const response = await fetch(this.server.origin + "/" + path + this.server.query, body ? { method: "POST", body } : {});
    if (!response.ok) throw new Error(await response.text());
    return response.arrayBuffer();
  },
};

const pixels = (image) => Uint8Array.from(image, (value) => Math.round(255 * value));

if (self.document === undefined) {
  self.onmessage = async ({ data }) => {
    try {
      const answer = await ANSWERS[data.do](data);
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
