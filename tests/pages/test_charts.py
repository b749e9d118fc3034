"""Charts as files of their own."""

import itertools
import xml.etree.ElementTree as xml

from rollouts.pages import charts, frame


def test_a_chart_is_an_svg_file_whose_names_do_not_overlap():
    series = [(place, f"method <{place}>", [(4, 50.0), (8, 10.0)]) for place in range(4)]
    bands = {name: [(4, 45.0, 55.0), (8, 5.0, 15.0)] for _, name, _ in series}
    text = frame.svg_file(charts.lines("Success & legs", series, "legs", "%", bands, (0, 100), dots=True, named=True))
    root = xml.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label") == "Success & legs"
    names = [one for one in root.iter("{http://www.w3.org/2000/svg}text") if (one.text or "").startswith("method")]
    assert [one.text for one in names] == [name for _, name, _ in series]
    heights = [float(one.get("y", "nan")) for one in names]
    assert all(low - high >= 15 for high, low in itertools.pairwise(heights))
