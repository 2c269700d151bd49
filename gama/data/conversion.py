"""Clips of any kind as 16 kHz mono files, beside the originals and never in their place.

A finished file carries the time of its original, so a run that was stopped goes on where it was, and a clip that
changed is converted again.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gama import audio
from gama.atomic import check_output, check_output_folder, make_folder, replacing
from gama.audio.encoding import encoded
from gama.audio.source import is_url
from gama.data.clips import peak_of
from gama.data.folders import files_below
from gama.data.manifest import Malformed, Writer, entries, writing
from gama.data.parallel import mapped
from gama.data.remap import Remap, absolute, clips_of, named_from
from gama.errors import AudioError, GamaError, ManifestError, row_error

_ENDINGS = "wav flac mp3 ogg opus oga m4a aac mp4 webm mkv mov aif aiff aifc au snd caf wma w64 rf64"
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Endings of the files of a folder that are taken for clips."""

Format = Literal["flac", "wav"]


@dataclass(frozen=True)
class Job:
    """One clip and the file that it becomes.

    Attributes:
        source, target: files.
        max_seconds: what lies behind is cut off; None: nothing.
        error: why it could not be converted; empty where it was.
        fresh: whether it was converted by this run.
        peak: largest magnitude of its samples where that lies above full scale (1.0), so that it was scaled down.
    """

    source: Path
    target: Path
    max_seconds: float | None = None
    error: str = ""
    fresh: bool = False
    peak: float = 0.0


@dataclass(frozen=True)
class Converted:
    """What became of the clips.

    Attributes:
        done: clips that are there now, from this run or an earlier one.
        fresh: those of this run.
        failed: clips that could not be read, and why.
        manifests: those written, with how many rows each kept and lost.
        scaled: clips of this run above full scale, and their peak; each was divided by it.
        malformed: rows that are no rows, and were left out.
    """

    done: int
    fresh: int
    failed: tuple[tuple[Path, str], ...]
    manifests: tuple[tuple[Path, int, int], ...]
    scaled: tuple[tuple[Path, float], ...] = ()
    malformed: tuple[ManifestError, ...] = ()


