"""Looks of surfaces: albedo (linear RGB) of the ground and of every material, filtered to a pixel's footprint.

u and v are metres on a surface: along it and up it. Colours are linear light, 0..1.
"""

import math

from tasks.core.demo import place
from tasks.core.demo.noise import band, fractal2, hash01, joint, kernel, noise2, noise3, ramp, resolved
from tasks.core.demo.rays import ground_at
from tasks.core.demo.scenery import DRY, FIELD, FIELD_NUMBER, LANE, LUSH, PAVED, WATER, YARD, World

Rgb = tuple[float, float, float]


@kernel
def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """From a (share 0) to b (share 1)."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share


@kernel
def scaled(a: Rgb, factor: float) -> Rgb:
    """A lighter or darker tone."""
    return a[0] * factor, a[1] * factor, a[2] * factor


@kernel
def _dots(
    color: Rgb, dot: Rgb, x: float, y: float, cell_m: float, share: float, radius_m: float, pixel: float, seed: int
) -> Rgb:
    """Flowers, pebbles or lily pads: some of the cells contain a disc, each of its own size and position."""
    i, j = math.floor(x / cell_m), math.floor(y / cell_m)
    if hash01(i, j, seed) > share:
        return color
    radius = radius_m * (0.6 + 0.4 * hash01(i, j, seed + 1))
    px, py = (i + 0.35 + 0.3 * hash01(i, j, seed + 2)) * cell_m, (j + 0.35 + 0.3 * hash01(i, j, seed + 3)) * cell_m
    covered = band(math.hypot(x - px, y - py), radius, pixel) * resolved(2 * radius, pixel * 0.7)
    return mix(color, dot, covered)


@kernel
def _meadow(x: float, y: float, lush: float, dry: float, pixel: float) -> Rgb:
    color = mix((0.115, 0.175, 0.040), (0.200, 0.235, 0.062), ramp(-0.7, 0.7, lush))
    color = mix(color, (0.290, 0.255, 0.100), 0.55 * ramp(0.1, 0.7, dry))
    color = scaled(color, 1 + 0.42 * fractal2(x, y, 1.3, 4, 0.75, pixel, 31))
    # Daisies where the meadow is lush, buttercups elsewhere, both in drifts; clover everywhere.
    drift = noise2(x * 0.16, y * 0.16, 41)
    if lush < -0.05:
        color = _dots(color, (0.62, 0.60, 0.50), x, y, 0.45, 0.6 * ramp(0.45, 0.85, drift), 0.085, pixel, 43)
    else:
        color = _dots(color, (0.62, 0.47, 0.07), x, y, 0.5, 0.5 * ramp(0.55, 0.15, drift), 0.09, pixel, 47)
    return color


@kernel
def _gravel(x: float, y: float, pixel: float) -> Rgb:
    color = mix((0.37, 0.33, 0.27), (0.47, 0.43, 0.36), ramp(-0.6, 0.6, fractal2(x, y, 3.0, 3, 0.6, pixel, 61)))
    color = scaled(color, 1 + 0.38 * fractal2(x, y, 0.5, 3, 0.8, pixel, 67))
    color = _dots(color, (0.28, 0.255, 0.215), x, y, 0.5, 0.45, 0.11, pixel, 71)
    return _dots(color, (0.54, 0.51, 0.45), x, y, 0.4, 0.4, 0.10, pixel, 73)


@kernel
def _asphalt(x: float, y: float, pixel: float) -> Rgb:
    color = mix((0.105, 0.105, 0.11), (0.19, 0.185, 0.18), ramp(-0.6, 0.6, fractal2(x, y, 6.0, 4, 0.7, pixel, 263)))
    color = scaled(color, 1 + 0.30 * fractal2(x, y, 0.6, 3, 0.8, pixel, 269))
    cracked = ramp(0.5, 0.75, noise2(x * 0.11, y * 0.11, 277))
    color = scaled(color, 1 - 0.5 * cracked * band(fractal2(x, y, 3.4, 3, 0.6, pixel, 271), 0.035, 0.05))
    return _dots(color, (0.07, 0.07, 0.075), x, y, 4.3, 0.4, 0.75, pixel, 281)  # mended spots and manholes


@kernel
def _pavement(x: float, y: float, pixel: float) -> Rgb:
    color = mix((0.29, 0.28, 0.26), (0.41, 0.39, 0.36), ramp(-0.5, 0.5, fractal2(x, y, 2.0, 4, 0.75, pixel, 283)))
    return scaled(color, 1 - 0.35 * max(joint(x, 0.75, 0.06, pixel), joint(y, 0.75, 0.06, pixel)))


@kernel
def _rows(crop: int, along: float, across: float, spacing: float, pixel: float) -> Rgb:
    soil = mix(
        (0.20, 0.135, 0.085), (0.28, 0.20, 0.13), ramp(-0.6, 0.6, fractal2(along, across, 2.0, 4, 0.7, pixel, 83))
    )
    row = math.floor(across / spacing)
    inside = across / spacing - row - 0.5
    wobble = 0.16 * fractal2(along, 7.7 * row, 1.1, 2, 0.6, pixel, 89)
    known = ramp(1.5, 3.5, spacing / pixel)
    if crop == 2:  # stubble
        tone = (
            1 + 0.22 * math.cos(2 * math.pi * inside) * known + 0.30 * fractal2(along, across, 0.7, 3, 0.8, pixel, 97)
        )
        return mix(
            scaled((0.52, 0.40, 0.19), tone), soil, 0.35 * ramp(0.2, 0.9, fractal2(along, across, 5, 3, 0.6, pixel, 5))
        )
    if crop == 3:  # ripening grain with the tracks of a tractor
        ripe = ramp(-0.6, 0.6, fractal2(along, across, 7, 4, 0.7, pixel, 127))
        grain = mix((0.30, 0.29, 0.09), (0.47, 0.38, 0.15), ripe)
        grain = scaled(grain, 1 + 0.26 * fractal2(along, across, 0.8, 3, 0.8, pixel, 139))
        return mix(grain, soil, 0.8 * max(joint(across, 12.0, 0.5, pixel), joint(across - 1.8, 12.0, 0.5, pixel)))
    if crop == 4:  # ploughed soil
        return scaled(soil, 0.9 + 0.3 * math.cos(2 * math.pi * (inside + 0.3 * wobble)) * known)
    plant = mix((0.075, 0.15, 0.035), (0.16, 0.25, 0.06), noise2(along * 1.7, 13.0 * row, 101))
    if crop == 0:
        plant = mix((0.16, 0.10, 0.28), (0.33, 0.22, 0.47), noise2(along * 1.5, 13.0 * row, 103))
        plant = mix(plant, (0.13, 0.19, 0.07), ramp(0.55, 0.8, noise2(along * 3.1, across * 3.1, 105)) * 0.7)
    plant = scaled(plant, 1 + 0.5 * fractal2(along, across, 0.55, 2, 0.8, pixel, 107))
    covered = ramp(-0.07, 0.07, 0.33 + wobble - abs(inside)) * known + 0.66 * (1 - known)
    return mix(soil, plant, covered)


@kernel
def _water(x: float, y: float, depth: float, pixel: float) -> Rgb:
    color = mix((0.17, 0.19, 0.12), (0.045, 0.105, 0.115), ramp(0.0, 0.9, depth))
    color = scaled(color, 1 + 0.30 * fractal2(x + 0.4 * y, y * 1.6, 2.6, 4, 0.65, pixel, 113))
    if ramp(0.9, 0.3, depth) + 0.5 * noise2(x * 0.4, y * 0.4, 117) > 0.75:
        color = _dots(color, (0.12, 0.24, 0.05), x, y, 0.95, 0.6, 0.30, pixel, 119)
    return color


@kernel
def ground_albedo(world: World, x: float, y: float, pixel: float) -> Rgb:
    """Meadow, fields, lane, yards and pond."""
    depth = ground_at(world.ground, x, y, WATER)
    if depth > 0.02:
        return mix((0.23, 0.20, 0.13), _water(x, y, depth, pixel), ramp(0.0, 0.12, depth))
    lane = ground_at(world.ground, x, y, LANE)
    gravel_edge = min(lane - place.LANE_HALF_WIDTH, ground_at(world.ground, x, y, YARD))
    field_edge = ground_at(world.ground, x, y, FIELD)
    ragged = 0.0
    if min(gravel_edge, field_edge) < 1.3:  # no edge is more ragged than that
        ragged = 0.45 * fractal2(x, y, 1.6, 4, 0.7, pixel, 131)
    gravel_edge, field_edge = gravel_edge + ragged, field_edge + ragged
    color = (0.0, 0.0, 0.0)
    if field_edge > -0.1:
        color = _meadow(x, y, ground_at(world.ground, x, y, LUSH), ground_at(world.ground, x, y, DRY), pixel)
    if field_edge < 0.3:
        field = int(ground_at(world.ground, x, y, FIELD_NUMBER) + 0.5)
        cos, sin = world.fields[field, 0], world.fields[field, 1]
        spacing, crop = world.fields[field, 2], int(world.fields[field, 3])
        rows = _rows(crop, cos * x + sin * y, cos * y - sin * x, spacing, pixel)
        color = mix(color, rows, ramp(0.3, -0.1, field_edge))
    if depth > -0.35:  # the shore: damp earth and reeds
        color = mix(
            color, mix((0.22, 0.18, 0.11), (0.10, 0.17, 0.05), noise2(x * 2.2, y * 2.2, 137)), ramp(-0.35, -0.1, depth)
        )
    if gravel_edge < 0.25:
        gravel = _gravel(x, y, pixel)
        if lane < 0.6:  # grass between the wheel tracks
            gravel = mix(gravel, color, 0.75 * ramp(0.45, 0.1, lane + 0.6 * ragged))
        color = mix(color, gravel, ramp(0.25, -0.25, gravel_edge))
    paved = ground_at(world.ground, x, y, PAVED)
    if paved < 1.7:
        color = mix(color, _pavement(x, y, pixel), ramp(1.65, 1.45, paved))
        color = mix(color, (0.44, 0.43, 0.40), band(paved, 0.14, pixel))  # kerb
        color = mix(color, _asphalt(x, y, pixel), ramp(0.0, -0.2, paved))
    return color


@kernel
def _plaster(u: float, v: float, style: float, pixel: float) -> Rgb:
    color = mix((0.66, 0.62, 0.53), (0.70, 0.50, 0.27), style)
    color = scaled(color, 1 + 0.16 * fractal2(u, v, 2.0, 5, 0.75, pixel, 149))
    return scaled(color, 0.72 + 0.28 * ramp(-0.2, 0.9, v))  # splashed foot


@kernel
def _planks(u: float, v: float, style: float, pixel: float) -> Rgb:
    color = mix((0.33, 0.22, 0.13), (0.36, 0.075, 0.05), ramp(0.4, 0.9, style))
    plank = math.floor(u / 0.32)
    color = scaled(color, 1 + 0.45 * (hash01(plank, 3, 151) - 0.5) * resolved(0.32, pixel))
    color = scaled(color, 1 + 0.30 * fractal2(u * 3, v * 0.5, 1.0, 4, 0.7, pixel, 157))
    return scaled(color, 1 - 0.5 * joint(u, 0.32, 0.04, pixel))


@kernel
def _courses(
    light: Rgb, dark: Rgb, u: float, v: float, length: float, height: float, gap: float, pixel: float, seed: int
) -> Rgb:
    """Tiles, slates, bricks and stones: courses of pieces, every second one shifted by half a piece."""
    course = math.floor(v / height)
    shifted = u + (0.5 * length if course % 2 else 0.0)
    piece = math.floor(shifted / length)
    own = (hash01(piece, course, seed) - 0.5) * resolved(min(length, height), 0.8 * pixel) + 0.5
    patch = 0.5 * fractal2(u, v, 3.0, 4, 0.65, pixel, seed + 5)
    color = mix(dark, light, min(max(own + patch, 0.0), 1.0))
    seam = max(joint(shifted, length, gap, pixel), joint(v, height, gap * 1.4, pixel))
    color = scaled(color, 1 - 0.45 * seam)
    return scaled(color, 1 + 0.16 * fractal2(u, v, 0.4, 2, 0.8, pixel, seed + 9))


@kernel
def roof_albedo(material: int, u: float, v: float, length: float, south: bool, pixel: float) -> Rgb:
    """One slope of a roof: u along the ridge from its middle, v up the slope."""
    if material == place.CLAY_TILES:
        return _courses((0.52, 0.20, 0.10), (0.27, 0.095, 0.055), u, v, 0.30, 0.40, 0.05, pixel, 163)
    if material == place.SLATE:
        return _courses((0.24, 0.25, 0.28), (0.10, 0.105, 0.125), u, v, 0.45, 0.34, 0.04, pixel, 167)
    color = scaled((0.33, 0.36, 0.37), 1 + 0.20 * fractal2(u, v * 0.4, 2.4, 5, 0.7, pixel, 173))
    color = mix(color, (0.34, 0.17, 0.09), 0.5 * ramp(0.25, 0.8, fractal2(u, v * 0.5, 1.7, 4, 0.7, pixel, 179)))
    color = scaled(color, 1 - 0.40 * joint(u, 0.75, 0.10, pixel))
    if south and abs(u) < 0.5 * length - 1.6 and 1.2 < v < 4.8:  # solar panels
        frame = max(joint(u, 1.1, 0.09, pixel), joint(v - 1.2, 1.8, 0.09, pixel))
        cell = max(joint(u, 0.275, 0.03, pixel), joint(v - 1.2, 0.3, 0.03, pixel))
        own = 0.35 * hash01(math.floor(u / 1.1), math.floor((v - 1.2) / 1.8), 181)
        color = mix(scaled((0.035, 0.06, 0.13), 0.85 + own), (0.14, 0.18, 0.26), 0.6 * cell)
        color = mix(color, (0.55, 0.57, 0.60), frame)
    return color


@kernel
def wall_albedo(
    material: int, u: float, v: float, length: float, height: float, style: float, side: int, pixel: float
) -> Rgb:
    """A wall with windows and doors: u from its middle, v from the floor."""
    color = _planks(u, v, style, pixel) if material == place.PLANKS else _plaster(u, v, style, pixel)
    trim = (0.62, 0.60, 0.55)
    if material == place.PLANKS and length > 6 and side >= 2 and height > 4:  # barn gate
        gate = band(u, 1.9, pixel) * band(v - 1.6, 1.7, pixel)
        leaf = scaled((0.30, 0.20, 0.12), 1 - 0.5 * joint(u, 0.4, 0.05, pixel))
        cross = max(
            band(abs(u) - 0.95 - 0.55 * (v - 1.6), 0.10, pixel), band(abs(u) - 0.95 + 0.55 * (v - 1.6), 0.10, pixel)
        )
        leaf = mix(leaf, trim, max(cross, band(abs(abs(u) - 0.95) - 0.95, 0.09, pixel)))
        return mix(color, leaf, gate)
    if length < 4.5 and side < 2:
        return color
    spacing = length / max(1.0, math.floor(length / 2.7))
    number = math.floor(u / spacing + 0.5) if math.floor(length / 2.7) % 2 else math.floor(u / spacing) + 0.5
    inside = u - number * spacing
    if side == 0 and number > 0 and number < 1.2 and height > 3:
        door = band(inside, 0.58, pixel) * band(v - 1.1, 1.1, pixel)
        surround = band(inside, 0.74, pixel) * band(v - 1.15, 1.25, pixel)
        color = mix(color, trim, surround)
        return mix(color, scaled((0.13, 0.22, 0.16), 1 - 0.4 * joint(inside, 0.29, 0.04, pixel)), door)
    floors = max(2, int(height / 2.6)) if height > 4.8 else 1
    for storey in range(floors):
        w = v - (1.55 + 2.35 * storey)
        shutter = band(abs(inside) - 0.80, 0.23, pixel) * band(w, 0.66, pixel)
        slats = scaled(
            mix((0.12, 0.26, 0.22), (0.30, 0.10, 0.07), ramp(0.4, 0.6, style)), 1 - 0.35 * joint(w, 0.18, 0.06, pixel)
        )
        color = mix(color, slats, shutter)
        color = mix(color, trim, band(inside, 0.58, pixel) * band(w, 0.76, pixel))
        pane = band(abs(inside) - 0.24, 0.19, pixel) * band(abs(w) - 0.34, 0.29, pixel)
        own = hash01(int(2 * number) + 9 * side, storey, 191)
        color = mix(color, mix((0.05, 0.07, 0.10), (0.16, 0.20, 0.25), own + 0.25 * w), pane)
    return color


@kernel
def plain_albedo(material: int, u: float, v: float, w: float, style: float, top: bool, pixel: float) -> Rgb:
    """Albedo of everything without openings: u, v on the surface, w the third local axis."""
    if material == place.STONE or material == place.BRICK:
        if material == place.STONE:
            return _courses((0.47, 0.45, 0.40), (0.23, 0.22, 0.19), u, v, 0.46, 0.27, 0.06, pixel, 193)
        return mix(
            _courses((0.46, 0.20, 0.13), (0.28, 0.11, 0.08), u, v, 0.3, 0.18, 0.04, pixel, 197),
            (0.05, 0.05, 0.05),
            0.8 * band(u, 0.25, pixel) * band(v, 0.18, pixel) if top else 0.0,
        )
    if material == place.FENCE_WOOD:
        color = scaled(
            mix((0.20, 0.15, 0.10), (0.46, 0.38, 0.28), style), 1 + 0.35 * fractal2(u, 4 * v, 1.0, 3, 0.7, pixel, 199)
        )
        return scaled(color, 1 - 0.5 * joint(v, 0.26, 0.05, pixel))
    if material == place.STRAW:
        ring = math.hypot(u, v) if top and style < 0.7 else v * 1.3  # the end of a round bale, or a stack
        color = scaled((0.58, 0.45, 0.21), 1 + 0.30 * fractal2(u, 2 * v, 0.6, 2, 0.8, pixel, 211))
        return scaled(color, 1 - 0.30 * joint(ring, 0.24, 0.10, pixel))
    if material == place.ROCK:
        color = scaled((0.36, 0.35, 0.32), 1 + 0.45 * (fractal2(u, w, 0.9, 4, 0.7, pixel, 223)))
        return mix(color, (0.17, 0.20, 0.08), 0.6 * ramp(0.5, 0.75, noise3(u * 2.2, v * 2.2, w * 2.2, 227)))
    if material == place.CAR_PAINT:
        color = mix((0.50, 0.045, 0.04), (0.12, 0.24, 0.42), ramp(0.3, 0.5, style))
        return mix(color, (0.55, 0.56, 0.57), ramp(0.75, 0.85, style))
    if material == place.GLASS:
        if style > 0.7:  # greenhouse
            pane = max(joint(u, 0.62, 0.07, pixel), joint(v, 0.6, 0.07, pixel))
            green = mix((0.22, 0.34, 0.25), (0.38, 0.46, 0.42), noise2(u * 1.6, v * 1.6, 229))
            return mix(green, (0.68, 0.70, 0.68), pane)
        return 0.05, 0.065, 0.08
    if material == place.SOIL_BED:
        soil = mix((0.13, 0.09, 0.06), (0.12, 0.24, 0.05), ramp(0.35, 0.6, noise2(u * 3.3, v * 3.3, 233)))
        soil = _dots(soil, (0.62, 0.12, 0.08), u, v, 0.4, 0.35, 0.12, pixel, 239)
        return soil if top else (0.34, 0.25, 0.16)
    if material == place.BARK:
        return scaled((0.16, 0.115, 0.08), 1 + 0.4 * fractal2(u, v, 0.5, 2, 0.7, pixel, 241))
    if material == place.RUBBER:
        return 0.035, 0.035, 0.037
    if material == place.HEDGE:
        leafy = ramp(-0.5, 0.5, fractal2(u, v + w, 0.9, 4, 0.8, pixel, 293))
        color = mix((0.045, 0.10, 0.025), (0.13, 0.21, 0.05), leafy)
        return scaled(color, 1 + 0.5 * fractal2(u, v - w, 0.3, 2, 0.8, pixel, 307))
    if material == place.CONCRETE:
        color = scaled((0.40, 0.39, 0.37), 1 + 0.30 * fractal2(u, v, 3.0, 5, 0.75, pixel, 311))
        return scaled(color, 1 - 0.3 * max(joint(u, 2.5, 0.08, pixel), joint(v, 2.5, 0.08, pixel)))
    if material == place.ROAD_PAINT:
        return scaled((0.60, 0.60, 0.57), 1 + 0.25 * fractal2(u, v, 0.7, 3, 0.8, pixel, 313))
    return _planks(u, v, style, pixel)


@kernel
def leaf_albedo(material: int, x: float, y: float, z: float, tint: float, depth: float, pixel: float) -> Rgb:
    """Leaves and needles; `depth` 0 in the crevices between clumps, 1 at their tips."""
    if material == place.NEEDLES:
        color = mix((0.030, 0.070, 0.035), (0.105, 0.165, 0.070), 0.65 * depth + 0.35 * tint)
    elif tint > 1.0:
        color = mix((0.17, 0.22, 0.09), (0.74, 0.50, 0.52), ramp(0.25, 0.75, depth))
    else:
        color = mix(
            mix((0.035, 0.085, 0.022), (0.085, 0.120, 0.028), tint),
            mix((0.125, 0.215, 0.045), (0.30, 0.31, 0.075), tint),
            depth,
        )
    fine = (noise3(x * 5.2, y * 5.2, z * 5.2, 251) - 0.5) * resolved(0.19, pixel * 0.7)
    fine += 0.8 * (noise3(x * 2.1, y * 2.1, z * 2.1, 257) - 0.5)
    return scaled(color, 1 + 0.55 * fine)
