"""Small picture files of every kind that is read, and what Pillow sees in them: pictures/, for tests/unit/test_vision_image.c and the corpus
of the fuzz target.

    pictures.py pictures          (Pillow; transformers' convert_to_rgb is repeated here)

pictures.json: [file, height, width, largest difference allowed, pixels in hexadecimal]. The difference is 0 but for JPEG, which stb and libjpeg
decode with other rounding.
"""
import json
import os
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps

H, W = 7, 10


def colours(h=H, w=W):
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([25 * x, 36 * y, 255 - 14 * (x + y)], -1).clip(0, 255).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, interlaced=0, extra=b""):
    """A PNG file from rows as stored; Adam7's passes are the caller's."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def adam7(pixels):
    rows = b""
    for y0, x0, dy, dx in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        for row in pixels[y0::dy, x0::dx]:
            if len(row):
                rows += b"\0" + row.tobytes()
    return rows


def exif(orientation, order=">"):
    mark = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    other = struct.pack(order + "HHII", 0x0100, 4, 1, W)
    return mark + struct.pack(order + "IH", 8, 2) + other + entry + struct.pack(order + "I", 0)


def with_exif(jpeg, tiff):
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def save(folder, name, image, **options):
    image.save(os.path.join(folder, name), **options)


def write(folder, name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


def bmp(height, pixels, compression=0, masks=b""):
    """32 bits a pixel, from the top where height is negative."""
    size = 54 + len(masks) + len(pixels)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, 54 + len(masks)) + struct.pack("<IiiHHIIiiII", 40, W, height, 1, 32, compression, 0, 0, 0, 0, 0) + masks + pixels


def make_png(folder):
    rgb = Image.fromarray(colours())
    alpha = (np.mgrid[0:H, 0:W].sum(0) * 16).clip(0, 255).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([colours(), alpha]))
    save(folder, "rgb.png", rgb)
    save(folder, "rgba.png", rgba)
    save(folder, "grey.png", rgb.convert("L"))
    save(folder, "grey-alpha.png", rgba.convert("LA"))
    save(folder, "bits.png", rgb.convert("1"))
    save(folder, "palette.png", rgb.quantize(7))
    save(folder, "palette-transparent.png", rgb.quantize(16), transparency=3)
    save(folder, "transparent-colour.png", rgb, transparency=tuple(int(v) for v in colours()[2, 3]))
    wide = colours().astype(">u2") * 257 + 3
    write(folder, "rgb16.png", png(W, H, 16, 2, b"".join(b"\0" + row.tobytes() for row in wide)))
    write(folder, "interlaced.png", png(W, H, 8, 2, adam7(colours()), 1))
    write(folder, "turned.png", png(W, H, 8, 2, b"".join(b"\0" + row.tobytes() for row in colours()), 0, chunk(b"eXIf", exif(6))))


def make_jpeg(folder):
    rgb = Image.fromarray(colours())
    save(folder, "plain.jpg", rgb, quality=95, subsampling=0)
    save(folder, "halved.jpg", Image.fromarray(colours(17, 23)), quality=95)
    save(folder, "progressive.jpg", rgb, quality=95, subsampling=0, progressive=True)
    save(folder, "grey.jpg", rgb.convert("L"), quality=95)
    save(folder, "restarts.jpg", Image.fromarray(colours(17, 23)), quality=95, subsampling=0, restart_marker_blocks=1)
    with open(os.path.join(folder, "plain.jpg"), "rb") as file:
        plain = file.read()
    for orientation in range(1, 9):
        write(folder, f"turned-{orientation}.jpg", with_exif(plain, exif(orientation, "><"[orientation % 2])))


def make_others(folder):
    rgb = Image.fromarray(colours())
    save(folder, "plain.gif", rgb)
    frames = [rgb.quantize(8), rgb.transpose(Image.Transpose.ROTATE_180).quantize(8)]
    save(folder, "two-frames.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    save(folder, "transparent.gif", rgb.quantize(16), transparency=2)
    save(folder, "plain.bmp", rgb)
    save(folder, "palette.bmp", rgb.quantize(9))
    four = np.dstack([colours()[..., ::-1], np.full((H, W), 77, np.uint8)])
    write(folder, "fourth-byte.bmp", bmp(H, four[::-1].tobytes()))
    write(folder, "from-the-top.bmp", bmp(-H, four.tobytes()))
    for kind, image in (("4", rgb.convert("1")), ("5", rgb.convert("L")), ("6", rgb)):
        save(folder, f"raw-{kind}.pnm", image, format="PPM")
    write(folder, "plain-1.pnm", b"P1\n# bits\n10 7\n" + b"0110010111" * 7)
    write(folder, "plain-2.pnm", b"P2 10 7 100\n" + b" ".join(b"%d" % (v % 101) for v in range(70)))
    write(folder, "plain-3.pnm", b"P3\n10 7\n255\n" + b" ".join(b"%d" % v for v in colours().reshape(-1)))
    write(folder, "largest-100.pnm", b"P6 10 7 100\n" + (colours() % 101).tobytes())
    write(folder, "wide.pnm", b"P6 10 7 65535\n" + (colours().astype(">u2") * 257).tobytes())


def seen(path):
    image = ImageOps.exif_transpose(Image.open(path))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.asarray(image.convert("RGB"))


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    make_png(folder)
    make_jpeg(folder)
    make_others(folder)
    rows = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json"):
            continue
        pixels = seen(os.path.join(folder, name))
        rows.append(json.dumps([name, pixels.shape[0], pixels.shape[1], 4 if name.endswith(".jpg") else 0, pixels.tobytes().hex()]))
    write(folder, "pictures.json", ("[\n" + ",\n".join(rows) + "\n]\n").encode())


main()
