#include "ops/record.h"

const char *kv_type_name(kv_type type) {
    static const char *const names[KV_TYPES] = {"f32", "f16", "q8_0"};
    return names[type];
}

bool kv_type_suits(kv_type type, uint32_t head_dim) {
    return type == KV_Q8 ? head_dim % KV_BLOCK == 0 && head_dim <= 256 : head_dim % 4 == 0;
}

uint64_t kv_page_bytes(kv_type type, uint32_t kv_heads, uint32_t head_dim) {
    uint64_t values = 2ull * KV_PAGE_TOKENS * kv_heads * head_dim;
    return type == KV_Q8 ? values + 4 * (values / KV_BLOCK) : values * (type == KV_F16 ? 2 : 4);
}

uint32_t op_page_base(kv_type type, uint32_t layer, uint32_t kv_heads, uint32_t head_dim) {
    static const uint32_t bytes[KV_TYPES] = {4, 2, 1};
    return (uint32_t)(layer * kv_page_bytes(type, kv_heads, head_dim) / bytes[type]);
}
