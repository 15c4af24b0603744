"""A folder of a web page as one HTML file that opens from disk."""

from __future__ import annotations

import json
import mimetypes
import re
from pathlib import Path

from brainkit.utils.data_uri import data_uri

# Pages opened from disk may not request files, so requests are answered from the files embedded here.
_SCRIPT = """<script>(function () {
  const files = %s;
  const embedded = address => {
    const path = decodeURI(String(address)).split(/[?#]/)[0];
    const name = Object.keys(files).find(name => path === name || path.endsWith("/" + name));
    return name ? files[name] : address;
  };
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, address, ...rest) {
    return open.call(this, method, embedded(address), ...rest);
  };
  const source = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
  Object.defineProperty(HTMLImageElement.prototype, "src", {
    get: source.get, set(address) { source.set.call(this, embedded(address)); }
  });
  window.WebSocket = function () { this.close = this.send = () => {}; };
})();</script>"""


def single_file(folder: Path) -> str:
    """The page ``index.html`` of a folder, with all other files of the folder embedded.

    Requests by XMLHttpRequest and the sources of images are answered from within the page, and web sockets, which only
    a server would answer, do nothing.
    """
    page = (folder / "index.html").read_text(encoding="utf-8")
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "index.html":
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            files[path.relative_to(folder).as_posix()] = data_uri(path.read_bytes(), kind)
    start = re.search(r"<head[^>]*>", page, re.IGNORECASE)
    at = start.end() if start else 0
    return page[:at] + _SCRIPT % json.dumps(files).replace("</", "<\\/") + page[at:]
