"""What a subject's data are, and what is wrong with them: the facts behind ``brainkit data``."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from brainkit.cortex.vertices import CUSTOM
from brainkit.data.folder import PREPARED
from brainkit.data.leaks import find_leaks
from brainkit.data.split import Split
from brainkit.data.splits import split_subjects
from brainkit.data.subject import Subject
from brainkit.data.trials import Trials
from brainkit.data.trials.prepare import ncsnr_problem, prepared_bytes
from brainkit.errors import BrainkitError
from brainkit.utils.files import read_json
from brainkit.utils.table import Table
from brainkit.utils.text import format_bytes, plural

_SAMPLE = 512  # images whose responses are looked at
_FAR = 30.0  # s.d. from its mean: a response that is no measurement
_FEW_STIMULI = 30  # test stimuli: intervals over fewer are wide
_ASPECT = 1.05  # of the longer to the shorter side: a picture that is not square
_LOW_CEILING = 0.05
_SHORT_SESSION = 100  # trials: from here on, ceilings lose less than 2 %
_BAR = 30  # characters of the longest bar of a histogram


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes
    ----------
    title : str
    facts : tuple of (str, str)
        Names and values.
    tables : tuple of Table
    problems : tuple of str
        Each with what to do.
    split : Split or None
        The split that training with default settings would use; None if there is none yet.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...] = ()
    problems: tuple[str, ...] = ()
    split: Split | None = field(default=None, compare=False)

    def with_facts(self, facts: Iterable[tuple[str, str]]) -> Inspection:
        """With further facts at the end."""
        return replace(self, facts=(*self.facts, *facts))

    def completed_by(self, prepared: Inspection) -> Inspection:
        """What the design of trials says, then what their prepared responses show."""
        known = {name for name, _ in self.facts}
        facts = [fact for fact in prepared.facts if fact[0] not in known or fact[0] in ("cite", "note")]
        titles = {table.title for table in prepared.tables}
        tables = (*(table for table in self.tables if table.title not in titles), *prepared.tables)
        own = [fact for fact in self.facts if fact[0] != "cite" and fact not in facts]
        return Inspection(self.title, (*own, *facts), tables, (*self.problems, *prepared.problems), prepared.split)


def inspect_subject(subject: Subject, layout: str) -> Inspection:
    """Look at a subject's data; decodes all images, once.

    Parameters
    ----------
    subject : Subject
    layout : str
        Title of the layout.
    """
    readable = subject.skip_unreadable()
    split, split_problem = _split(readable)
    tables = [_roi_table(subject), *_ceiling_tables(subject), *_repetition_tables(subject)]
    problems = (
        [
            f"{plural(len(readable.skipped), 'image')} cannot be read, the first is {readable.skipped[0].name} "
            f"({readable.skipped[0].reason}): repair them, or train with --skip-unreadable"
        ]
        if readable.skipped
        else []
    )
    problems += [*split_problem, *_problems(readable, split)]
    return Inspection(
        subject.name,
        tuple(_subject_facts(readable, layout, split)),
        tuple(table for table in tables if table.rows),
        tuple(problems),
        split,
    )


def inspect_trials(trials: Trials, layout: str) -> Inspection:
    """Look at data that are not prepared yet: what their design and tables say, without reading a response."""
    dataset = trials.dataset
    times = trials.repetitions
    facts = [
        ("layout", layout),
        ("read as", trials.layout),
        ("data set", dataset.name),
        ("licence", dataset.licence),
        *(("cite", one) for one in dataset.citation),
        ("trials", f"{trials.n_trials:,} in {plural(len(trials.sessions), 'session')}"),
        ("images", f"{len(trials.images):,}, such as {trials.images.names[0]}"),
        ("vertices" if trials.volume is None else "voxels", _columns(trials)),
        ("standardised", "within each session" if trials.standardise else "no"),
        ("splits", ", ".join(trials.splits)),
        *(("note", note) for note in trials.notes),
        ("prepared", f"takes {format_bytes(prepared_bytes(trials))} of disk; --roi takes less"),
    ]
    rois = sorted(((name, len(columns)) for name, columns in trials.rois.items()), key=lambda pair: -pair[1])
    tables = [
        Table("ROIs", ("ROI", "vertices"), tuple((name, f"{count:,}") for name, count in rois)),
        _counts_table("repetitions", "trials of an image", times),
    ]
    if trials.ncsnr is not None and len(known := trials.ncsnr[np.isfinite(trials.ncsnr)]):
        tables.append(_histogram("ncsnr, as published", known, (0.0, max(float(known.max()), 1e-6))))
    return Inspection(
        trials.name,
        tuple((name, text) for name, text in facts if text),
        tuple(each for each in tables if each.rows),
    )


def _subject_facts(subject: Subject, layout: str, split: Split | None) -> Iterable[tuple[str, str]]:
    dataset = subject.dataset
    sample = subject.responses.rows(_sample_rows(len(subject)))
    deviations = sample.std(axis=0)
    low, middle, high = np.quantile(deviations, (0.05, 0.5, 0.95))
    found = [
        ("layout", layout),
        ("data set", dataset.name),
        ("licence", dataset.licence),
        *(("cite", one) for one in dataset.citation),
        ("note", subject.note or ""),
        ("images", f"{len(subject):,} of {_sizes(subject)}"),
        ("stimuli", f"{len(set(subject.groups)):,} different"),
        ("responses", f"{subject.units}; s.d. of a vertex over images {middle:.2g} ({low:.2g} to {high:.2g})"),
        ("vertices" if subject.volume is None else "voxels", _subject_columns(subject)),
        ("noise ceilings", _ceilings(subject)),
    ]
    if split is not None:
        sides = split.counts() + (f", by {split.name}" if split.name else "")
        found.append(("default split", sides + ("; test is the data set's own" if subject.official_test.any() else "")))
    return [(name, text) for name, text in found if text]


def _problems(subject: Subject, split: Split | None) -> Iterable[str]:
    for check in _CHECKS:
        if problem := check(subject, split):
            yield problem


def _leaked(subject: Subject, split: Split | None) -> str:
    return "" if split is None else " ".join(find_leaks([split], [subject])[0].lines())


def _left_out(subject: Subject, split: Split | None) -> str:
    count = sum(map(len, subject.excluded.values()))
    total = count + len(subject.vertices)
    if not count:
        return ""
    kinds = ", ".join(f"{len(ids):,} {reason}" for reason, ids in subject.excluded.items() if ids)
    return (
        f"{count:,} of {total:,} columns cannot be used ({kinds}): they are left out; look for missing sessions or "
        "vertices that were not measured"
    )


def _no_rois(subject: Subject, split: Split | None) -> str:
    if not len(subject.rois):
        return "no ROIs: scores are of all vertices together; add rois.json (see docs/own-data.md)"
    return f"ROIs without a vertex: {', '.join(subject.rois.empty)}" if subject.rois.empty else ""


def _no_ceilings(subject: Subject, split: Split | None) -> str:
    if subject.noise_ceiling is None:
        return (
            "no noise ceilings: the share explained of what can be explained is unknown; add noise_ceiling.npy, or the "
            "single trials (see docs/noise-ceilings.md)"
        )
    median = float(np.nanmedian(subject.noise_ceiling))
    if median < _LOW_CEILING:
        return f"most vertices have little signal (median noise ceiling {median:.3f}): choose ROIs with --roi"
    return ""


def _outliers(subject: Subject, split: Split | None) -> str:
    rows = _sample_rows(len(subject))
    sample = subject.responses.rows(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Relative to the typical deviation: an outlier would hide itself in its vertex's own s.d.
        middle = np.median(sample, axis=0)
        spread = np.median(np.abs(sample - middle), axis=0)
        far = np.abs(sample - middle) > _FAR * np.maximum(spread, np.median(spread))
    if not far.any():
        return ""
    where = rows[far.any(axis=1).argmax()]
    return (
        f"{int(far.sum()):,} of {far.size:,} responses lie more than {_FAR:g} times the usual deviation from their "
        f"vertex's median, the first at {subject.names[where]}: check that image's trials"
    )


def _not_square(subject: Subject, split: Split | None) -> str:
    sizes = _image_sizes(subject)
    count = sum(
        number for (width, height), number in sizes.items() if max(width, height) > _ASPECT * min(width, height)
    )
    if not count:
        return ""
    return (
        f"{plural(count, 'image')} {'is' if count == 1 else 'are'} not square: networks see them squeezed into a "
        "square; if subjects saw a crop, give the crops as images"
    )


def _short_sessions(subject: Subject, split: Split | None) -> str:
    path = subject.root / PREPARED
    found = read_json(path) if path.is_file() else {}
    trials = list(found.get("sessions", {}).values())
    if not found.get("standardised") or not trials or np.median(trials) >= _SHORT_SESSION:
        return ""
    return (
        f"sessions have few trials (median {np.median(trials):.0f}): standardising within them takes away signal, "
        "and noise ceilings are too low: by about 6 % at 30 trials, 20 % at 9"
    )


def _few_stimuli(subject: Subject, split: Split | None) -> str:
    if split is None:
        return ""
    count = len({subject.groups[row] for row in split.test.tolist()})
    if count >= _FEW_STIMULI:
        return ""
    remedy = "give more images" if subject.official_test.any() else "increase data.test, or give more images"
    return f"only {count} test stimuli: intervals will be wide; {remedy}"


def _other_ncsnr(subject: Subject, split: Split | None) -> str:
    """Whether our estimate of the noise contradicts the data set's own."""
    path = subject.root / PREPARED
    return ncsnr_problem(read_json(path)) if path.is_file() else ""


