// Finds a point where a click reaches an element and nothing else, through all frames that it is in, as the browser would find it.
// Returns {x, y, saves} in the window's coordinates, or {problem}. `saves` tells whether the point is on a link that downloads.
(index) => {
  const elements = window.ELEMENTS_KEY || [], el = elements[index];
  if (!el || !el.isConnected) return { problem: "gone" };
  if (el.matches(":disabled") || el.getAttribute("aria-disabled") === "true") return { problem: "disabled" };
  const size = (node) => { const box = node.getBoundingClientRect(); return box.width * box.height; };
  const target = size(el) > 1 ? el : ([...(el.labels || [])].find((label) => size(label) > 1) || el);
  const view = target.ownerDocument.defaultView, others = new Set(elements);
  others.delete(el); others.delete(target);

  const above = function* (node) { for (; node; node = node.assignedSlot || node.parentNode || node.host) yield node; };
  const frames = [];
  for (let inner = view; inner !== window; inner = inner.parent) frames.push(inner.frameElement);
  const words = (node) => (node.innerText || node.getAttribute("aria-label") || "").slice(0, 60);
  const covered = (over) => ({ problem: "covered", tag: over.tagName.toLowerCase(), by: words(over) });
  // What is inert gets no click, whatever lies over it: so is all that a modal dialog does not hold.
  for (const place of [target, ...frames]) {
    const modals = [...place.ownerDocument.querySelectorAll("dialog:modal")];
    if (modals.length && !modals.some((modal) => [...above(place)].includes(modal))) return covered(modals.at(-1));
    if ([...above(place)].some((node) => node.inert)) return { problem: "unreached" };
  }

  // A turned or mirrored frame shows its page where the sums below do not find it.
  const turned = (frame) => [...above(frame)].some((node) => {
    if (node.nodeType !== 1) return false;
    const style = node.ownerDocument.defaultView.getComputedStyle(node), matrix = new DOMMatrix(style.transform);
    return style.rotate !== "none" || style.offsetPath !== "none" || !matrix.is2D || matrix.b || matrix.c || matrix.a <= 0 || matrix.d <= 0;
  });
  if (frames.some(turned)) return { problem: "turned" };

  // A point of a frame's page, in the coordinates of the page that holds the frame.
  const outward = (frame, [x, y]) => {
    const box = frame.getBoundingClientRect(), style = frame.ownerDocument.defaultView.getComputedStyle(frame);
    const [across, down] = [box.width / frame.offsetWidth, box.height / frame.offsetHeight];
    const left = frame.clientLeft + parseFloat(style.paddingLeft), top = frame.clientTop + parseFloat(style.paddingTop);
    return [box.left + across * (left + x), box.top + down * (top + y)];
  };
  const deepest = (root, [x, y]) => {
    let hit = root.elementFromPoint(x, y);
    while (hit?.shadowRoot) { const inner = hit.shadowRoot.elementFromPoint(x, y); if (!inner || inner === hit) break; hit = inner; }
    return hit;
  };
  // "own": the element gets a click on `hit`. "part": so does another element that lies inside of it, and first.
  const reaches = (hit) => {
    let part = false;
    for (const node of above(hit)) {
      if (node === target || node === el || (node.tagName === "LABEL" && node.control === el)) return part ? "part" : "own";
      part ||= others.has(node);
    }
    return "";
  };

  let over = null, boxes = [], second = null;
  const holds = (node) => [...above(target)].includes(node) || frames.some((frame) => [...above(frame)].includes(node));
  const attempt = (point) => {
    const places = [point];
    for (const frame of frames) places.push(outward(frame, places.at(-1)));
    for (let level = frames.length; level > 0; level--) {
      const hit = deepest(frames[level - 1].ownerDocument, places[level]);
      if (hit !== frames[level - 1]) { if (hit && !holds(hit)) over ||= hit; return null; }
    }
    const hit = deepest(target.ownerDocument, point), how = hit && reaches(hit);
    const found = how && { x: places.at(-1)[0], y: places.at(-1)[1], saves: !!hit.closest("a[download]") };
    if (how === "own") return found;
    if (how === "part") second ||= found;
    else if (hit && !holds(hit)) over ||= hit;
    return null;
  };
  const search = () => {
    // A link that runs over two lines has its centre between them: its lines are tried as well.
    boxes = [target.getBoundingClientRect(), ...[...target.getClientRects()].slice(0, 8)].filter((box) => box.width > 0 && box.height > 0);
    const clipped = (from, to, most) => [Math.min(Math.max(from, 0), most - 1), Math.min(Math.max(to, 0), most - 1)];
    const spans = boxes.map((box) => [clipped(box.left, box.right, view.innerWidth), clipped(box.top, box.bottom, view.innerHeight)]);
    const shares = [0.5, 0.25, 0.75, 0.05, 0.95], points = boxes.map((box) => [box.left + box.width / 2, box.top + box.height / 2]);
    for (const [[left, right], [top, bottom]] of spans)
      for (const across of shares) for (const down of shares) points.push([left + across * (right - left), top + down * (bottom - top)]);
    for (const point of points) { const found = attempt(point); if (found) return found; }
    return second;
  };

  const inView = (box) => box.top >= 0 && box.left >= 0 && box.bottom <= view.innerHeight && box.right <= view.innerWidth;
  const centre = () => target.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  const still = view === window && inView(target.getBoundingClientRect());
  if (!still) centre();
  let found = search();
  if (!found && still && boxes.length) { centre(); found = search(); }  // Something that stays at the window's edge may lie over it.
  if (found) return found;
  if (!boxes.length) return { problem: "invisible" };
  if (!over) return { problem: "unreached" };
  return covered(over);
}
