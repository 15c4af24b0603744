// Keys, while the cortex or nothing has the focus; those that work no control also while one has it.

const TURN = 40; // as many pixels of a drag
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const OF_CONTROLS = new Set([...Object.keys(ARROWS), "Enter", " "]);
const TYPED_INTO = ["text", "search", "select-one"];
const KEYS = [
  ["Arrows", "turn; with Shift, move"],
  ["Alt + arrows", "next vertex in that direction"],
  ["+  −", "zoom"],
  ["F", "flatten, and back"],
  ["1 – 6", "lateral, medial, ventral, dorsal, posterior, flat"],
  ["M  N", "next map, map before"],
  ["[  ]", "photograph before, next photograph"],
  ["Enter", "values of the vertex nearest to the middle"],
  ["Escape", "close the card"],
  ["R", "reset"],
  ["P", "save a picture"],
];

function listenToKeys(app, overlay) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    if (![overlay, document.body].includes(event.target)) {
      // Buttons and sliders keep the keys that work them; where text is typed or a list is open, all are kept.
      if (event.altKey || TYPED_INTO.includes(event.target.type) || OF_CONTROLS.has(event.key)) return;
      if (runKey(app, event.key)) event.preventDefault();
      return;
    }
    const arrow = ARROWS[event.key];
    if (arrow) {
      if (event.altKey) app.step(arrow);
      else if (event.shiftKey) app.move(arrow[0] * TURN, arrow[1] * TURN);
      else app.drag(arrow[0] * TURN, arrow[1] * TURN);
    } else if (!event.altKey && !runKey(app, event.key)) return;
    event.preventDefault();
  });
}

function runKey(app, key) {
  const sides = [...Object.keys(SIDES), "flat"];
  const actions = {
    "+": () => app.zoom(1.2), "=": () => app.zoom(1.2), "-": () => app.zoom(1 / 1.2), _: () => app.zoom(1 / 1.2),
    f: () => app.go({ shape: app.view.shape > 1.5 ? 1 : 2, sphere: 0 }),
    m: () => app.nextMap(1), n: () => app.nextMap(-1),
    "[": () => app.nextPhotograph(-1), "]": () => app.nextPhotograph(1),
    Enter: () => app.pickAt(null), " ": () => app.pickAt(null), Escape: () => app.select(-1),
    r: () => app.reset(), p: () => app.savePicture(),
  };
  sides.forEach((side, i) => (actions[i + 1] = () => app.goSide(side)));
  const action = actions[key.length === 1 ? key.toLowerCase() : key];
  if (action) action();
  return Boolean(action);
}
