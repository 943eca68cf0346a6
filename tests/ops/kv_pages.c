#include "kv_pages.h"

#include "loader/tensor_type.h"

#include <string.h>

kv_pages kv_pages_make(harness *h, uint32_t layers, uint32_t kv_heads, uint32_t head_dim, bool f16, const uint32_t *lengths,
                       uint32_t sequences) {
    kv_pages kv = {.layers = layers, .kv_heads = kv_heads, .head_dim = head_dim, .f16 = f16, .sequences = sequences, .page_stride = 1};
    kv.page_count = 1; // the trap
    for (uint32_t s = 0; s < sequences; s++) {
        uint32_t pages = (lengths[s] + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
        kv.page_count += pages;
        if (pages + 1 > kv.page_stride) kv.page_stride = pages + 1;
    }
    kv.page_values = (size_t)layers * 2 * KV_PAGE_TOKENS * kv_heads * head_dim;
    size_t page_bytes = kv.page_values * (f16 ? 2 : 4);
    kv.base = harness_put(h, NULL, kv.page_count * page_bytes);

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
            kv.table[s * kv.page_stride + p] = kv.base + page * page_bytes;
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

float kv_pages_set(harness *h, const kv_pages *kv, size_t at, float number) {
    uint8_t *bytes = harness_before(h, kv->base);
    if (kv->f16) {
        uint16_t half = half_from_float(number);
        memcpy(bytes + 2 * at, &half, 2);
        return half_to_float(half);
    }
    memcpy(bytes + 4 * at, &number, 4);
    return number;
}