def _not_drawable(subject: Subject, split: Split | None) -> str:
    if subject.vertices.space == CUSTOM and subject.volume is None:
        return (
            "vertices on no known surface: maps can be drawn with volume.json (voxels) or on your own surface "
            "(brainkit map --surface DIR)"
        )
    return ""


_CHECKS: tuple[Callable[[Subject, Split | None], str], ...] = (
    _leaked,
    _left_out,
    _no_rois,
    _no_ceilings,
    _outliers,
    _not_square,
    _short_sessions,
    _few_stimuli,
    _other_ncsnr,
    _not_drawable,
)


def _split(subject: Subject) -> tuple[Split | None, list[str]]:
    try:
        split = split_subjects([subject])[0]
    except BrainkitError as error:
        return None, [str(error)]
    return split, [f"split: {note}" for note in split.notes]


def _image_sizes(subject: Subject) -> collections.Counter[tuple[int, int]]:
    """How many images have each size; headers alone are read."""
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    for path in subject.images:
        with Image.open(path) as image:
            sizes[image.size] += 1
    return sizes


def _sizes(subject: Subject) -> str:
    sizes = _image_sizes(subject)
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        return f"{width} x {height} pixels"
    widths, heights = zip(*sizes, strict=True)
    return f"{min(widths)} to {max(widths)} x {min(heights)} to {max(heights)} pixels, in {len(sizes)} sizes"


