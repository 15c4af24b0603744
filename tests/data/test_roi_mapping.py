"""Mappings are pickles from elsewhere: they are read without running code, in little memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from subject_folders import refused

from brainkit.data.roi_mapping import read_mapping
from brainkit.errors import DataError


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_mappings_of_every_pickle_protocol(tmp_path, protocol):
    expected = {0: "Unknown", 1: "V1v", 2: "hV4"}
    array = np.empty((), object)
    array[()] = {np.int64(0): "Unknown", 1: "V1v", np.int16(2): "hV4"}
    with (tmp_path / "m.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, file, protocol=protocol)
    assert read_mapping(tmp_path / "m.npy") == expected
    content = (tmp_path / "m.npy").read_bytes().replace(b"numpy._core.", b"numpy.core.")
    if protocol < 4:  # the name in older versions of numpy; later protocols store its length
        (tmp_path / "m.npy").write_bytes(content)
        assert read_mapping(tmp_path / "m.npy") == expected


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_mapping_cannot_run_anything(tmp_path):
    target = tmp_path / "created_by_the_pickle"
    for value in ({0: "Unknown", 1: Attack(target)}, Attack(target), [Attack(target)]):
        np.save(tmp_path / "m.npy", np.array([None, value], object)[1:].reshape(()), allow_pickle=True)
        refused(read_mapping, tmp_path / "m.npy", "m.npy", "mkdir")
    assert not target.exists()


def test_wrong_mappings(tmp_path):
    path = tmp_path / "m.npy"
    for wrong in (np.arange(3), {"a": 1}, {1: 2}, {1.5: "a"}, {True: "a"}, {1: ""}, [1, 2], "text", {1: b"V1"}):
        np.save(path, wrong, allow_pickle=True)
        refused(read_mapping, path, "m.npy: expected", "found")
    np.save(path, {0: "Unknown"})
    content = path.read_bytes()
    for damaged in (
        b"",
        b"text",
        content[:20],
        content[:-3],
        content[:-40] + b"\xff" * 40,
        content + b"\0" * (1 << 20),
    ):
        path.write_bytes(damaged)
        refused(read_mapping, path, "m.npy: expected", "found")
    refused(read_mapping, tmp_path / "no.npy", "file not found")


HUGE = 2**40
HOSTILE = {
    "memo": b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
    "text memo": b"}p4000000000\n.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"x.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", HUGE) + b"x.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", HUGE) + b"x.",
    "integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    # Each operation of the last line would make another copy of the text.
    "copies": b"\x80\x02c_codecs\nencode\nq\x00X"
    + struct.pack("<I", 500_000)
    + b"a" * 500_000
    + b"q\x01("
    + b"h\x00h\x01\x85R" * 1000
    + b"l.",
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE.keys())
def test_memory_is_bounded_whatever_the_file_states(tmp_path, pickled):
    with (tmp_path / "m.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled)
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            assert read_mapping(tmp_path / "m.npy") == {}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16e6
