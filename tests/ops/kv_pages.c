#include "kv_pages.h"

#include "loader/tensor_type.h"

#include <math.h>
#include <string.h>

kv_pages kv_pages_make(harness *h, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, kv_type type, const uint32_t *lengths,
                       uint32_t sequences) {
    kv_pages kv = {.layers = layers, .kv_heads = kv_heads, .head_dim = head_dim, .type = type, .sequences = sequences, .page_stride = 1};
    kv.page_count = 1; // the trap
    for (uint32_t s = 0; s < sequences; s++) {
        uint32_t pages = (lengths[s] + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
        kv.page_count += pages;
        if (pages + 1 > kv.page_stride) kv.page_stride = pages + 1;
    }
    kv.page_values = (size_t)layers * 2 * KV_PAGE_TOKENS * kv_heads * head_dim;
    kv.page_bytes = layers * kv_page_bytes(type, kv_heads, head_dim);
    kv.base = harness_put(h, NULL, kv.page_count * kv.page_bytes);

    uint32_t *order = harness_alloc(h, kv.page_count, sizeof *order); // a random permutation; the first is the trap
    for (uint32_t i = 0; i < kv.page_count; i++) {
        uint32_t j = random_below(h, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    kv.table = harness_alloc(h, (size_t)sequences * kv.page_stride, sizeof *kv.table);
    kv.index = harness_alloc(h, (size_t)sequences * kv.page_stride, sizeof *kv.index);
    uint32_t next = 1;
    for (uint32_t s = 0; s < sequences; s++)
        for (uint32_t p = 0; p < kv.page_stride; p++) {
            uint32_t page = p * KV_PAGE_TOKENS < lengths[s] ? order[next++] : order[0];
            kv.index[s * kv.page_stride + p] = page;
            kv.table[s * kv.page_stride + p] = kv.base + page * kv.page_bytes;
        }
    return kv;
}

void kv_pages_share(kv_pages *kv, uint32_t sequence, uint32_t of, uint32_t first, uint32_t end) {
    for (uint32_t p = first; p < end; p++) {
        kv->index[sequence * kv->page_stride + p] = kv->index[of * kv->page_stride + p];
        kv->table[sequence * kv->page_stride + p] = kv->table[of * kv->page_stride + p];
    }
}

size_t kv_pages_at(const kv_pages *kv, uint32_t layer, bool value, uint32_t sequence, uint32_t position, uint32_t kv_head) {
    size_t page = kv->index[sequence * kv->page_stride + position / KV_PAGE_TOKENS];
    size_t token = ((size_t)(layer * 2 + value) * KV_PAGE_TOKENS) + position % KV_PAGE_TOKENS;
    return page * kv->page_values + (token * kv->kv_heads + kv_head) * kv->head_dim;
}

void kv_pages_q8_places(const kv_pages *kv, size_t at, size_t *byte, size_t *scale) {
    size_t of_layer = kv->page_values / kv->layers, layer = at / of_layer, in_layer = at % of_layer; // layers of all pages in a row
    size_t from = layer * (kv->page_bytes / kv->layers);
    *byte = from + in_layer;
    *scale = from + of_layer + in_layer / KV_BLOCK * sizeof(float);
}

float kv_pages_q8(const kv_pages *kv, const uint8_t *pages, size_t at) {
    size_t byte, place;
    float scale;
    kv_pages_q8_places(kv, at, &byte, &place);
    memcpy(&scale, pages + place, sizeof scale);
    return scale * (float)(int8_t)pages[byte];
}

/// A block of values and its scale.
static void set_q8(const kv_pages *kv, uint8_t *pages, size_t at, float *block) {
    size_t byte, place;
    float largest = 0;
    for (uint32_t i = 0; i < KV_BLOCK; i++) largest = fmaxf(largest, fabsf(block[i]));
    const float scale = largest / 127;
    kv_pages_q8_places(kv, at, &byte, &place);
    memcpy(pages + place, &scale, sizeof scale);
    for (uint32_t i = 0; i < KV_BLOCK; i++) {
        pages[byte + i] = (uint8_t)(int8_t)lrintf(scale > 0 ? block[i] / scale : 0);
        block[i] = kv_pages_q8(kv, pages, at + i);
    }
}

void kv_pages_set(harness *h, const kv_pages *kv, size_t at, float *vector) {
    uint8_t *bytes = harness_before(h, kv->base);
    if (kv->type == KV_Q8) {
        for (uint32_t i = 0; i < kv->head_dim; i += KV_BLOCK) set_q8(kv, bytes, at + i, vector + i);
    } else if (kv->type == KV_F16) {
        for (uint32_t i = 0; i < kv->head_dim; i++) {
            uint16_t half = half_from_float(vector[i]);
            memcpy(bytes + 2 * (at + i), &half, 2);
            vector[i] = half_to_float(half);
        }
    } else {
        memcpy(bytes + 4 * at, vector, 4 * kv->head_dim);
    }
}
