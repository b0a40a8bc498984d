"""The common corruptions as the published scripts compute them, to compare with and to time against.

Independent restatement of the algorithms of hendrycks/robustness (make_cifar_c.py, make_tinyimagenet_c.py,
imagenet_c/corruptions.py) with the same libraries: numpy, scipy, scikit-image, OpenCV, Pillow and, through wand,
ImageMagick. Every function takes a PIL image, a severity of 1 to 5 and a protocol ("cifar", "64", "224") and
returns a uint8 array.
"""

import ctypes
import glob
import os
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.ndimage import zoom as scipy_zoom
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from skimage.util import random_noise

try:
    from wand.api import library as wand_library
    from wand.image import Image as WandImage

    wand_library.MagickMotionBlurImage.argtypes = (ctypes.c_void_p,) + (ctypes.c_double,) * 3
except ImportError:
    WandImage = None

PROTOCOLS = {"cifar": 0, "64": 1, "224": 2}
SIDES = {"cifar": 32, "64": 64, "224": 224}
CONSTANTS = {
    "gaussian_noise": ([0.04, 0.06, 0.08, 0.09, 0.10], [0.04, 0.08, 0.12, 0.15, 0.18], [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot_noise": ([500, 250, 100, 75, 50], [250, 100, 50, 30, 15], [60, 25, 12, 5, 3]),
    "impulse_noise": ([0.01, 0.02, 0.03, 0.05, 0.07], [0.01, 0.02, 0.05, 0.08, 0.14], [0.03, 0.06, 0.09, 0.17, 0.27]),
    "speckle_noise": ([0.06, 0.1, 0.12, 0.16, 0.2], [0.15, 0.2, 0.25, 0.3, 0.35], [0.15, 0.2, 0.35, 0.45, 0.6]),
    "gaussian_blur": ([0.4, 0.6, 0.7, 0.8, 1], [0.5, 0.75, 1, 1.25, 1.5], [1, 2, 3, 4, 6]),
    "glass_blur": (
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    ),
    "defocus_blur": (
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "motion_blur": (
        [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
        [(10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)],
        [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    ),
    "zoom_blur": (
        [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    ),
    "fog": (
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    "frost": (
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)],
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    ),
    "snow": (
        [(0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
         (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)],
        [(0.1, 0.2, 1, 0.6, 8, 3, 0.8), (0.1, 0.2, 1, 0.5, 10, 4, 0.8), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
         (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6)],
        [(0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
         (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)],
    ),
    "spatter": (
        [(0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 1, 0.69, 0.5, 0),
         (0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.1, 0.5, 0.68, 0.6, 1)],
        [(0.62, 0.1, 0.7, 0.7, 0.6, 0), (0.65, 0.1, 0.8, 0.7, 0.6, 0), (0.65, 0.3, 1, 0.69, 0.6, 0),
         (0.65, 0.1, 0.7, 0.68, 0.6, 1), (0.65, 0.1, 0.5, 0.67, 0.6, 1)],
        [(0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0), (0.65, 0.3, 2, 0.68, 0.5, 0),
         (0.65, 0.3, 1, 0.65, 1.5, 1), (0.67, 0.4, 1, 0.65, 1.5, 1)],
    ),
    "contrast": ([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05], [0.4, 0.3, 0.2, 0.1, 0.05]),
    "brightness": ([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]),
    "saturate": (
        [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
        [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)],
        [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
    ),
    "jpeg_compression": ([80, 65, 58, 50, 40], [65, 58, 50, 40, 25], [25, 18, 15, 10, 7]),
    "pixelate": ([0.95, 0.9, 0.85, 0.75, 0.65], [0.9, 0.8, 0.7, 0.6, 0.5], [0.6, 0.5, 0.4, 0.3, 0.25]),
    "elastic_transform": (
        [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
        [(0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)],
        [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)],
    ),
}
DETERMINISTIC = ["defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression",
                 "gaussian_blur", "saturate"]


def constants(name, severity, protocol):
    return CONSTANTS[name][PROTOCOLS[protocol]][severity - 1]


def unit(image):
    return np.array(image) / 255.0


def byte(values):
    return np.uint8(np.clip(values, 0, 1) * 255)


def gaussian_noise(image, severity, protocol):
    x = unit(image)
    return byte(x + np.random.normal(size=x.shape, scale=constants("gaussian_noise", severity, protocol)))


def shot_noise(image, severity, protocol):
    c = constants("shot_noise", severity, protocol)
    return byte(np.random.poisson(unit(image) * c) / float(c))


def impulse_noise(image, severity, protocol):
    return byte(random_noise(unit(image), mode="s&p", amount=constants("impulse_noise", severity, protocol)))


def speckle_noise(image, severity, protocol):
    x = unit(image)
    return byte(x + x * np.random.normal(size=x.shape, scale=constants("speckle_noise", severity, protocol)))


def gaussian_blur(image, severity, protocol):
    return byte(gaussian(unit(image), sigma=constants("gaussian_blur", severity, protocol), channel_axis=-1))


def glass_blur(image, severity, protocol):
    sigma, step, passes = constants("glass_blur", severity, protocol)
    side = SIDES[protocol]
    x = np.uint8(gaussian(unit(image), sigma=sigma, channel_axis=-1) * 255)
    for _ in range(passes):
        for row in range(side - step, step, -1):
            for column in range(side - step, step, -1):
                dx, dy = np.random.randint(-step, step, size=(2,))
                # The published line means to swap; numpy's views make it a copy.
                x[row, column], x[row + dy, column + dx] = x[row + dy, column + dx], x[row, column]
    return byte(gaussian(x / 255.0, sigma=sigma, channel_axis=-1))


def disk(radius, alias_blur):
    reach, size = (8, 3) if radius <= 8 else (radius, 5)
    line = np.arange(-reach, reach + 1)
    x, y = np.meshgrid(line, line)
    kernel = np.array(x**2 + y**2 <= radius**2, dtype=np.float32)
    return cv2.GaussianBlur(kernel / kernel.sum(), ksize=(size, size), sigmaX=alias_blur)


def defocus_blur(image, severity, protocol):
    kernel = disk(*constants("defocus_blur", severity, protocol))
    x = unit(image)
    return byte(np.stack([cv2.filter2D(x[:, :, c], -1, kernel) for c in range(3)], axis=-1))


def magick_motion_blur(image, radius, sigma, angle):
    stream = BytesIO()
    image.save(stream, format="PNG")
    picture = WandImage(blob=stream.getvalue())
    wand_library.MagickMotionBlurImage(picture.wand, radius, sigma, angle)
    return cv2.imdecode(np.frombuffer(picture.make_blob(), np.uint8), cv2.IMREAD_UNCHANGED)


def motion_blur(image, severity, protocol):
    radius, sigma = constants("motion_blur", severity, protocol)
    x = magick_motion_blur(image, radius, sigma, np.random.uniform(-45, 45))
    return x[..., [2, 1, 0]] if x.ndim == 3 else np.stack([x] * 3, axis=-1)


def clipped_zoom(image, factor):
    side = image.shape[0]
    crop = int(np.ceil(side / factor))
    top = (side - crop) // 2
    image = scipy_zoom(image[top : top + crop, top : top + crop], (factor, factor, 1), order=1)
    trim = (image.shape[0] - side) // 2
    return image[trim : trim + side, trim : trim + side]


def zoom_blur(image, severity, protocol):
    end, step = constants("zoom_blur", severity, protocol)
    factors = np.arange(1, end, step)
    x = unit(image).astype(np.float32)
    out = np.zeros_like(x)
    for factor in factors:
        out += clipped_zoom(x, factor)
    return byte((x + out) / (len(factors) + 1))


def plasma_fractal(mapsize, wibbledecay):
    heights = np.zeros((mapsize, mapsize))
    step, wibble = mapsize, 100

    def wobbled(total):
        return total / 4 + wibble * np.random.uniform(-wibble, wibble, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[0:mapsize:step, 0:mapsize:step]
        total = corners + np.roll(corners, -1, axis=0)
        total = total + np.roll(total, -1, axis=1)
        heights[half:mapsize:step, half:mapsize:step] = wobbled(total)
        centres = heights[half:mapsize:step, half:mapsize:step]
        corners = heights[0:mapsize:step, 0:mapsize:step]
        total = centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        heights[0:mapsize:step, half:mapsize:step] = wobbled(total)
        total = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        heights[half:mapsize:step, 0:mapsize:step] = wobbled(total)
        step //= 2
        wibble /= wibbledecay
    heights -= heights.min()
    return heights / heights.max()


def fog(image, severity, protocol):
    amount, decay = constants("fog", severity, protocol)
    side = SIDES[protocol]
    x = unit(image)
    peak = x.max()
    mapsize = 1 << (side - 1).bit_length()
    x += amount * plasma_fractal(mapsize, decay)[:side, :side][..., np.newaxis]
    return byte(x * peak / (peak + amount))


def frost(image, severity, protocol):
    """Needs the published textures in the folder that FROST_TEXTURES names; read anew each time, as published."""
    keep, amount = constants("frost", severity, protocol)
    side = SIDES[protocol]
    names = sorted(glob.glob(os.path.join(os.environ["FROST_TEXTURES"], "frost*")))
    texture = cv2.imread(names[np.random.randint(5)])
    scale = {"cifar": 0.2, "64": 0.3, "224": 1}[protocol]
    if scale != 1:
        texture = cv2.resize(texture, (0, 0), fx=scale, fy=scale)
    top, left = (np.random.randint(0, texture.shape[axis] - side) for axis in (0, 1))
    texture = texture[top : top + side, left : left + side][..., [2, 1, 0]]
    return np.uint8(np.clip(keep * np.array(image) + amount * texture, 0, 255))


def snow(image, severity, protocol):
    mean, deviation, zoom, threshold, radius, sigma, keep = constants("snow", severity, protocol)
    x = np.array(image, dtype=np.float32) / 255.0
    layer = np.random.normal(size=x.shape[:2], loc=mean, scale=deviation)
    layer = clipped_zoom(layer[..., np.newaxis], zoom)
    layer[layer < threshold] = 0
    layer = Image.fromarray(np.uint8(np.clip(layer.squeeze(), 0, 1) * 255))
    layer = magick_motion_blur(layer, radius, sigma, np.random.uniform(-135, -45)) / 255.0
    layer = layer.reshape(x.shape[0], x.shape[1], -1)[..., :1]
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    x = keep * x + (1 - keep) * np.maximum(x, grey * 1.5 + 0.5)
    return byte(x + layer + np.rot90(layer, k=2))


def spatter(image, severity, protocol):
    mean, deviation, sigma, threshold, amount, mud = constants("spatter", severity, protocol)
    x = np.array(image, dtype=np.float32) / 255.0
    liquid = gaussian(np.random.normal(size=x.shape[:2], loc=mean, scale=deviation), sigma=sigma)
    liquid[liquid < threshold] = 0
    if mud:
        cover = gaussian(np.where(liquid > threshold, 1, 0).astype(np.float32), sigma=amount)
        cover[cover < 0.8] = 0
        colour = np.array([63, 42, 20]) / 255.0
        return byte(x * (1 - cover[..., np.newaxis]) + colour * cover[..., np.newaxis])
    liquid = (liquid * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    _, distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)
    shade = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    shade = cv2.filter2D(shade, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    shade = cv2.blur(shade, (3, 3)).astype(np.float32)
    water = cv2.cvtColor(liquid * shade, cv2.COLOR_GRAY2BGRA)
    water /= np.max(water, axis=(0, 1))
    colour = np.array([175, 238, 238]) / 255.0
    return byte(x + water[..., :3] * amount * colour)


def contrast(image, severity, protocol):
    x = unit(image)
    means = x.mean(axis=(0, 1), keepdims=True)
    return byte((x - means) * constants("contrast", severity, protocol) + means)


def brightness(image, severity, protocol):
    x = rgb2hsv(unit(image))
    x[:, :, 2] = np.clip(x[:, :, 2] + constants("brightness", severity, protocol), 0, 1)
    return byte(hsv2rgb(x))


def saturate(image, severity, protocol):
    factor, offset = constants("saturate", severity, protocol)
    x = rgb2hsv(unit(image))
    x[:, :, 1] = np.clip(x[:, :, 1] * factor + offset, 0, 1)
    return byte(hsv2rgb(x))


def jpeg_compression(image, severity, protocol):
    stream = BytesIO()
    image.save(stream, "JPEG", quality=constants("jpeg_compression", severity, protocol))
    return np.array(Image.open(stream))


def pixelate(image, severity, protocol):
    side = SIDES[protocol]
    small = int(side * constants("pixelate", severity, protocol))
    return np.array(image.resize((small, small), Image.BOX).resize((side, side), Image.BOX))


def elastic_transform(image, severity, protocol):
    reference = {"cifar": 32, "64": 64, "224": 244}[protocol]
    displacement, sigma, corner = (reference * c for c in constants("elastic_transform", severity, protocol))
    x = np.array(image, dtype=np.float32) / 255.0
    shape = x.shape
    centre = np.float32(shape[:2]) // 2
    reach = min(shape[:2]) // 3
    start = np.float32([centre + reach, [centre[0] + reach, centre[1] - reach], centre - reach])
    end = start + np.random.uniform(-corner, corner, size=start.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(start, end)
    x = cv2.warpAffine(x, matrix, shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)

    def field():
        noise = np.random.uniform(-1, 1, size=shape[:2])
        return (gaussian(noise, sigma, mode="reflect", truncate=3) * displacement).astype(np.float32)[..., np.newaxis]

    dx, dy = field(), field()
    columns, rows, channels = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]), np.arange(shape[2]))
    indices = [np.reshape(i, (-1, 1)) for i in (rows + dy, columns + dx, channels)]
    return byte(map_coordinates(x, indices, order=1, mode="reflect").reshape(shape))


CORRUPTIONS = {name: globals()[name] for name in CONSTANTS}
