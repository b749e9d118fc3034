// Collects what a person could read and use on the page, in one pass over the DOM.
// Returns JSON: {title, url, status, nodes, cut}. `status` is the HTTP status that the page came with. `nodes` is flat, in document order:
//   ["t", text]            text, inner spaces collapsed
//   ["b"]                  a line ends
//   ["h", level] ["/h", level]  a heading begins, ends
//   ["e", record] ["/"]    an element one can act on begins, ends; record.i is its place in the list of elements
//   ["l", label] ["/l"]    the label of a control begins, ends; the control's record has the same number
// The elements themselves stay in the isolated world that this runs in, in a list that the executor finds by `key`.
async (limits) => {
  // Before its style sheets have come, a page has no lines yet, and hidden things show.
  if (document.readyState !== "complete") await new Promise((done) => { addEventListener("load", () => done(), { once: true }); setTimeout(done, limits.wait); });
  const SKIPPED = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "SVG", "CANVAS", "OBJECT", "EMBED", "AUDIO", "VIDEO", "MAP", "DATALIST"]);
  const ROLES = new Set(["button", "link", "checkbox", "radio", "switch", "tab", "option", "menuitem", "menuitemcheckbox", "menuitemradio",
    "combobox", "textbox", "searchbox", "spinbutton", "slider", "treeitem", "gridcell"]);
  const CONTROLS = "a[href],button,input,select,textarea";
  const elements = [], nodes = [], labels = new Map();
  const deadline = performance.now() + limits.milliseconds;
  let visited = 0, size = 0, cut = false;

  const clean = (text, length) => String(text ?? "").slice(0, length).replace(/\s+/g, " ").toWellFormed();
  const labelNumber = (control) => { if (!labels.has(control)) labels.set(control, labels.size); return labels.get(control); };
  const joined = (list) => list.map((item) => item.innerText ?? item.textContent ?? "").join(" ").trim();

  function name(el, tag, type) {
    const root = el.getRootNode();
    const ids = (el.getAttribute("aria-labelledby") || "").split(/\s+/).filter(Boolean).slice(0, 8);
    const parts = ids.map((id) => root.getElementById?.(id)).filter(Boolean);
    let text = joined(parts);
    if (text) return [text, "attribute"];
    text = (el.getAttribute("aria-label") || "").trim();
    if (text) return [text, "attribute"];
    if (tag === "INPUT" && ["submit", "button", "reset"].includes(type)) return [el.value || type, "value"];
    if (tag === "INPUT" && type === "image") return [el.alt || el.title || "submit", "attribute"];
    if (el.labels && el.labels.length) {
      text = [...el.labels].map((label) => labelText(label)).join(" ").trim();
      if (text) return [text, "label"];
    }
    if (["INPUT", "SELECT", "TEXTAREA"].includes(tag)) {
      for (const [attribute, source] of [["placeholder", "placeholder"], ["title", "attribute"], ["name", "attribute"]]) {
        text = (el.getAttribute(attribute) || "").trim();
        if (text) return [text, source];
      }
      return ["", "none"];
    }
    text = (el.innerText ?? el.textContent ?? "").trim();
    if (text) return [text, "text"];
    const picture = el.querySelector("img[alt],[aria-label],svg title");
    text = picture ? (picture.getAttribute("alt") || picture.getAttribute("aria-label") || picture.textContent || "").trim() : "";
    if (text) return [text, "attribute"];
    return [(el.getAttribute("title") || el.getAttribute("name") || "").trim(), "attribute"];
  }

  function labelText(label) {
    // A label may wrap its select: the options are no part of the name.
    if (!label.querySelector("select,textarea")) return label.innerText ?? "";
    const parts = [];
    const visit = (node) => {
      if (node.nodeType === 3) parts.push(node.nodeValue);
      else if (node.nodeType === 1 && !["SELECT", "TEXTAREA", "SCRIPT", "STYLE"].includes(node.tagName)) node.childNodes.forEach(visit);
    };
    visit(label);
    return parts.join(" ");
  }

  function record(el, tag, type, role) {
    const [text, source] = name(el, tag, type);
    const out = { i: elements.length, tag: tag.toLowerCase(), name: clean(text, 400).trim(), source };
    if (role) out.role = clean(role, 30);
    if (tag === "INPUT") out.type = clean(type, 20);
    if (source === "label") out.label = labelNumber(el);
    if (tag === "INPUT" && ["checkbox", "radio"].includes(type)) out.checked = el.checked;
    else if (tag === "INPUT" && type === "password") out.value = "*".repeat(Math.min(el.value.length, 20));
    else if ((tag === "INPUT" && !["submit", "button", "reset", "image"].includes(type)) || tag === "TEXTAREA") out.value = clean(el.value, limits.text);
    if (out.value !== undefined && el.placeholder) out.placeholder = clean(el.placeholder, 100);
    if (tag === "SELECT") {
      const options = [...el.options].filter((option) => !option.hidden);
      out.options = options.slice(0, limits.options).map((option) => clean(option.label || option.text, 100).trim());
      out.value = [...el.selectedOptions].slice(0, 20).map((option) => clean(option.label || option.text, 100).trim()).join(" | ");
      out.more = options.length - out.options.length;
    }
    const checked = el.getAttribute("aria-checked"), expanded = el.getAttribute("aria-expanded"), selected = el.getAttribute("aria-selected");
    if (checked && out.checked === undefined) out.checked = checked === "true";
    if (expanded === "true") out.expanded = true;
    if (selected === "true") out.selected = true;
    if (el.matches(":disabled") || el.getAttribute("aria-disabled") === "true") out.disabled = true;
    if (el.readOnly) out.readonly = true;
    return out;
  }

  function hiddenByLayout(el, style, tag, type) {
    if (style.display === "none" || style.contentVisibility === "hidden") return true;
    const control = tag === "INPUT" && ["checkbox", "radio", "file"].includes(type);
    if (!control && parseFloat(style.opacity) === 0) return true;
    if (control || style.display === "contents") return false;
    const apart = style.position === "absolute" || style.position === "fixed";
    if (!apart && style.overflowX === "visible" && style.overflowY === "visible") return false;
    const box = el.getBoundingClientRect();
    if (style.overflowX !== "visible" || style.overflowY !== "visible" || style.clip !== "auto") if (box.width <= 1 || box.height <= 1) return true;
    const view = el.ownerDocument.defaultView;
    return apart && (box.right + view.scrollX <= 0 || box.bottom + view.scrollY <= 0);
  }

  // What a form's properties are when its controls have names such as `tagName` or `childNodes`, which would stand in their place.
  const inherited = (object, property) => Object.getOwnPropertyDescriptor(object.prototype, property).get;
  const typeOf = inherited(Node, "nodeType"), tagOf = inherited(Element, "tagName");
  const unshadowed = (form) => new Proxy(form, { get: (_, property) => {
    const value = Reflect.get(HTMLFormElement.prototype, property, form);
    return typeof value === "function" ? value.bind(form) : value;
  } });

  const blockish = (display) => !/^(inline|contents|table-cell|ruby|none)/.test(display);

  function walk(node, inside, pointer, invisible, depth) {
    if (cut) return;
    if (++visited > limits.nodes || size > limits.size || depth > 400 || (visited % 256 === 0 && performance.now() > deadline)) { cut = true; return; }
    const kind = typeOf.call(node);
    if (kind === 3) {
      if (invisible) return;
      const text = clean(node.nodeValue, limits.text);
      if (text === "") return;
      size += text.length;
      nodes.push(["t", node.nodeValue.length > limits.text ? text + "..." : text]);
      return;
    }
    if (kind !== 1) return;
    const tag = tagOf.call(node).toUpperCase(), el = tag === "FORM" ? unshadowed(node) : node;
    if (SKIPPED.has(tag)) return;
    if (tag === "BR") { nodes.push(["b"]); return; }
    const view = el.ownerDocument.defaultView;
    const style = view.getComputedStyle(node);
    const type = tag === "INPUT" ? el.type : "";
    if (hiddenByLayout(el, style, tag, type) || type === "hidden") return;
    if (el.getAttribute("aria-hidden") === "true" || el.inert) return;
    const unseen = style.visibility !== "visible";
    const role = el.getAttribute("role");
    const pointed = style.cursor === "pointer";
    let active = !unseen && (
      (tag === "A" && el.hasAttribute("href")) || ["BUTTON", "INPUT", "SELECT", "TEXTAREA", "SUMMARY"].includes(tag)
      || (role && ROLES.has(role)) || el.hasAttribute("onclick") || (el.isContentEditable && !el.parentElement?.isContentEditable)
      || (pointed && !pointer && !inside && tag !== "LABEL" && tag !== "BODY" && !el.querySelector(CONTROLS)));
    if (active && tag !== "INPUT" && style.display !== "contents") {
      const box = el.getBoundingClientRect();
      if (box.width === 0 && box.height === 0) active = false;
    }
    const block = blockish(style.display);
    if (block) nodes.push(["b"]);
    const heading = /^H([1-6])$/.exec(tag);
    if (heading) nodes.push(["h", Number(heading[1])]);
    const labelled = tag === "LABEL" && el.control && !unseen ? el.control : null;
    if (labelled) nodes.push(["l", labelNumber(labelled)]);
    if (active) { const made = record(el, tag, type, role); elements.push(node); size += 60 + made.name.length; nodes.push(["e", made]); }
    if (tag === "IMG" && !unseen && el.alt && !inside && !active) nodes.push(["t", " " + clean(el.alt, limits.text) + " "]);
    if (tag === "IFRAME" || tag === "FRAME") {
      let body = null;
      try { body = el.contentDocument?.body; } catch { body = null; }
      if (body) walk(body, inside, false, unseen, depth + 1);
    } else if (!["SELECT", "TEXTAREA", "INPUT"].includes(tag)) {
      let children = el.shadowRoot ? el.shadowRoot.childNodes : el.childNodes;
      if (tag === "SLOT") { const assigned = el.assignedNodes(); if (assigned.length) children = assigned; }
      for (const child of children) {
        if (tag === "DETAILS" && !el.open && child.tagName !== "SUMMARY") continue;
        walk(child, inside || active, pointed, unseen, depth + 1);
        if (cut) break;
      }
    }
    if (active) nodes.push(["/"]);
    if (labelled) nodes.push(["/l"]);
    if (heading) nodes.push(["/h", Number(heading[1])]);
    if (block) nodes.push(["b"]);
    else if (style.display === "table-cell") nodes.push(["t", " "]);
  }

  const modal = [...document.querySelectorAll("dialog:modal")].pop();
  if (modal || document.body) walk(modal || document.body, false, false, false, 0);
  window[limits.key] = elements;

  const status = performance.getEntriesByType("navigation")[0]?.responseStatus;
  return JSON.stringify({ title: clean(document.title, 300).trim(), url: clean(location.href, 2000), status, nodes, cut });
}