def _subject_columns(subject: Subject) -> str:
    vertices = subject.vertices
    if subject.volume is not None:
        return f"{len(vertices):,} in a volume of {' x '.join(map(str, subject.volume.shape))}"
    if vertices.space == CUSTOM:
        return f"{len(vertices):,} with coordinates in mm, on no known surface"
    return f"{len(vertices):,} of {vertices.space}: {vertices.n_left:,} left, {len(vertices) - vertices.n_left:,} right"


def _columns(trials: Trials) -> str:
    vertices = trials.vertices
    if trials.volume is not None:
        return f"{len(vertices):,} in a volume of {' x '.join(map(str, trials.volume.shape))}"
    return f"{len(vertices):,}" + (f" of {vertices.space}" if vertices.space != CUSTOM else "")


def _ceilings(subject: Subject) -> str:
    if subject.noise_ceiling is None:
        return "none"
    known = subject.noise_ceiling[np.isfinite(subject.noise_ceiling)]
    if not len(known):
        return "unknown at all vertices"
    low, middle, high = np.quantile(known, (0.05, 0.5, 0.95))
    unit = f", read as {subject.noise_ceiling_unit}" if subject.noise_ceiling_unit else ""
    where = plural(len(known), "vertex", "vertices")
    return f"median {middle:.2f} of r squared ({low:.2f} to {high:.2f}) at {where}{unit}"


def _roi_table(subject: Subject) -> Table:
    rows = []
    for name, members in subject.rois.items():
        ceilings = (
            subject.noise_ceiling[members] if subject.noise_ceiling is not None and len(members) else np.array([])
        )
        known = ceilings[np.isfinite(ceilings)]
        rows.append((name, f"{len(members):,}", f"{np.median(known):.2f}" if len(known) else "-"))
    return Table("ROIs", ("ROI", "vertices", "median noise ceiling"), tuple(rows))


def _ceiling_tables(subject: Subject) -> list[Table]:
    if subject.noise_ceiling is None:
        return []
    known = subject.noise_ceiling[np.isfinite(subject.noise_ceiling)]
    return [_histogram("noise ceilings of r squared", known, (0.0, 1.0))] if len(known) else []


def _repetition_tables(subject: Subject) -> list[Table]:
    counts = subject.repetitions
    return [] if counts is None else [_counts_table("repetitions", "trials of an image", counts)]


def _counts_table(title: str, name: str, values: np.ndarray) -> Table:
    times, images = np.unique(values, return_counts=True)
    rows = tuple((f"{time}", f"{count:,}") for time, count in zip(times.tolist(), images.tolist(), strict=True))
    return Table(title, (name, "images"), rows)


def _histogram(title: str, values: np.ndarray, limits: tuple[float, float], bins: int = 10) -> Table:
    counts, edges = np.histogram(values, bins, limits)
    longest = max(int(counts.max()), 1)
    rows = tuple(
        (f"{low:.2f} to {high:.2f}", f"{count:,}", ("#" * -(-count * _BAR // longest)).ljust(_BAR))
        for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    )
    return Table(title, ("value", "vertices", " " * _BAR), rows)


def _sample_rows(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
