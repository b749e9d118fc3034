"""Drawings of the products. They are in the stylesheet, so that a page's text contains only words."""

# ruff: noqa: E501 (each drawing is one line)
from urllib.parse import quote

from mira_arena.sites.shop import vocabulary

# Drawing of each noun, in a box of 64 by 64. `F` fills with the ink colour, `W` with white.
_SHAPES = {
    "lamp": '<path d="M22 8h20l8 24H14z" F/><path d="M30 32h4v20h-4zM20 52h24v5H20z" F/>',
    "lantern": '<path d="M20 22h24v32H20z" F/><path d="M25 27h14v22H25z" W/><path d="M32 30q6 8 0 16q-6-8 0-16" F/><path d="M22 22q10-20 20 0" L/>',
    "candle": '<path d="M24 26h16v32H24z" F/><path d="M32 6q8 10 0 16q-8-6 0-16" F/>',
    "sconce": '<path d="M16 14h32l-6 22H22z" F/><path d="M32 36v14h16v6H26V36z" F/>',
    "torch": '<path d="M18 8h28v10l-7 8H25l-7-8z" F/><path d="M26 28h12v30H26z" F/><path d="M30 34h4v6h-4z" W/>',
    "kettle": '<path d="M16 28h30l4 28H12z" F/><path d="M46 34l10-8 2 4-10 12z" F/><path d="M20 26q12-24 22 0" L/>',
    "mug": '<path d="M14 18h28v36H14z" F/><path d="M42 26q14 0 14 10t-14 10" L/>',
    "bowl": '<path d="M8 28h48q-2 26-24 26T8 28z" F/><path d="M22 56h20v4H22z" F/>',
    "pan": '<path d="M6 30h36v10q0 10-18 10T6 40z" F/><path d="M42 31h18v5H42z" F/>',
    "teapot": '<ellipse cx="30" cy="40" rx="19" ry="16" F/><path d="M46 36l14-10-8 20z" F/><circle cx="30" cy="20" r="4" F/><path d="M13 32q-12 6 0 16" L/>',
    "chair": '<path d="M18 6h6v52h-6zM40 34h6v24h-6zM18 30h28v7H18z" F/><path d="M18 10h10v16H18z" F/>',
    "stool": '<path d="M14 18h36v8H14z" F/><path d="M19 26h5l-5 32h-5zM40 26h5l5 32h-5z" F/><path d="M20 42h24v4H20z" F/>',
    "bench": '<path d="M6 20h52v6H6zM6 32h52v8H6zM10 40h6v16h-6zM48 40h6v16h-6z" F/>',
    "sofa": '<path d="M12 18h40v16H12z" F/><path d="M4 28h10v10h36V28h10v22H4zM8 50h6v6H8zM50 50h6v6h-6z" F/>',
    "desk": '<path d="M4 20h56v7H4zM8 27h6v29H8zM34 27h22v29h-6V42H34z" F/><path d="M38 31h14v6H38z" W/>',
    "planter": '<path d="M14 34h36l-5 24H19z" F/><path d="M32 34V16M32 22q-14 0-14-14q14 0 14 14q0-12 14-12q0 12-14 14" F/><path d="M32 34V18" L/>',
    "trowel": '<path d="M32 60q-12-10-9-26h18q3 16-9 26z" F/><path d="M29 20h6v14h-6z" F/><path d="M28 4h8v18h-8z" F/>',
    "rake": '<path d="M30 20h4v42h-4z" F/><path d="M12 6v16h40V6M22 8v14M32 8v14M42 8v14" L/>',
    "basket": '<path d="M8 28h48l-6 28H14z" F/><path d="M18 28q14-36 28 0" L/><path d="M20 36l2 14M32 36v14M44 36l-2 14" S/>',
    "birdhouse": '<path d="M32 6l24 22H8z" F/><path d="M16 28h32v26H16z" F/><circle cx="32" cy="38" r="6" W/><path d="M30 54h4v8h-4z" F/>',
    "notebook": '<path d="M14 8h36v48H14z" F/><path d="M22 8v48" S/><path d="M28 20h16M28 28h12" S/>',
    "pen": '<path d="M46 6l12 12-32 32-16 6 6-16z" F/><path d="M40 12l12 12" S/>',
    "pencil": '<path d="M28 4h10v44l-5 12-5-12z" F/><path d="M28 14h10M28 46h10" S/>',
    "folder": '<path d="M6 14h20l6 8h26v32H6z" F/><path d="M6 28h52" S/>',
    "calendar": '<path d="M8 12h48v44H8z" F/><path d="M18 6v10M46 6v10" L/><path d="M14 26h36M18 36h6M30 36h6M42 36h6M18 46h6M30 46h6" S/>',
    "blanket": '<path d="M10 14h44v36H10z" F/><path d="M10 22h44M10 42h44M14 50v8M24 50v8M34 50v8M44 50v8" S/><path d="M14 50v7M23 50v7M32 50v7M41 50v7M50 50v7" L/>',
    "cushion": '<path d="M10 12q22 8 44 0q-8 20 0 40q-22-8-44 0q8-20 0-40z" F/><circle cx="32" cy="32" r="3" W/>',
    "rug": '<ellipse cx="32" cy="34" rx="28" ry="18" F/><ellipse cx="32" cy="34" rx="19" ry="11" R/><ellipse cx="32" cy="34" rx="9" ry="5" W/>',
    "towel": '<path d="M8 10h48v5H8z" F/><path d="M16 15h32v43H16z" F/><path d="M16 44h32M16 50h32" S/>',
    "curtain": '<path d="M6 8h52v5H6z" F/><path d="M10 13h18q0 30-14 44h-4zM54 13H36q0 30 14 44h4z" F/>',
}
_TINTS = ("#efe3d0", "#dfe9df", "#e3e6ee", "#f0ddd6", "#e9e4d3", "#dce7e8", "#ece0e8", "#e6ead8")
_STAR = '<path d="M12 2l3 7 7.5 .6-5.7 5 1.7 7.4L12 18l-6.5 4 1.7-7.4-5.7-5L9 9z"/>'
_GLASS = '<circle cx="10" cy="10" r="7" fill="none" stroke="#8a8f88" stroke-width="2.5"/><path d="M15 15l6 6" stroke="#8a8f88" stroke-width="2.5"/>'
_PENS = {
    " F/>": ' fill="#3d4a43"/>',
    " W/>": ' fill="#fff" fill-opacity=".75"/>',
    " L/>": ' fill="none" stroke="#3d4a43" stroke-width="4"/>',
    " S/>": ' fill="none" stroke="#fff" stroke-opacity=".6" stroke-width="2.5"/>',
    " R/>": ' fill="none" stroke="#fff" stroke-opacity=".6" stroke-width="3"/>',
}


def stylesheet(style: str) -> str:
    """Adds the drawings to `style`, as classes: `pic-lamp` for a noun, `cat-lighting` for a category, `tint-3` for a background."""
    rules = [style, f":root {{ --star: {_image(_STAR, 24)}; --glass: {_image(_GLASS, 24)}; }}"]
    rules += [f".pic-{noun} {{ --shape: {_image(shape, 64)}; }}" for noun, shape in _SHAPES.items()]
    for tint, (category, nouns) in zip(_TINTS, vocabulary.NOUNS.items(), strict=False):
        rules.append(f".cat-{category} {{ --shape: {_image(_SHAPES[nouns[0]], 64)}; --tint: {tint}; }}")
    rules += [f".tint-{index} {{ --tint: {tint}; }}" for index, tint in enumerate(_TINTS)]
    return "\n".join(rules)


def _image(shape: str, size: int) -> str:
    for pen, drawn in _PENS.items():
        shape = shape.replace(pen, drawn)
    picture = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}">{shape}</svg>'
    return f'url("data:image/svg+xml,{quote(picture, safe="/:=<> ,.()-")}")'
