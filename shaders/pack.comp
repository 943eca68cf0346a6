// Rows first … first + rows − 1 of a matrix from x f32 [rows, x_stride], in the layout that the linear kernels read (runtime/ops/matrix.h)
// and with ggml's reference rounding.
//
// Grid: x, y = elements of the rows / workgroup size, folded; an element is what one invocation writes: a unit of eight values (F16), 32
// values (Q4), twice 32 values (Q8, whose scales share words by two). The rows are whole groups, so their elements follow one another in
// every plane, and none of their words is another row's.
// Memory per value: 4 bytes read, the type's written.
//
// Constants: 0 workgroup size · 1 WEIGHT_GROUP
// Tiers: strict. One of PACK_F16, PACK_Q8, PACK_Q4 is defined.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const uint WEIGHT_GROUP = 1;
layout(push_constant, std430) uniform Push { PushPack push; };

// The bits of a half, rounded to nearest even; packHalf2x16 may round as it likes.
uint half_bits(float x) {
    uint bits = floatBitsToUint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7e00u;
    if (magnitude >= 0x477ff000u) return sign | 0x7c00u;                                                      // 65520 and more
    if (magnitude < 0x38800000u) return sign | uint(roundEven(uintBitsToFloat(magnitude) * 16777216.0));      // steps of 2⁻²⁴
    return sign | (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
}

// Row and place in it of element `index` of a plane of `count` elements a row.
uvec2 element_at(uint index, uint count) {
    uint group = index / (WEIGHT_GROUP * count), rest = index % (WEIGHT_GROUP * count);
    return uvec2(group * WEIGHT_GROUP + rest % WEIGHT_GROUP, rest / WEIGHT_GROUP);
}

// Index in a plane of `count` elements a row.
uint index_of(uint row, uint place, uint count) {
    return row / WEIGHT_GROUP * WEIGHT_GROUP * count + row % WEIGHT_GROUP + place * WEIGHT_GROUP;
}

// Words of the first plane, whose elements have `words` each.
uint plane_words(uint words) { return (push.out_rows + WEIGHT_GROUP - 1u) / WEIGHT_GROUP * WEIGHT_GROUP * push.in_units * words; }

bool is_row(uint row) { return row < push.out_rows && row - push.first < push.rows; }

vec4 load(uint row, uint quad) { return Vec4Ref(push.x).v[(row - push.first) * push.x_stride / 4u + quad]; }

void store(uint word, uint value) { UintRef(push.words).v[word] = value; }

#if defined(PACK_F16)
const uint ELEMENT_UNITS = 1u;
void pack(uint element) {
    uvec2 at = element_at(element, push.in_units);
    if (!is_row(at.x)) return;
    vec4 a = load(at.x, 2u * at.y), b = load(at.x, 2u * at.y + 1u);
    [[unroll]] for (uint i = 0u; i < 2u; i++) {
        store(4u * element + i, half_bits(a[2u * i]) | half_bits(a[2u * i + 1u]) << 16);
        store(4u * element + 2u + i, half_bits(b[2u * i]) | half_bits(b[2u * i + 1u]) << 16);
    }
}

#elif defined(PACK_Q8)
const uint ELEMENT_UNITS = 8u;
// To the nearest, halves away from zero.
uint quant(float x) { return uint(int(sign(x) * floor(abs(x) + 0.5))) & 255u; }
uint quants(vec4 x) { return quant(x.x) | quant(x.y) << 8 | quant(x.z) << 16 | quant(x.w) << 24; }

// 32 values; returns their d.
uint pack_block(uint index) {
    uvec2 at = element_at(index, push.in_units / 4u);
    if (!is_row(at.x)) return 0u; // beside the last row
    float top = 0.0;
    for (uint i = 0u; i < 8u; i++) {
        vec4 x = abs(load(at.x, 8u * at.y + i));
        top = max(top, max(max(x.x, x.y), max(x.z, x.w)));
    }
    float d = top / 127.0, inverse = d > 0.0 ? 1.0 / d : 0.0;
    for (uint unit = 0u; unit < 4u; unit++) {
        uint to = 2u * index_of(at.x, 4u * at.y + unit, push.in_units);
        store(to, quants(load(at.x, 8u * at.y + 2u * unit) * inverse));
        store(to + 1u, quants(load(at.x, 8u * at.y + 2u * unit + 1u) * inverse));
    }
    return half_bits(d);
}

void pack(uint element) {
    uint low = pack_block(2u * element), high = pack_block(2u * element + 1u);
    store(plane_words(2u) + element, low | high << 16);
}

#elif defined(PACK_Q4)
const uint ELEMENT_UNITS = 4u;
uint quant(float x, float inverse) {
    precise float shifted = x * inverse + 8.5;
    return min(15u, uint(max(shifted, 0.0)));
}

void pack(uint element) {
    uvec2 at = element_at(element, push.in_units / 4u);
    if (!is_row(at.x)) return;
    float extreme = 0.0; // the first value of largest magnitude
    for (uint i = 0u; i < 8u; i++) {
        vec4 x = load(at.x, 8u * at.y + i);
        [[unroll]] for (uint c = 0u; c < 4u; c++) extreme = abs(x[c]) > abs(extreme) ? x[c] : extreme;
    }
    float d = extreme / -8.0, inverse = d != 0.0 ? 1.0 / d : 0.0;
    for (uint unit = 0u; unit < 4u; unit++) {
        vec4 a = load(at.x, 8u * at.y + 2u * unit), b = load(at.x, 8u * at.y + 2u * unit + 1u);
        uint word = 0u;
        [[unroll]] for (uint c = 0u; c < 4u; c++) word |= quant(a[c], inverse) << 8u * c | quant(b[c], inverse) << (8u * c + 4u);
        store(index_of(at.x, 4u * at.y + unit, push.in_units), word);
    }
    uint bits = half_bits(d);
    store(plane_words(1u) + element, bits | half_bits(-8.0 * unpackHalf2x16(bits).x) << 16);
}
#endif

void main() {
    uint groups = (push.first + push.rows + WEIGHT_GROUP - 1u) / WEIGHT_GROUP;
    uint row_elements = push.in_units; // in units
    uint from = push.first * row_elements / ELEMENT_UNITS;
    uint end = (groups * WEIGHT_GROUP * row_elements + ELEMENT_UNITS - 1u) / ELEMENT_UNITS;
    uint element = from + (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * WORKGROUP + gl_LocalInvocationID.x;
    if (element < end) pack(element);
}
