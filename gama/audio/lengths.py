"""Where a file ends by its own headers, for kinds whose decoder takes what is there for the whole.

Each function reads a few fields and returns a position in bytes; None where the header leaves the length open. A file
that ends before it has lost sound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gama.audio.source import Source

End = int | None
_OPEN = 0xFFFFFFFF
_MAX_PIECES = 1_000_000
_READ = 2**16
_BOXES = frozenset(b"ftyp moov mdat free skip wide uuid moof mfra sidx ssix styp pnot meta udta PICT emsg prft".split())
_AMR = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)  # bytes of a frame by its type
_AMR_WB = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def check_length(source: Source, name: str) -> None:
    """Compare a file's size with what its header promises.

    Raises:
        AudioError: it is cut off.
    """
    end = _ENDS[name](source) if name in _ENDS else None
    if end is not None and end > source.size:
        raise source.error(f"is cut off: its header promises {end} bytes, {source.size} are there")


def _number(source: Source, position: int, size: int, order: Literal["little", "big"] = "little") -> int:
    return int.from_bytes(source.read_at(position, size), order)


def _au(source: Source) -> End:
    order: Literal["little", "big"] = "big" if source.read_at(0, 4) == b".snd" else "little"
    size = _number(source, 8, 4, order)
    return None if size == _OPEN else _number(source, 4, 4, order) + size


def _caf(source: Source) -> End:
    position = 8
    for _ in range(_MAX_PIECES):
        if position + 12 > source.size:  # libsndfile leaves a byte behind ALAC
            break
        name, size = source.read_at(position, 4), _number(source, position + 4, 8, "big")
        if size >= 1 << 63:  # "up to the end", which the samples alone may say
            return None if name == b"data" else source.size + 1
        position += 12 + size
    return position


def _w64(source: Source) -> End:
    position = 40
    for _ in range(_MAX_PIECES):
        if position + 24 > source.size:
            return None
        name, size = source.read_at(position, 4), _number(source, position + 16, 8)
        if name == b"data":
            return None if size >= 1 << 62 or size < 24 else position + size
        position += max(24, (size + 7) // 8 * 8)
    return None


def _voc(source: Source) -> End:
    position = _number(source, 20, 2)
    for _ in range(_MAX_PIECES):
        head = source.read_at(position, 4)
        if not head[:1].strip(b"\0"):  # the terminator, or the end
            break
        position += 4 + int.from_bytes(head[1:4], "little")
    return position


def _svx(source: Source) -> End:
    position = 12
    for _ in range(_MAX_PIECES):
        head = source.read_at(position, 8)
        if len(head) < 8:
            return None
        size = int.from_bytes(head[4:], "big")
        if head[:4] == b"BODY":
            return position + 8 + size
        position += 8 + size + size % 2
    return None


def _nist(source: Source) -> End:
    head = source.read_at(0, 1024).decode("latin-1")
    lines = (line.split(maxsplit=2) for line in head.splitlines())
    fields = {words[0]: words[2] for words in lines if len(words) == 3}
    try:
        begin = int(head.splitlines()[1])
        size = int(fields["sample_count"]) * int(fields["sample_n_bytes"]) * int(fields.get("channel_count", 1))
    except (IndexError, KeyError, ValueError):
        return None
    return None if "shorten" in fields.get("sample_coding", "") else begin + size


def _avr(source: Source) -> End:
    channels = 1 if _number(source, 12, 2) == 0 else 2
    return 128 + _number(source, 26, 4, "big") * channels * _number(source, 14, 2, "big") // 8


def _wve(source: Source) -> End:
    return 32 + _number(source, 18, 4, "big")


def _htk(source: Source) -> End:
    return 12 + 2 * _number(source, 0, 4, "big")


def _sds(source: Source) -> End:
    bits, frames = source.read_at(6, 1)[0], _seven(source.read_at(10, 3))
    per_packet = 120 // (2 if bits <= 14 else 3 if bits <= 21 else 4)
    count = -(-frames // per_packet)
    for position in range(21, min(21 + 127 * count, source.size - 126), 127):
        packet = source.read_at(position, 127)
        if packet[:2] != b"\xf0\x7e" or packet[3:4] != b"\x02" or packet[-1] != 0xF7:  # libsndfile prints them
            raise source.error(f"is broken: no packet of samples at byte {position} of {source.size}")
    return 21 + 127 * count


def _seven(content: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content))


def _mpc2k(source: Source) -> End:
    return 42 + 2 * _number(source, 30, 4) * (1 + source.read_at(21, 1)[0])


def _xi(source: Source) -> End:
    return 338 + _number(source, 298, 4)


def _mat4(source: Source) -> End:
    """Two variables: the rate, and the samples."""
    order: Literal["little", "big"] = "little" if _number(source, 4, 4) == 1 else "big"
    position = 0
    for _ in range(2):
        kind, rows, columns, _, name = (_number(source, position + at, 4, order) for at in (0, 4, 8, 12, 16))
        size = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}.get(kind // 10 % 10)
        if size is None:
            return None
        position += 20 + name + rows * columns * size
    return position


def _mat5(source: Source) -> End:
    order: Literal["little", "big"] = "little" if source.read_at(126, 2) == b"IM" else "big"
    position = 128
    for _ in range(_MAX_PIECES):
        if position + 8 > source.size:
            break
        position += 8 + _number(source, position + 4, 4, order)
    return position - 8  # libsndfile counts the last tag in, MATLAB does not


def _mov(source: Source) -> End:
    position = 0
    for _ in range(_MAX_PIECES):
        head = source.read_at(position, 16)
        if head[4:8] not in _BOXES:
            return None
        size = int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if size < 8:
            return None
        position += size
    return position


def _matroska(source: Source) -> End:
    begin = 4 + _vint(source.read_at(4, 8))[1] + (_vint(source.read_at(4, 8))[0] or 0)
    if source.read_at(begin, 4) != b"\x18\x53\x80\x67":
        return None
    size, width = _vint(source.read_at(begin + 4, 8))
    return None if size is None else begin + 4 + width + size


def _vint(content: bytes) -> tuple[int | None, int]:
    """An EBML number, None where all its bits are set, and its width in bytes."""
    width = 9 - content[0].bit_length() if content and content[0] else 8
    value = int.from_bytes(content[:width], "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), width


def _avi(source: Source) -> End:
    position = 0
    for _ in range(_MAX_PIECES):
        head = source.read_at(position, 12)
        if head[:4] != b"RIFF" or head[8:] not in (b"AVI ", b"AVIX"):
            return position or None
        size = int.from_bytes(head[4:8], "little")
        if size in (0, _OPEN):
            return None
        position += 8 + size
    return position


def _asf(source: Source) -> End:
    position = 30
    for _ in range(1000):
        name, size = source.read_at(position, 4), _number(source, position + 16, 8)
        if name == b"\xa1\xdc\xab\x8c":
            broadcast = _number(source, position + 88, 4) & 1
            return None if broadcast else _number(source, position + 40, 8)
        if size < 24 or position + size > source.size:
            return None
        position += size
    return None


def _mpegts(source: Source) -> End:
    packet = 188 if source.read_at(0, 1) == b"\x47" else 192
    return -(-source.size // packet) * packet


def _flv(source: Source) -> End:
    return _walked(source, _number(source, 5, 4, "big") + 4, 11, _flv_tag)


def _flv_tag(head: bytes) -> int | None:
    return 15 + int.from_bytes(head[1:4], "big") if head[0] & 0x1F in (8, 9, 18) else None


def _wv(source: Source) -> End:
    """Every block states its size, the first how many samples there are, each how many it ends at."""
    total = _number(source, 12, 4)
    position = reached = 0
    for _ in range(_MAX_PIECES):
        head = source.read_at(position, 32)
        if head[:4] != b"wvpk":
            break
        reached = max(reached, int.from_bytes(head[16:20], "little") + int.from_bytes(head[20:24], "little"))
        position += 8 + int.from_bytes(head[4:8], "little")
    return source.size + 1 if total != _OPEN and reached < total else position


def _tta(source: Source) -> End:
    rate, samples = _number(source, 10, 4), _number(source, 14, 4)
    if not rate:
        return None
    frames = -(-samples * 245 // (256 * rate))
    if frames > _MAX_PIECES or 26 + 4 * frames > source.size:
        return source.size + 1
    table = source.read_at(22, 4 * frames)
    return 26 + 4 * frames + sum(int.from_bytes(table[at : at + 4], "little") for at in range(0, 4 * frames, 4))


def _dsf(source: Source) -> End:
    return _number(source, 12, 8)


def _iff(source: Source) -> End:
    return 12 + _number(source, 4, 8, "big")


def _sox(source: Source) -> End:
    order: Literal["little", "big"] = "little" if source.read_at(0, 1) == b"." else "big"
    return 4 + _number(source, 4, 4, order) + 4 * _number(source, 8, 8, order)


def _kvag(source: Source) -> End:
    return 14 + _number(source, 4, 4)


def _roq(source: Source) -> End:
    return _walked(source, 8, 8, lambda head: 8 + int.from_bytes(head[2:6], "little") if head[1] == 0x10 else None)


def _adx(source: Source) -> End:
    head = source.read_at(0, 16)
    return 4 + int.from_bytes(head[2:4], "big") + -(-int.from_bytes(head[12:16], "big") // 32) * 18 * head[7]


def _aac(source: Source) -> End:
    return _walked(source, 0, 7, _adts_frame)


def _adts_frame(head: bytes) -> int | None:
    if head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    return max(7, (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)


def _latm(source: Source) -> End:
    return _walked(source, 0, 3, _latm_frame)


def _latm_frame(head: bytes) -> int | None:
    return 3 + ((head[1] & 0x1F) << 8 | head[2]) if head[0] == 0x56 and head[1] & 0xE0 == 0xE0 else None


def _amr(source: Source) -> End:
    head = source.read_at(0, 9)
    sizes, begin = (_AMR_WB, 9) if head == b"#!AMR-WB\n" else (_AMR, 6)
    return _walked(source, begin, 1, lambda frame: sizes[frame[0] >> 3 & 15])


def _ac3(source: Source) -> End:
    return _walked(source, 0, 6, _ac3_frame)


def _ac3_frame(head: bytes) -> int | None:
    if head[:2] != b"\x0b\x77":
        return None
    if head[5] >> 3 > 10:  # E-AC-3 states it
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    rate, code = head[4] >> 6, head[4] & 63
    if rate == 3 or code > 37:
        return None
    kilobits = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)[code >> 1]
    words = kilobits * 96 // (48, 44.1, 32)[rate] // 1 if rate != 1 else kilobits * 320 // 147 + (code & 1)
    return 2 * int(words)


def _walked(source: Source, position: int, header: int, size_of: Callable[[bytes], int | None]) -> int:
    """The end of frames that follow each other and state their sizes; what follows them, a tag say, is left alone."""
    block, block_at = b"", 0
    while position < source.size:
        at = position - block_at
        if at < 0 or at + header > len(block):
            block, block_at, at = source.read_at(position, _READ), position, 0
        size = size_of(block[at : at + header].ljust(header, b"\0"))
        if size is None:
            break
        position += size
    return position


_ENDS: dict[str, Callable[[Source], End]] = {
    **{"au": _au, "caf": _caf, "w64": _w64, "voc": _voc, "svx": _svx, "nist": _nist, "avr": _avr, "wve": _wve},
    **{"htk": _htk, "sds": _sds, "mpc2k": _mpc2k, "xi": _xi, "mat4": _mat4, "mat5": _mat5, "mov": _mov},
    **{"matroska": _matroska, "avi": _avi, "asf": _asf, "mpegts": _mpegts, "flv": _flv, "wv": _wv, "tta": _tta},
    **{"sox": _sox, "kvag": _kvag, "roq": _roq, "adx": _adx},
    **{"dsf": _dsf, "iff": _iff, "aac": _aac, "latm": _latm, "amr": _amr, "ac3": _ac3},
}
