"""How long still maps take, in a process of its own: ``python -m bench.still_maps SPACE VIEW``; `bench.maps` calls it.

Prints JSON: seconds of the first figure with all imports, of each further one, and the size of a PDF.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Draw ten maps of the vertices at the back of the brain, and one response again and again."""
    started = time.perf_counter()
    space, view, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    from bench.maps import make_maps
    from brainkit.maps.draw import draw_map_file
    from brainkit.maps.style import Style

    maps, style = make_maps(space, everywhere=False), Style(view=view)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        draw_map_file(Path(folder) / "first", maps, maps.maps[0], style=style)
        found["first, s"] = round(time.perf_counter() - started, 2)
        again = time.perf_counter()
        for index in range(repeats):
            draw_map_file(Path(folder) / str(index), maps, maps.maps[index % len(maps.maps)], style=style)
        found["each further, s"] = round((time.perf_counter() - again) / repeats, 2)
        style = Style(view=view, width=7.2)
        (pdf,) = draw_map_file(Path(folder) / "map", maps, maps["layer"], style=style, formats=["pdf"])
        found["PDF, MB"] = round(pdf.stat().st_size / 1e6, 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
