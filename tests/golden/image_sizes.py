"""What Pillow and transformers make of images of many sizes: image-sizes.json, for tests/unit/test_vision_sizes.c.

    image_sizes.py > image-sizes.json          (transformers 5.24, torch 2.15, Pillow 12.3)

Pillow 12: from 13 on Pillow may resize columns first, which rounds otherwise; torchvision and earlier Pillows always begin with the rows.

Images are made by a formula that the test repeats. "resize": checksums of Pillow's bytes. "pixels": sums of transformers' pixel_values (its
Pillow back end, which resizes as this project does) as in vision/README.md. "tokens": tokens and tiles, and for LLaVA-NeXT the order in
which the model packs the features (checksum of 32-bit indices, −1 for a newline).
"""
import json
import random
import types
import zlib

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import select_best_resolution
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
TINY_PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def picture(height, width):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([((7 * x + 13 * y + 29 * c) ^ (x * y >> 3)) & 255 for c in range(3)], -1).astype(np.uint8)


def resize_rows():
    rows = []
    sizes = [(1, 1, 5, 3), (1, 1, 336, 336), (2, 3, 7, 1), (3, 2, 1, 9), (5, 5, 5, 5), (64, 64, 336, 336), (97, 41, 56, 131), (41, 97, 41, 56),
             (200, 133, 200, 64), (333, 1, 12, 40), (1, 333, 3, 12), (480, 640, 336, 448), (481, 639, 64, 64), (600, 30, 11, 333), (255, 257, 511, 129)]
    for number in (1, 2, 3):
        for h, w, new_h, new_w in sizes:
            out = Image.fromarray(picture(h, w)).resize((new_w, new_h), number)
            rows.append([number, h, w, new_h, new_w, zlib.crc32(np.asarray(out).tobytes())])
    return rows


def sums(values):
    p = np.asarray(values, dtype=np.float64).reshape(-1)
    return {"shape": list(np.asarray(values).shape), "abs": float(np.abs(p).sum()),
            "weighted": float((p * ((np.arange(p.size) * 0.6180339887498949) % 1.0)).sum())}


def processors():
    return {
        "llava": (LlavaImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}), 336, 14),
        "llava-cut": (LlavaImageProcessorPil(size={"shortest_edge": 73}, crop_size={"height": 56, "width": 56}), 56, 14),
        "llava-square": (LlavaImageProcessorPil(size={"height": 56, "width": 56}, do_center_crop=False, do_pad=True), 56, 14),
        "llava-next": (LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336},
                                                  image_grid_pinpoints=PINPOINTS), 336, 14),
        "llava-next-tiny": (LlavaNextImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56},
                                                       image_grid_pinpoints=TINY_PINPOINTS), 56, 14),
        "idefics3": (Idefics3ImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}), 512, 16),
        "idefics3-tiny": (Idefics3ImageProcessorPil(size={"longest_edge": 256}, max_image_size={"longest_edge": 64}), 64, 8),
        "idefics3-whole": (Idefics3ImageProcessorPil(size={"longest_edge": 256}, max_image_size={"longest_edge": 64}, do_image_splitting=False), 64, 8),
    }


def pixel_rows():
    small = [(56, 56), (41, 97), (97, 41), (200, 133), (60, 300), (1, 1), (113, 112), (2, 800), (3, 7), (719, 11), (255, 256)]
    rows = []
    for name, (processor, tile, _) in processors().items():
        for h, w in small if tile < 100 else [(100, 75), (333, 501), (701, 32)]:
            out = processor(Image.fromarray(picture(h, w)), return_tensors="np")
            rows.append({"processor": name, "height": h, "width": w, **sums(out["pixel_values"])})
    return rows


def packed(height, width, pinpoints, tile, patch):
    """The order in which LlavaNextModel packs features that are their own numbers."""
    side = tile // patch
    best = select_best_resolution([height, width], pinpoints)
    count = 1 + best[0] // tile * (best[1] // tile)
    features = torch.arange(count * side * side, dtype=torch.float64).reshape(count, side * side, 1)
    config = types.SimpleNamespace(vision_config=types.SimpleNamespace(image_size=tile, patch_size=patch), image_grid_pinpoints=pinpoints)
    out, _ = LlavaNextModel.pack_image_features(types.SimpleNamespace(config=config), [features], [[height, width]], "default",
                                                torch.tensor([-1.0], dtype=torch.float64))
    order = out[0].reshape(-1).to(torch.int64).numpy().astype(np.int32)
    counter = types.SimpleNamespace(image_processor=types.SimpleNamespace(image_grid_pinpoints=pinpoints), patch_size=patch,
                                    num_additional_image_tokens=0)
    counter._get_unpadded_features = types.MethodType(LlavaNextProcessor._get_unpadded_features, counter)
    told = LlavaNextProcessor._get_number_of_features(counter, height, width, tile, tile)
    assert told == len(order), (height, width, told, len(order))
    return count, order


def token_rows():
    generator = random.Random(7)
    sizes = [(480, 640), (640, 480), (427, 640), (375, 500), (337, 337), (336, 336), (1008, 336), (336, 1008), (2, 800), (800, 2), (1, 5000), (5000, 1),
             (799, 376), (328, 861), (987, 376), (47, 1128)]  # a row or column more by rounding
    sizes += [(generator.randint(1, 4000), generator.randint(1, 4000)) for _ in range(60)]
    sizes += [(generator.randint(1, 120), generator.randint(1, 120)) for _ in range(60)]
    rows = []
    for h, w in sizes:
        for name, pinpoints, tile in (("llava-next", PINPOINTS, 336), ("llava-next-tiny", TINY_PINPOINTS, 56)):
            count, order = packed(h, w, pinpoints, tile, 14)
            rows.append([name, h, w, count, len(order), zlib.crc32(order.tobytes())])
    flat = lambda image, size, **_: np.broadcast_to(np.uint8(0), (image.shape[0], size.height, size.width))
    for name in ("idefics3", "idefics3-tiny"):
        processor, tile, patch = processors()[name]
        # Sizes only: nothing is resized, but for the number of pixels.
        base = Idefics3ImageProcessorPil.__mro__[1]
        true_resize, base.resize = base.resize, lambda self, image, size, resample=None, **_: flat(image, size)
        for h, w in sizes:
            out = processor(np.broadcast_to(np.uint8(0), (3, h, w)), return_row_col_info=True, input_data_format="channels_first", do_convert_rgb=False,
                            do_normalize=False, do_rescale=False, do_pad=False)
            grid = [int(out["rows"][0][0]), int(out["cols"][0][0])]
            rows.append([name, h, w, *grid])
        base.resize = true_resize
    return rows


def main():
    parts = {"resize": resize_rows(), "pixels": pixel_rows(), "tokens": token_rows()}
    print("{" + ",\n".join(f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "]" for name, rows in parts.items()) + "}")


main()
