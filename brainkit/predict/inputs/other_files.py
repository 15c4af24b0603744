"""Files that are often given to `predict` and hold no image that it reads: what they are, and how to get to images."""

from __future__ import annotations

import shlex

_ARRAY = "in Python, encoder.predict takes images as a uint8 array of shape (n, height, width, 3)"
_LIST = "write the paths of the images to a text file, one per line, and give that"
_DECOMPRESS = "decompress it with `{} {{file}}`, and give the .tar, which is read as it is"
_BRAIN = "predict goes from images to brain responses"

# Suffixes -> what such a file is, what to do.
_KINDS: dict[str, tuple[str, str]] = {
    ".npy": ("a NumPy array", f"{_ARRAY}: numpy.load({{path}})"),
    ".npz": ("a NumPy archive", f"{_ARRAY}: numpy.load({{path}})[NAME]"),
    ".h5 .hdf5 .hdf .he5 .nwb": ("an HDF5 file", f"{_ARRAY}: h5py.File({{path}})[NAME][:1000]"),
    ".mat": ("a MATLAB file", _ARRAY),
    ".pkl .pickle": ("a Python pickle", _ARRAY),
    ".parquet .arrow .feather": ("a table of data", f"save its images as files; {_ARRAY}"),
    ".tar.gz .tgz": ("a compressed archive", _DECOMPRESS.format("gunzip -k")),
    ".tar.bz2 .tbz .tbz2": ("a compressed archive", _DECOMPRESS.format("bunzip2 -k")),
    ".tar.xz .txz": ("a compressed archive", _DECOMPRESS.format("unxz -k")),
    ".tar.zst .tzst": ("a compressed archive", _DECOMPRESS.format("unzstd")),
    ".zip": ("a zip archive", "unpack it with `unzip {file} -d FOLDER`, and give the folder"),
    ".7z .rar": ("an archive", "unpack it, and give the folder"),
    ".nii .nii.gz .mgz .mgh .gii": ("brain data", _BRAIN),
    ".gz .bz2 .xz .zst": ("a compressed file", "decompress it, and give the result"),
    ".csv .tsv": ("a table", _LIST),
    ".lst .list": ("a list", "give it as @{file}"),
    ".xlsx .xls .ods": ("a spreadsheet", _LIST),
    ".json .jsonl .yaml .yml .xml": ("a file of annotations or settings", _LIST),
    ".html .htm": ("a web page", "save its images as files"),
    ".pdf .doc .docx .ppt .pptx .odt .odp": ("a document", "save its pages or images as image files"),
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv": (
        "a video",
        "save its frames as images with `ffmpeg -i {file} FOLDER/%06d.png`, and give the folder",
    ),
    ".onnx": ("an ONNX model", "an encoder file is given as --encoder {file}"),
    ".pt .pth .pt2 .ckpt .safetensors": ("a file of weights", "predict needs an encoder file, from `brainkit export`"),
}
_BY_SUFFIX = {suffix: kind for suffixes, kind in _KINDS.items() for suffix in suffixes.split()}


def advice_for(name: str) -> str | None:
    """What a file is by its suffix, and how to get to images that `predict` reads; None if it may be an image."""
    low = name.lower()
    # Of two suffixes that fit, the longer one: .tar.gz and .gz.
    suffix = max((suffix for suffix in _BY_SUFFIX if low.endswith(suffix)), key=len, default=None)
    if suffix is None:
        return None
    kind, advice = _BY_SUFFIX[suffix]
    return f"{kind}; {advice.format(file=shlex.quote(name), path=repr(name))}"
