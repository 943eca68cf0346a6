// Rotates q in place and k on its way into the KV pages, where v goes too.
//
// Rotation (RoFormer, in Hugging Face's order): (x_i, x_{i+d/2}) → (x_i cos − x_{i+d/2} sin, x_{i+d/2} cos + x_i sin).
//
// Rows behind the first push.rows are copies: k and v of row Row.token for another sequence's page.
//
// Grid: x = (heads + 2 kv_heads) · head_dim / 4 / workgroup size, y = rows and copies. An invocation takes values i, i + 1 of a head and
// their partners i + d/2, i + 1 + d/2.
// Constants: 0 workgroup size · 1 HEAD_DIM (a multiple of 4) · 2 BIAS: q, k and v are what qkv holds plus their bias
// Tiers: strict. KV_F16: pages of halves. KV_Q8: of bytes; HEAD_DIM is a multiple of KV_BLOCK and the workgroup has whole heads, which pass
// through shared memory.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const uint HEAD_DIM = 64;
layout(constant_id = 2) const bool BIAS = false;
layout(push_constant, std430) uniform Push { PushRopeKv push; };
#include "kv.glsl"

#ifdef KV_Q8
shared float head_values[4u * WORKGROUP]; // [head of the workgroup][HEAD_DIM]

// Values d … d + 3 of the head at `head`, as bytes of the largest magnitude of their block; the scale of one that holds NaN or infinity is NaN.
void put_bytes(uvec2 page, uint to, uint head, uint d) {
    uint block = head + d / KV_BLOCK * KV_BLOCK, bits = 0u; // of the largest: those of infinities and NaN are larger than numbers'
    for (uint i = 0u; i < KV_BLOCK; i++) bits = max(bits, floatBitsToUint(head_values[block + i]) & 0x7fffffffu);
    bool are_numbers = bits < 0x7f800000u;
    float largest = uintBitsToFloat(bits), inverse = are_numbers && largest > 1.0e-30 ? 127.0 / largest : 0.0;
    uint word = 0u;
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        float value = are_numbers ? head_values[head + d + i] * inverse : 0.0;
        word |= (uint(int(round(value))) & 255u) << 8u * i;
    }
    UintRef(page).v[(to + d) / 4u] = word;
    if (d % KV_BLOCK == 0u) UintRef(page).v[kv_scale(to + d)] = are_numbers ? floatBitsToUint(largest / 127.0) : 0x7fc00000u;
}
#endif

void main() {
    uint item = gl_GlobalInvocationID.x, t = gl_WorkGroupID.y;
    uint head = item / (HEAD_DIM / 4u), i = item % (HEAD_DIM / 4u) * 2u;
    Row row = RowRef(push.step.v.rows).v[t];
    bool is_q = head < push.heads, is_v = head >= push.heads + push.kv_heads, is_copy = t >= push.rows;
    bool is_there = head < push.heads + 2u * push.kv_heads && !(is_q && is_copy);
    uint kv_head = is_v ? head - push.heads - push.kv_heads : head - push.heads;
    vec2 a = vec2(0), b = vec2(0);
    if (is_there) {
        uint column = i + (is_q ? push.q_offset + head * HEAD_DIM : (is_v ? push.v_offset : push.k_offset) + kv_head * HEAD_DIM);
        uint from = (is_copy ? row.token : t) * push.stride + column;
        a = vec2(push.qkv.v[from], push.qkv.v[from + 1u]);
        b = vec2(push.qkv.v[from + HEAD_DIM / 2u], push.qkv.v[from + HEAD_DIM / 2u + 1u]);
        if (BIAS) {
            a += vec2(FloatRef(push.bias).v[column], FloatRef(push.bias).v[column + 1u]);
            b += vec2(FloatRef(push.bias).v[column + HEAD_DIM / 2u], FloatRef(push.bias).v[column + HEAD_DIM / 2u + 1u]);
        }
        if (!is_v) {
            uint at = row.position * (HEAD_DIM / 2u) + i;
            vec2 r0 = push.table.v[at], r1 = push.table.v[at + 1u];
            vec2 c = vec2(r0.x, r1.x), s = vec2(r0.y, r1.y), a0 = a;
            a = a0 * c - b * s;
            b = b * c + a0 * s;
        }
        if (is_q) {
            push.qkv.v[from] = a.x;
            push.qkv.v[from + 1u] = a.y;
            push.qkv.v[from + HEAD_DIM / 2u] = b.x;
            push.qkv.v[from + HEAD_DIM / 2u + 1u] = b.y;
        }
    }

#ifdef KV_Q8
    uint in_group = gl_LocalInvocationID.x / (HEAD_DIM / 4u) * HEAD_DIM;
    head_values[in_group + i] = a.x;
    head_values[in_group + i + 1u] = a.y;
    head_values[in_group + i + HEAD_DIM / 2u] = b.x;
    head_values[in_group + i + HEAD_DIM / 2u + 1u] = b.y;
    barrier();
#endif
    if (!is_there || is_q) return;
    uvec2 page = kv_page(row.sequence, row.position);
    uint to = push.page_base + (is_v ? kv_values(push.kv_heads, HEAD_DIM) : 0u) + kv_index(row.position, push.kv_heads, kv_head, HEAD_DIM);
#ifdef KV_Q8
    put_bytes(page, to, in_group, 2u * i);
#else
    kv_store_pair(page, to + i, a);
    kv_store_pair(page, to + i + HEAD_DIM / 2u, b);
#endif
}
