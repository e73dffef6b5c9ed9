"""F1-F16: what a pair can have wrong."""

import io
import json
import struct
import zlib

from PIL import Image

from tests.data.faults import image_bytes, pair, plain, truncated_jpeg
from tests.faults.case import Case, fault


def _captioned(name: str, data: bytes) -> list:
    return [plain(name, data), plain(name.rpartition(".")[0] + ".txt", b"a caption")]


def _saved(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@fault("F1", "an image file that ends in its middle", "`truncated_image`; the scan goes on")
def truncated(case: Case) -> None:
    rows = case.scan_members(_captioned("cut.jpg", truncated_jpeg()), rows=1)
    assert rows["cut"]["status"] == "truncated_image"


@fault("F2", "no bytes, or a web page, under an image's name", "`undecodable_image`")
def no_image(case: Case) -> None:
    page = b"<!DOCTYPE html><title>404 Not Found</title>"
    members = [*_captioned("page.jpg", page), *_captioned("zero.jpg", b"")]
    rows = case.scan_members(members, rows=2)
    assert rows["page"]["status"] == rows["zero"]["status"] == "undecodable_image"


@fault(
    "F3",
    "a decompression bomb: 20,000 x 20,000 pixels in a few bytes",
    "`oversized_image`, told by its header; the limit is `encode.max_image_pixels`",
)
def bomb(case: Case) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    rows_of_zeros = zlib.compress(bytes(60_001 * 100), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows_of_zeros)
    rows = case.scan_members(_captioned("bomb.png", png + chunk(b"IEND", b"")), rows=1)
    assert rows["bomb"]["status"] == "oversized_image"


@fault("F4", "formats that are not read: EPS, TIFF, SVG", "`unsupported_image`; none is opened")
def exotic(case: Case) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file closefile\n"
    tiff = _saved(Image.new("RGB", (9, 9)), "TIFF")
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    members = [
        *_captioned("eps.png", eps),
        *_captioned("tiff.jpg", tiff),
        *_captioned("svg.png", svg),
    ]
    rows = case.scan_members(members, rows=3)
    assert {rows[key]["status"] for key in ("eps", "tiff", "svg")} == {"unsupported_image"}


@fault(
    "F5",
    "CMYK, palettes, transparency, 16 bits, animation, 1 x 1 and 1 x 9,999 pixels, turned by EXIF",
    "read as RGB (tests/data/test_images.py has the pixels): white behind transparency, the first "
    "frame, 16 bits scaled; EXIF orientation is not applied, as in open_clip's training",
)
def kinds(case: Case) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb = Image.linear_gradient("L").resize((20, 10)).convert("RGB")
    frames = [Image.new("P", (9, 9), 3)]
    files = {
        "cmyk.jpg": _saved(rgb.convert("CMYK"), "JPEG"),
        "palette.png": _saved(rgb.convert("P"), "PNG", transparency=0),
        "la.png": _saved(rgb.convert("LA"), "PNG"),
        "deep.png": _saved(Image.new("I;16", (9, 9), 40_000), "PNG"),
        "moving.gif": _saved(Image.new("P", (9, 9), 1), "GIF", save_all=True, append_images=frames),
        "dot.png": _saved(rgb.resize((1, 1)), "PNG"),
        "strip.png": _saved(rgb.resize((1, 9_999)), "PNG"),
        "turned.jpg": _saved(rgb, "JPEG", exif=turned),
    }
    members = [m for name, data in files.items() for m in _captioned(name, data)]
    rows = case.scan_members(members, rows=len(files))
    assert {rows[name.partition(".")[0]]["status"] for name in files} == {"ok"}


@fault("F6", "damaged EXIF, XMP and colour profiles", "ignored; the pixels are read")
def metadata(case: Case) -> None:
    rgb = Image.new("RGB", (9, 9), "teal")
    jpeg = _saved(rgb, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    png = _saved(rgb, "PNG", icc_profile=b"no profile")
    rows = case.scan_members([*_captioned("a.jpg", jpeg), *_captioned("b.png", png)], rows=2)
    assert rows["a"]["status"] == rows["b"]["status"] == "ok"


@fault(
    "F7", "an extension that lies", "read by its first bytes; a cleaned copy keeps name and bytes"
)
def lying_name(case: Case) -> None:
    jpeg = image_bytes(5, "JPEG", 16)
    rows = case.scan_members(_captioned("lie.png", jpeg), "--write_clean", rows=1)
    assert rows["lie"]["status"] == "ok"
    assert jpeg in (case.out / "clean" / "00000.tar").read_bytes()
    assert b"lie.png" in (case.out / "clean" / "00000.tar").read_bytes()


@fault(
    "F8",
    "a caption that is not UTF-8",
    "scored with U+FFFD for what cannot be read, flag `caption_encoding`; a cleaned copy has the "
    "original bytes",
)
def latin(case: Case) -> None:
    rows = case.scan_members(pair("latin", 1, b"caf\xe9 au lait"), "--write_clean", rows=1)
    assert rows["latin"]["caption"] == "caf\ufffd au lait"
    assert rows["latin"]["flags"] == ["caption_encoding"]
    assert b"caf\xe9 au lait" in (case.out / "clean" / "00000.tar").read_bytes()


@fault(
    "F9", "a caption with a byte-order mark, or in UTF-16", "the mark is dropped; UTF-16 is flagged"
)
def marks(case: Case) -> None:
    members = [*pair("bom", 1, b"\xef\xbb\xbfmarked"), *pair("wide", 2, "grüße".encode("utf-16"))]
    rows = case.scan_members(members, rows=2)
    assert rows["bom"]["caption"] == "marked"
    assert rows["bom"]["flags"] == []
    assert rows["wide"]["status"] == "ok"
    assert rows["wide"]["flags"] == ["caption_encoding"]


@fault("F10", "a caption that is empty, blank or missing", "`missing_caption`, no verdict")
def empty(case: Case) -> None:
    members = [
        *pair("empty", 1, b""),
        *pair("blank", 2, b" \n\t "),
        plain("none.png", image_bytes(3)),
    ]
    rows = case.scan_members(members, rows=3)
    assert {rows[k]["status"] for k in ("empty", "blank", "none")} == {"missing_caption"}
    assert {rows[k]["verdict"] for k in ("empty", "blank", "none")} == {"skipped"}


@fault(
    "F11",
    "a caption of a megabyte",
    "scored by its beginning, flag `caption_truncated`; the report stays small",
)
def long(case: Case) -> None:
    rows = case.scan_members(pair("long", 1, b"very " * 200_000 + b"long"), rows=1)
    assert rows["long"]["status"] == "ok"
    assert rows["long"]["flags"] == ["caption_truncated"]
    assert (case.out / "report" / "index.html").stat().st_size < 900_000


@fault(
    "F12",
    "lone surrogates, NUL, line separators, right-to-left marks, emoji",
    "stored as text that every reader takes: surrogates and NUL become U+FFFD, the rest stays",
)
def strange_text(case: Case) -> None:
    kept = "a\u2028b \u202egnp.exe 🦜"
    members = [
        plain("lone.png", image_bytes(1)),
        plain("lone.json", b'{"caption": "a\\ud800b"}'),
        *pair("nul", 2, b"a\0b"),
        *pair("kept", 3, kept.encode()),
    ]
    rows = case.scan_members(members, rows=3)
    assert rows["lone"]["caption"] == rows["nul"]["caption"] == "a\ufffdb"
    assert rows["kept"]["caption"] == kept


HOSTILE = "<script>document.title='executed'</script> \"><img src=x onerror=alert(1)> {{7*7}}"


@fault(
    "F13",
    "markup, script and template syntax in captions and keys",
    "text in the report, never markup (tests/e2e/test_report_chromium.py looks with a browser)",
)
def markup(case: Case) -> None:
    # a set whose captions are all hostile: whichever are shown
    members = [m for i in range(9) for m in pair(f"<u class=k>{i}", i, HOSTILE.encode())]
    case.scan_members(members, rows=9)
    page = (case.out / "report" / "index.html").read_text()
    assert "<script>document" not in page
    assert "<img src=x" not in page
    assert "<u class=k>" not in page
    assert "&lt;script&gt;document" in page


@fault("F14", "terminal escapes in keys and captions", "nothing of the data is printed raw")
def escapes(case: Case) -> None:
    members = pair("red\x1b[31m", 1, b"\x1b]0;executed\x07 [/red]")
    case.scan_members(members, rows=1)
    ran = case.run("rescore", case.out, "--fdr=0.5", f"--out={case.folder / 'out' / 'again'}")
    assert "\x1b" not in ran.out + ran.err


@fault(
    "F15", "captions that a spreadsheet takes for formulas", "results are Parquet and JSON: no CSV"
)
def formulas(case: Case) -> None:
    rows = case.scan_members(pair("formula", 1, b"=cmd|' /C calc'!A0"), rows=1)
    assert rows["formula"]["caption"] == "=cmd|' /C calc'!A0"
    assert not [file for file in case.out.rglob("*") if file.suffix.lower() in (".csv", ".tsv")]


@fault(
    "F16",
    "an image without a caption, a caption without an image",
    "`missing_caption`, `missing_image`",
)
def halves(case: Case) -> None:
    only_json = json.dumps({"caption": "words"}).encode()
    members = [
        plain("image.png", image_bytes(1)),
        plain("words.txt", b"words"),
        plain("side.json", only_json),
    ]
    rows = case.scan_members(members, rows=3)
    assert rows["image"]["status"] == "missing_caption"
    assert rows["words"]["status"] == rows["side"]["status"] == "missing_image"
