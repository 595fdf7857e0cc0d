"use strict";
// The network as a stack of planes in space: one per layer, with its maps side by side. Dragging turns it.

const MOST_PLANES = 24;
const PLANE = 150; // pixels of the longer side of a plane
const ROOM = 620; // pixels from the first plane to the last one
const PLANE_KINDS = ["conv", "max", "average", "unpool", "linear", "rbf", "add", "concatenate", "softmax"];

class Stack {
  constructor(explorer) {
    Object.assign(this, { explorer, turn: [-14, 58], planes: [] });
    this.details = document.getElementById("stack");
    this.details.addEventListener("toggle", () => {
      if (!this.world) this.build();
      this.draw();
    });
  }

  // The layers that are shown: those that compute more than a function of each value; of a deep network some of them.
  chosen() {
    const { nodes, seen } = this.explorer;
    const last = nodes.length - 1;
    const found = nodes.flatMap((node, i) => (i === seen || i === last || (i > seen && PLANE_KINDS.includes(node.kind)) ? [i] : []));
    const step = Math.max(1, (found.length - 1) / (MOST_PLANES - 1));
    return [...new Set(Array.from({ length: Math.floor((found.length - 1) / step) + 1 }, (_, i) => found[Math.round(i * step)]))];
  }

  build() {
    this.world = element("div", { class: "world" });
    const scene = element("div", { class: "scene", tabindex: 0, role: "img",
      "aria-label": "The layers of the network in space, from the input to the output. Arrow keys turn it." }, this.world);
    const chosen = this.chosen();
    const gap = ROOM / Math.max(1, chosen.length - 1);
    chosen.forEach((index, i) => {
      const { name, shape } = this.explorer.nodes[index];
      const [height, width, channels] = shape.length === 3 ? shape : [1, 1, shape[shape.length - 1]];
      const across = Math.min(channels, Math.ceil(Math.sqrt((channels * height) / width)));
      const scale = Math.max(1, Math.round(PLANE / (across * width)));
      const tiles = tiled({ height, width, channels, scale, gap: 1, shown: channels, across });
      const canvas = element("canvas", { class: "map" });
      const plane = element("div", { class: "plane", title: name }, canvas, element("span", {}, name));
      const size = PLANE / Math.max(tiles.canvasWidth, tiles.canvasHeight);
      plane.style.transform = `translate(-50%, -50%) translateZ(${i * gap - ROOM / 2}px) scale(${size})`;
      plane.style.fontSize = `${14 / size}px`;
      plane.addEventListener("click", () => {
        if (!this.dragged) this.explorer.layers[index]?.canvas.scrollIntoView({ block: "center" });
      });
      this.world.append(plane);
      this.planes.push({ index, canvas, tiles });
    });
    this.details.append(scene, element("p", { class: "quiet" }, "Drag it, or use the arrow keys. Click a plane to go to its layer."));
    let from = null;
    scene.addEventListener("pointerdown", (event) => {
      from = [event.clientX, event.clientY];
      this.dragged = false;
    });
    scene.addEventListener("pointermove", (event) => {
      if (!from || !event.buttons) return;
      const by = [event.clientX - from[0], event.clientY - from[1]];
      if (!this.dragged && Math.hypot(...by) < 4) return;
      this.dragged = true;
      scene.setPointerCapture(event.pointerId);
      from = [event.clientX, event.clientY];
      this.rotate(-by[1] / 3, by[0] / 3);
    });
    scene.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -6], ArrowRight: [0, 6], ArrowUp: [6, 0], ArrowDown: [-6, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      this.rotate(...step);
    });
    this.rotate(0, 0);
  }

  rotate(up, right) {
    this.turn = [Math.min(Math.max(this.turn[0] + up, -85), 85), this.turn[1] + right];
    const scale = Math.min(1, this.world.parentElement.clientWidth / 680);
    this.world.style.transform = `scale3d(${scale}, ${scale}, ${scale}) rotateX(${this.turn[0]}deg) rotateY(${this.turn[1]}deg)`;
  }

  draw() {
    if (!this.details.open || !this.explorer.values) return;
    for (const { index, canvas, tiles } of this.planes)
      drawMaps(canvas, tiles, this.explorer.of(index), this.explorer.page.bounds[index], this.explorer.colors);
  }
}
