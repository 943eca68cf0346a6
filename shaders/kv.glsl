// KV pages: page[layer][k, v][KV_PAGE_TOKENS][kv_heads · head_dim], f32, (KV_F16) halves, or (KV_Q8) signed bytes with a scale for each
// block of KV_BLOCK: behind the bytes of a layer, f32 [k, v][KV_PAGE_TOKENS][kv_heads · head_dim / KV_BLOCK]. Indices are in elements
// (bytes of a page with KV_Q8); those of vectors are multiples of four.

// First position that a row sees; window 0: all up to its own.
uint kv_lowest(uint position, uint window) { return window != 0u && position >= window ? position + 1u - window : 0u; }

// Element of a position's first value in its page, within the layer's keys (or values).
uint kv_index(uint position, uint kv_heads, uint kv_head, uint head_dim) { return ((position % KV_PAGE_TOKENS) * kv_heads + kv_head) * head_dim; }
// Elements from a layer's keys to its values.
uint kv_values(uint kv_heads, uint head_dim) { return KV_PAGE_TOKENS * kv_heads * head_dim; }

// kv_fetch only waits for memory; kv_unpack makes numbers of it. KV_WORD: elements in a word.
#ifdef KV_F16
#define KV_WORD 2u
#define KvBits uvec2
KvBits kv_fetch(uvec2 page, uint i) { return Word2Ref(page).v[i / 4u]; }
vec4 kv_unpack(KvBits bits) { return vec4(unpackHalf2x16(bits.x), unpackHalf2x16(bits.y)); }
void kv_store_pair(uvec2 page, uint i, vec2 value) { UintRef(page).v[i / 2u] = packHalf2x16(value); }
#elif defined(KV_Q8)
#include "bytes.glsl"
#define KV_WORD 4u
#define KvBits uvec2
// The scale of a block, in words of its page.
uint kv_scale(uint i) { return (push.page_base + 2u * kv_values(push.kv_heads, HEAD_DIM)) / 4u + (i - push.page_base) / KV_BLOCK; }
KvBits kv_fetch(uvec2 page, uint i) { return uvec2(WordRef(page).v[i / 4u], WordRef(page).v[kv_scale(i)]); }
vec4 kv_unpack(KvBits bits) { return uintBitsToFloat(bits.y) * signed_bytes_to_vec4(bits.x); }
#else
#define KV_WORD 1u
#define KvBits vec4
KvBits kv_fetch(uvec2 page, uint i) { return ConstVec4Ref(page).v[i / 4u]; }
vec4 kv_unpack(KvBits bits) { return bits; }
void kv_store_pair(uvec2 page, uint i, vec2 value) { Vec2Ref(page).v[i / 2u] = value; }
#endif
vec4 kv_load(uvec2 page, uint i) { return kv_unpack(kv_fetch(page, i)); }

// Where vectors of a key or of values follow each other, from element i on.
//   kv_take(row, d)  the d-th
#if defined(LONG) && !defined(KV_Q8)
struct KvRow { LongRef at; };
KvRow kv_row(uvec2 page, uint i) { return KvRow(long_at(page, i / KV_WORD)); }
#ifdef KV_F16 // with a zero that compilers don't know, as in weights.glsl
vec4 kv_take(KvRow row, uint d) { return kv_unpack(long_words(row.at, d) ^ push.kv_heads >> 31); }
#else
vec4 kv_take(KvRow row, uint d) { return long_floats(row.at, 2u * d); }
#endif
#else
struct KvRow {
    uvec2 page;
    uint i;
};
KvRow kv_row(uvec2 page, uint i) { return KvRow(page, i); }
vec4 kv_take(KvRow row, uint d) { return kv_load(row.page, row.i + 4u * d); }
#endif

uvec2 kv_page(uint sequence, uint position) {
    return PageTableRef(push.step.v.pages).v[sequence * push.step.v.page_stride + position / KV_PAGE_TOKENS];
}
