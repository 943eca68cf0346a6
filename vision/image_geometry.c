#include "vision/image_geometry.h"

#include <math.h>

static uint32_t at_least(uint32_t value, uint32_t least) { return value < least ? least : value; }

image_size geometry_shortest_edge(image_size size, uint32_t edge) {
    bool upright = size.width <= size.height;
    double shorter = upright ? size.width : size.height, longer = upright ? size.height : size.width;
    double other = (double)edge * longer / shorter; // below 2^12 · 10^8, exact to an integer
    uint32_t length = other > UINT32_MAX ? UINT32_MAX : (uint32_t)other;
    return upright ? (image_size){length, edge} : (image_size){edge, length};
}

image_size geometry_best_pinpoint(const image_config *config, image_size size) {
    image_size best = {config->pinpoints[0][0], config->pinpoints[0][1]};
    double most_kept = 0, least_wasted = INFINITY;
    for (uint32_t i = 0; i < config->pinpoint_count; i++) {
        double height = config->pinpoints[i][0], width = config->pinpoints[i][1];
        double scale = fmin(width / size.width, height / size.height);
        double kept = fmin(floor(size.width * scale) * floor(size.height * scale), (double)size.width * size.height);
        double wasted = width * height - kept;
        if (kept > most_kept || (kept == most_kept && wasted < least_wasted)) {
            most_kept = kept;
            least_wasted = wasted;
            best = (image_size){config->pinpoints[i][0], config->pinpoints[i][1]};
        }
    }
    return best;
}

image_size geometry_fit(image_size size, image_size canvas) {
    double across = (double)canvas.width / size.width, down = (double)canvas.height / size.height;
    if (across < down) return (image_size){(uint32_t)fmin(ceil(size.height * across), canvas.height), canvas.width};
    return (image_size){canvas.height, (uint32_t)fmin(ceil(size.width * down), canvas.width)};
}

/// int(round(x, 7)): cut off, unless it is an integer but for rounding.
static uint32_t round_off(double x) {
    double whole = floor(x);
    return (uint32_t)(x - whole >= 1 - 5e-8 ? whole + 1 : whole);
}

image_size geometry_unpad(image_size size, image_size canvas) {
    double aspect = (double)size.width / size.height, canvas_aspect = (double)canvas.width / canvas.height;
    if (aspect > canvas_aspect) {
        uint32_t height = round_off(size.height * ((double)canvas.width / size.width));
        return (image_size){canvas.height - (canvas.height - height) / 2 * 2, canvas.width};
    }
    uint32_t width = round_off(size.width * ((double)canvas.height / size.height));
    return (image_size){canvas.height, canvas.width - (canvas.width - width) / 2 * 2};
}

/// The longer side becomes `edge`, the other what the aspect says, in one of the two ways of rounding.
static image_size with_longer(image_size size, uint32_t edge, bool even) {
    double aspect = (double)size.width / size.height;
    if (size.width >= size.height) {
        uint32_t height = (uint32_t)(edge / aspect);
        return (image_size){at_least(even ? height + height % 2 : height, 1), edge};
    }
    uint32_t width = (uint32_t)(edge * aspect);
    return (image_size){edge, at_least(even ? width + width % 2 : width, 1)};
}

image_size geometry_longest_edge(image_size size, uint32_t edge) {
    image_size scaled = with_longer(size, edge, true);
    if (scaled.width > IMAGE_MOST_EDGE || scaled.height > IMAGE_MOST_EDGE) return with_longer(scaled, IMAGE_MOST_EDGE, false);
    return scaled;
}

static uint32_t whole(uint32_t length, uint32_t tile) { return (length + tile - 1) / tile * tile; }

image_size geometry_whole_tiles(image_size size, uint32_t tile) {
    double aspect = (double)size.width / size.height;
    if (size.width >= size.height) {
        uint32_t width = whole(size.width, tile);
        return (image_size){whole((uint32_t)(width / aspect), tile), width};
    }
    uint32_t height = whole(size.height, tile);
    return (image_size){height, whole((uint32_t)(height * aspect), tile)};
}