def convert(
    sources: Sequence[Path],
    out: Path,
    *,
    kind: Format = "flac",
    remap: Remap | None = None,
    max_seconds: float | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Converted:
    """Convert folders and manifests to ``out/audio``; manifests are written again beside it.

    Args:
        sources: folders of clips, or manifests. Malformed rows and rows whose clip could not be converted are left
            out.
        out: the folder to write into.
        kind: FLAC or wav, both of 16 bits.
        remap: where the clips of manifests lie.
        max_seconds: cut longer clips.
        workers: processes.
        progress: called with how many clips are done since its last call.

    Raises:
        OutputError: where ``out`` cannot be written, or a manifest would be written over itself.
        GamaError: when a source is not there, or a clip would be written over its original.
        ManifestError: for a manifest that is not JSON.
    """
    remap = remap or Remap()
    manifests = [path for path in sources if not path.is_dir()]
    names = Counter(path.name for path in manifests)
    targets = [
        out / (path.name if names[path.name] == 1 else f"{index}-{path.name}") for index, path in enumerate(manifests)
    ]
    check_output_folder(out)
    for written_manifest in targets:
        check_output(written_manifest, manifests, make_folder=True)
    malformed: list[ManifestError] = []
    clips = list(_clips(sources, remap, malformed.append))
    jobs = planned(clips, out / "audio", kind, max_seconds, below=[s for s in sources if s.is_dir()])
    failed: list[tuple[Path, str]] = []
    scaled: list[tuple[Path, float]] = []
    fresh = 0
    for job in mapped(_convert, jobs, workers=workers, batch=8):
        fresh += job.fresh
        if job.peak:
            scaled.append((job.source, job.peak))
        if job.error:
            failed.append((job.source, job.error))
        (progress or (lambda _: None))(1)
    lost = {source for source, _ in failed}
    target = {job.source: job.target for job in jobs if job.source not in lost}
    written = []
    for manifest, written_manifest in zip(manifests, targets, strict=True):
        with writing(written_manifest) as writer:
            written.append((written_manifest, *_rewrite(manifest, writer, target, remap, out)))
    return Converted(len(jobs) - len(failed), fresh, tuple(failed), tuple(written), tuple(scaled), tuple(malformed))


def _clips(sources: Sequence[Path], remap: Remap, malformed: Malformed) -> Iterator[Path]:
    for source in sources:
        if source.is_dir():
            yield from map(absolute, files_below(source, SUFFIXES))
        elif not source.exists():
            raise GamaError(f"{source}: no such folder or manifest")
        else:
            yield from map(absolute, clips_of(source, remap, malformed))


def planned(
    clips: Iterable[Path],
    folder: Path,
    kind: Format,
    max_seconds: float | None = None,
    *,
    below: Iterable[Path] = (),
) -> list[Job]:
    """Each clip once, with a file below ``folder`` as the original lies below the folder that all share.

    Two originals that differ in their ending alone keep it: ``a.wav.flac``, ``a.mp3.flac``.

    Args:
        clips: absolute paths; a link is a clip of its own.
        folder, kind, max_seconds: of the new files.
        below: folders that were given as a whole; their own subfolders are kept even where all clips share one.

    Raises:
        GamaError: when a clip would be written over its original.
    """
    unique = list(dict.fromkeys(clips))
    if not unique:
        return []
    common = Path(os.path.commonpath([*map(absolute, below), *(clip.parent for clip in unique)]))
    stems = Counter(clip.with_suffix("") for clip in unique)
    jobs, taken = [], set()
    for clip in unique:
        inside = clip.relative_to(common)
        name = f"{inside.name}.{kind}" if stems[clip.with_suffix("")] > 1 else f"{inside.stem}.{kind}"
        target = folder / inside.parent / name
        if target in taken:  # a.wav.flac beside a.wav and a.flac
            target = target.with_name(f"{inside.name}.{hashlib.sha256(os.fsencode(clip)).hexdigest()[:8]}.{kind}")
        taken.add(target)
        jobs.append(Job(clip, target, max_seconds))
    originals = {clip.resolve() for clip in unique}
    over = next((job for job in jobs if job.target.resolve() in originals), None)
    if over is not None:
        raise GamaError(f"{over.target} is an original, and would be written over", "give another folder with --out")
    return jobs


def _convert(job: Job) -> Job:
    try:
        changed = job.source.stat().st_mtime_ns
        if job.target.is_file() and job.target.stat().st_mtime_ns == changed:
            return job
        waveform = audio.load(job.source, end=job.max_seconds, max_duration=86_400.0)
    except FileNotFoundError:
        what = "is a URL, the path of a file was expected" if is_url(str(job.source)) else "no such file"
        return replace(job, error=f"{job.source}: {what}")
    except Exception as error:  # whatever a decoder raises is about this clip
        return replace(job, error=str(row_error(error, str(job.source), AudioError)))
    peak = peak_of(waveform)
    over = peak if peak > 1.0 else 0.0  # 16 bits would cut it off at full scale
    samples = waveform.samples / over if over else waveform.samples
    make_folder(job.target.parent)
    with replacing(job.target) as partial:
        partial.write_bytes(encoded(samples, job.target.suffix[1:].upper(), "PCM_16"))
        os.utime(partial, ns=(changed, changed))
    return replace(job, fresh=True, peak=over)


def _rewrite(manifest: Path, writer: Writer, target: dict[Path, Path], remap: Remap, out: Path) -> tuple[int, int]:
    """Rows kept and lost."""
    lost = 0
    for record, row in entries(manifest):
        if isinstance(row, ManifestError):
            lost += 1
            continue
        clip = remap.file(record["audio_id"], manifest)
        if clip is None:
            writer.add(record)
        elif (new := target.get(absolute(clip))) is not None:
            writer.add(record | {"audio_id": named_from(new, out)})
        else:
            lost += 1
    return writer.count, lost
