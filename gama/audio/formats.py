"""What kind of file it is, by its first bytes and never by its name."""

from __future__ import annotations

from dataclasses import dataclass

from gama.audio.source import Source

_HEAD = 1024
_KNOWN = "wav, flac, ogg, mp3 and aiff are known, m4a, webm, video and others by PyAV"
_REFUSED = {  # what is given in place of a clip, and what to do
    b"version https://git-lfs": ("is a git-lfs pointer, not the sound itself", "run git lfs pull where it lies"),
    b"#EXTM3U": ("is a playlist, not a sound file", "give the files that it names"),
    b"[playlist]": ("is a playlist, not a sound file", "give the files that it names"),
    b"MThd": ("is MIDI: notes, not sound", "render it to a wav first"),
    b"PK\3\4": ("is a zip archive, not a sound file", "unpack it, and give the clips inside"),
    b"\x1f\x8b\x08": ("is a gzip archive, not a sound file", "unpack it, and give the clips inside"),
    b"%PDF-": ("is a PDF, not a sound file", None),
    b"\x89PNG": ("is a picture, not a sound file", None),
    b"\xff\xd8\xff": ("is a picture, not a sound file", None),
}
_PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body")


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: short and lower case.
        demuxer: what FFmpeg calls it; empty where it reads none such.
        libsndfile: whether libsndfile is asked first.
    """

    name: str
    demuxer: str = ""
    libsndfile: bool = False


_LIBSNDFILE = {  # name: FFmpeg's
    **{"wav": "wav", "aiff": "aiff", "flac": "flac", "ogg": "ogg", "mp3": "mp3", "au": "au", "caf": "caf"},
    **{"w64": "w64", "voc": "voc", "ircam": "ircam", "nist": "nistsphere", "paf": "epaf", "pvf": "pvf"},
    **{"svx": "iff", "avr": "avr", "wve": "", "sds": "sds", "xi": "", "mat4": "", "mat5": "", "mpc2k": "", "htk": ""},
}
FORMATS = {name: Format(name, demuxer, libsndfile=True) for name, demuxer in _LIBSNDFILE.items()}

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"fLaC", "flac"),
    (0, b".snd", "au"),
    (0, b"dns.", "au"),
    (0, b"caff", "caf"),
    (0, b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", "w64"),
    (0, b"Creative Voice File\x1a", "voc"),
    (0, b"NIST_1A", "nist"),
    (0, b" paf", "paf"),
    (0, b"fap ", "paf"),
    (0, b"PVF1\n", "pvf"),
    (0, b"2BIT", "avr"),
    (0, b"ALawSoundFile**", "wve"),
    (0, b"Extended Instrument: ", "xi"),
    (20, b"samplerate\0", "mat4"),
    (0, b"MATLAB 5.0 MAT-f", "mat5"),
    # Read by PyAV alone: FFmpeg's names.
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (0, b"FLV\x01", "flv"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\0\0\1\xba", "mpeg"),
    (0, b"\xb7\xd8\x00\x20\x37\x49\xda\x11", "wtv"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "mxf"),
    (0, b"\0\0\0\0\1\xbc", "gxf"),
    (0, b"nut/multimedia container\0", "nut"),
    (0, b".RMF", "rm"),
    (0, b".ra\xfd", "rm"),
    (0, b"wvpk", "wv"),
    (0, b"TTA1", "tta"),
    (0, b"MAC ", "ape"),
    (0, b"tBaK", "tak"),
    (0, b"MP+", "mpc"),
    (0, b"MPCK", "mpc8"),
    (0, b"OSQ ", "osq"),
    (0, b"ajkg", "shn"),
    (0, b"DSD ", "dsf"),
    (0, b"FRM8", "iff"),
    (0, b"TWIN97012000", "vqf"),
    (0, b"ea3\3", "oma"),
    (0, b"EA3\1", "oma"),
    (0, b"#!AMR", "amr"),
    (0, b"#!iLBC", "ilbc"),
    (0, b"\x1c\xcc", "lc3"),
    (0, b"\xc0\xde\xc2", "codec2"),
    (0, b"\x0b\x77", "ac3"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"\xfe\x7f\x01\x80", "dts"),
    (0, b"\x1f\xff\xe8\x00", "dts"),
    (0, b"\xff\x1f\x00\xe8", "dts"),
    (0, b"DTSHDHDR", "dtshd"),
    (4, b"\xf8\x72\x6f\xba", "truehd"),
    (4, b"\xf8\x72\x6f\xbb", "mlp"),
    (0, b"qoaf", "qoa"),
    (0, b"\x84\x10\xff\xff\xff\xff", "roq"),
    (0, b".SoX", "sox"),
    (0, b"XoS.", "sox"),
    (0, b"MMMD", "mmf"),
    (0, b"FWS", "swf"),
    (0, b"CWS", "swf"),
    (0, b"ALP ", "alp"),
    (20, b"vs12", "apm"),
    (0, b"ASF\0", "argo_asf"),
    (0, b"STRM", "ast"),
    (0, b"KVAG", "kvag"),
    (0, b"\0\0SMJPEG", "smjpeg"),
    (0, b"\0\x0aSMJPEG", "smjpeg"),
)
_RIFF = {b"WAVE": "wav", b"AVI ": "avi", b"XWMA": "xwma", b"QLCM": "qcp", b"CDXA": "mpeg"}
_FORM = {b"AIFF": "aiff", b"AIFC": "aiff", b"8SVX": "svx", b"16SV": "svx"}
_DEMUXERS = {"ac3": "ac3,eac3", "aac": "aac", "latm": "loas"}

# What no byte at the beginning tells is offered to these: containers of sound with a probe of their own that takes
# no chance bytes. None of them opens another file or a socket, none reads text.
PROBED = (
    "aa,acm,aea,afc,aix,amv,apc,argo_brp,argo_cvg,bfstm,binka,bink,boa,brstm,cdxl,dfpwm,dhav,dsicin,dss,dxa,"
    "ea,fsb,fwse,genh,hca,hcom,iamf,idcin,iss,laf,mca,mmf,mods,msf,mtaf,musx,mxf,nsp,nsv,nuv,pmp,pp_bnk,pva,rka,"
    "rpl,rsd,rso,scd,sdr2,sdx,siff,smk,sol,spdif,svag,thp,tmv,usm,vag,vividas,vmd,vpk,wavarc,wc3movie,wsaud,"
    "wsd,wsvqa,xvag,yop"
)


def recognised(source: Source) -> Format:
    """The kind of file; what stands before it (ID3 tags) has been taken off.

    Raises:
        AudioError: text, a web page, a git-lfs pointer, an archive, or nothing that is known here.
    """
    head = source.read_at(0, _HEAD)
    name = _by_magic(head) or _by_structure(source, head)
    if name is not None:
        return FORMATS.get(name) or Format(name, _DEMUXERS.get(name, name))
    _refuse(source, head)
    from gama.audio.mpeg import find_frames

    if find_frames(source) is not None:
        return FORMATS["mp3"]
    return Format("unknown", PROBED)


def unknown(source: Source) -> Exception:
    """The error for a file that nothing reads."""
    return source.error("is not a sound file that is known here", _KNOWN)


def _by_magic(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM":
        return _FORM.get(head[8:12])
    if head[:4] == b"OggS":
        return "ogg"
    found = (name for offset, magic, name in _MAGIC if head.startswith(magic, offset))
    return next(found, None)


def _by_structure(source: Source, head: bytes) -> str | None:
    """Kinds whose first bytes are few: more of their header has to fit."""
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    if len(head) > 2 and head[0] == 0x56 and head[1] & 0xE0 == 0xE0 and _latm_follows(head):
        return "latm"
    if any(head[at : at + 1] == b"\x47" == head[at + step : at + step + 1] == head[at + 2 * step : at + 2 * step + 1]
           for at, step in ((0, 188), (4, 192))):  # fmt: skip
        return "mpegts"
    if head[:2] == b"\x80\0" and head[(at := int.from_bytes(head[2:4], "big")) - 2 : at + 4] == b"(c)CRI":
        return "adx"
    if head[:2] == b"\xf0\x7e" and head[3:4] == b"\x01" and len(head) > 21:
        return "sds"
    if head[:1] == b"\x64" and head[1:2] == b"\xa3" and head[2:4] in (b"\1\0", b"\2\0", b"\3\0", b"\4\0"):
        return "ircam"
    if head[:1] == b"\0" and head[2:4] == b"\xa3\x64" and head[1:2] in (b"\1", b"\2", b"\3", b"\4"):
        return "ircam"
    if head[8:12] == b"\0\2\0\0" and _is_rate(10_000_000, int.from_bytes(head[4:8], "big")):
        frames = int.from_bytes(head[:4], "big")
        return "htk" if 12 + 2 * frames >= source.size > 12 else None
    if head[:2] == b"\1\4" and len(head) > 42 and _is_mpc2k(head):
        return "mpc2k"
    return None


def _is_rate(units: int, period: int) -> bool:
    return period > 0 and 1_000 <= units / period <= 768_000


def _is_mpc2k(head: bytes) -> bool:
    name, rate = head[2:19], int.from_bytes(head[40:42], "little")
    return all(32 <= byte < 127 or not byte for byte in name) and head[21] in (0, 1) and rate >= 1_000


def _latm_follows(head: bytes) -> bool:
    size = 3 + ((head[1] & 0x1F) << 8 | head[2])
    return size + 2 > len(head) or (head[size] == 0x56 and head[size + 1] & 0xE0 == 0xE0)


def _refuse(source: Source, head: bytes) -> None:
    for begin, (message, hint) in _REFUSED.items():
        if head.startswith(begin):
            raise source.error(message, hint)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_PAGES):
        raise source.error("is a web page or XML, not a sound file", "download the sound itself, signed in if need be")
    if _is_text(head):
        raise source.error("is text, not a sound file", _KNOWN)


def _is_text(head: bytes) -> bool:
    try:
        text = head[: len(head) - 4 if len(head) == _HEAD else len(head)].decode("utf-8")
    except UnicodeDecodeError as failed:
        if failed.start < len(head) - 4:
            return False
        text = head[: failed.start].decode("utf-8")
    return all(sign.isprintable() or sign in "\t\r\n\f" for sign in text)
