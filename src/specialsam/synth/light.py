"""Light on objects, the shadows they cast, and the camera: from clean linear pixels to a photograph."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.synth.materials import GRAIN_SIDE, grain

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
RELIEF_SIDE = 72


def shading(rng: np.random.Generator, mask: ByteArray, light: float, strength: float) -> FloatArray:
    """Brightness (h, w), about 1, of a rounded body with outline `mask`, its light from direction `light` (radians)."""
    height, width = mask.shape
    shrink = min(1.0, RELIEF_SIDE / max(height, width))
    size = (max(4, round(width * shrink)), max(4, round(height * shrink)))
    small = cv2.copyMakeBorder(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    depth = cv2.distanceTransform((small > 127).astype(np.uint8), cv2.DIST_L2, 3)
    reach = max(float(depth.max()) * rng.uniform(0.35, 1.0), 1.0)
    inner = np.minimum(depth / reach, 1)
    dome = cv2.GaussianBlur(np.sqrt(inner * (2 - inner)) * reach, (0, 0), max(0.8, reach * 0.15))
    gx, gy = cv2.Sobel(dome, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(dome, cv2.CV_32F, 0, 1, scale=0.125)
    slant = rng.uniform(0.6, 2.0)
    facing = (1 - slant * (gx * np.cos(light) + gy * np.sin(light))) / np.sqrt(1 + gx * gx + gy * gy)
    rim = 1 - rng.uniform(0, 0.5) * (1 - inner) ** 2
    relief = np.maximum(1 + strength * (np.maximum(facing, 0.1) * rim - 1), 0.15)
    return np.asarray(cv2.resize(relief[1:-1, 1:-1], (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def threefold(plane: FloatArray) -> FloatArray:
    """A plane (h, w) as (h, w, 3): far quicker to multiply colours with than a broadcast last axis."""
    return np.asarray(cv2.merge((plane, plane, plane)), np.float32)


def photograph(rng: np.random.Generator, pixels: FloatArray, unit: float) -> ByteArray:
    """Clean pixels, float32 RGB (H, W, 3) about 0..1, as a camera and a JPEG file would hand them over, uint8."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1:1:16j, -1:1:16j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    fall = (
        1 + rng.uniform(0, 0.3) * (x * np.cos(angle) + y * np.sin(angle)) - rng.uniform(0, 0.35) * (x * x + y * y) / 2
    )
    if rng.random() < 0.4:  # dappled light
        at = rng.integers(0, GRAIN_SIDE - 16, 2)
        spots = cv2.GaussianBlur(grain()[0][at[0] : at[0] + 16, at[1] : at[1] + 16], (0, 0), rng.uniform(0.8, 3))
        fall = fall * np.exp(np.tanh(spots / spots.std()) * rng.uniform(0.08, 0.35))
    image = pixels * threefold(cv2.resize(fall.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC))
    haze = rng.random()
    if haze < 0.15:
        image = image * (1 - haze * 3) + np.float32(haze * 3) * rng.uniform(0.4, 0.9, 3).astype(np.float32)
    sharpness = rng.random()
    if sharpness < 0.45:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.1)) * unit), np.float32)
    elif sharpness > 0.75:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0 * unit)
        image = np.asarray(cv2.addWeighted(image, 1 + sharpness, soft, -sharpness, 0), np.float32)
    amount = float(np.exp(rng.uniform(np.log(0.002), np.log(0.035))))
    plane = grain()[int(rng.integers(2))]
    for channel in range(3):
        at = rng.integers(0, GRAIN_SIDE - 64, 2) if channel == 0 or rng.random() < 0.5 else at
        image[..., channel] += _window(plane, int(at[0]), int(at[1]), height, width) * amount
    byte = cv2.convertScaleAbs(np.maximum(image, 0), alpha=255)
    byte = cv2.LUT(byte, _tone(rng, byte))
    if rng.random() < 0.3:  # more or less colour
        grey = cv2.cvtColor(cv2.cvtColor(byte, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        share = float(rng.uniform(0.2, 1.7))
        byte = cv2.addWeighted(byte, share, grey, 1 - share, 0)
    quality = int(rng.integers(40, 96))
    _, packed = cv2.imencode(".jpg", cv2.cvtColor(byte, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    taken = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(taken, cv2.COLOR_BGR2RGB), np.uint8)


def _window(plane: FloatArray, top: int, left: int, height: int, width: int) -> FloatArray:
    """A (height, width) piece of a plane that repeats without end."""
    rows, columns = (top + np.arange(height)) % plane.shape[0], (left + np.arange(width)) % plane.shape[1]
    if rows[-1] > rows[0] and columns[-1] > columns[0] and height <= plane.shape[0] and width <= plane.shape[1]:
        return np.asarray(plane[top : top + height, left : left + width], np.float32)
    return np.asarray(plane[rows][:, columns], np.float32)


def _tone(rng: np.random.Generator, image: ByteArray) -> ByteArray:
    """A tone curve for each channel (256, 1, 3): exposure towards a random mean, gamma, contrast, colour cast."""
    mean = max(float(image[::7, ::7].mean()) / 255, 0.02)
    target = rng.beta(5, 5.5)
    gamma = np.clip(1 + 0.7 * (np.log(max(target, 0.05)) / np.log(min(mean, 0.98)) - 1), 0.45, 2.2)
    v = (np.arange(256) / 255) ** gamma
    bend = rng.uniform(0, 0.95)
    v = (1 - bend) * v + bend * v * v * (3 - 2 * v)
    black, white = rng.uniform(-0.03, 0.08), rng.uniform(0.85, 1.1)
    cast = np.exp(rng.normal(0, 0.07, 3)) if rng.random() < 0.6 else np.ones(3)
    curve = (black + (white - black) * v)[:, None] * cast
    return np.asarray(curve.clip(0, 1) * 255, np.uint8)[:, None]
