// Reading weights of every type, eight consecutive values of a row at a time (a unit). Layouts: runtime/ops/matrix.h.
//
//   WeightRow            where a row starts
//   weight_row(w, rows, units, row)        of a matrix [rows, 8 · units] at w
//   weight_scale(r, unit)                  what a unit is scaled by; constant over SCALE_UNITS consecutive units
//   weight_load(r, unit, scale, a, b)      values 8 · unit + 0…3 and 4…7
// and in two steps, so that memory can be on its way while something else is calculated:
//   WeightBits, weight_fetch(r, unit)      a unit and its scale as they lie in memory
//   weight_unpack(bits, r, unit, a, b)     its values
// Quantised types also give, for products of integers (DOT),
//   weight_integers(values, r, unit)       signed bytes q 0…3 and 4…7
//   weight_integer_scale(scale)            (m, c) with values m q + c
// and half a unit,
//   weight_quad(r, quad)                   values 4 · quad + 0…3
// which types whose values need nothing but themselves read by itself; these define WEIGHT_QUADS.
//
// Constant 1, WEIGHT_GROUP: so many rows are interleaved, element by element of their planes (matrix.h); 1: rows follow one another.
// One of WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16, WEIGHT_Q8, WEIGHT_Q4, WEIGHT_Q5, WEIGHT_Q4K, WEIGHT_Q5K, WEIGHT_Q6 is defined; STORAGE16 reads halves by 16-bit storage.

#ifdef STORAGE16
#extension GL_EXT_shader_16bit_storage : require
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Half4Ref { f16vec4 v[]; };
#endif

layout(constant_id = 1) const uint WEIGHT_GROUP = 1;

// Where a row begins in a plane of `count` elements a row; its element e lies WEIGHT_GROUP · e behind.
uint weight_place(uint row, uint count) { return row / WEIGHT_GROUP * WEIGHT_GROUP * count + row % WEIGHT_GROUP; }
// Elements of a plane of `count` elements a row.
uint weight_plane(uint rows, uint count) { return (rows + WEIGHT_GROUP - 1u) / WEIGHT_GROUP * WEIGHT_GROUP * count; }

#include "bytes.glsl"

vec4 bytes_to_vec4(uint w) { return vec4(w & 255u, (w >> 8) & 255u, (w >> 16) & 255u, w >> 24); }

// Bytes 0…3 and 4…7 of a word of nibbles.
uvec2 nibbles(uint w) { return uvec2(w, w >> 4) & 0x0f0f0f0fu; }

// The half at index i of its plane, from the word that holds it.
float half_of(uint word, uint i) {
    vec2 pair = unpackHalf2x16(word);
    return (i & 1u) == 0u ? pair.x : pair.y;
}

struct WeightRow {
    uvec2 words; // address
    uint unit;   // index of the row's first unit
    uint plane;  // words of the first plane (quantised types)
    uint scale;  // index of the row's first scale in the plane of scales
    uint super;  // index of the row's first d (K types)
};

// Each type defines
//   SCALE_UNITS
//   Values, weight_values(r, unit)         a unit's values as they lie in memory
//   weight_scale_bits(r, unit)             its scale, likewise
//   weight_scale_of(bits, r, unit)         what it is scaled by
//   weight_decode(values, r, unit, scale, a, b)
#if defined(WEIGHT_F32)
#define SCALE_UNITS 4u
#define WEIGHT_QUADS
struct Values { vec4 a, b; };
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), 0u, 0u, 0u); }
Values weight_values(WeightRow r, uint unit) {
    uint i = 2u * (r.unit + unit * WEIGHT_GROUP);
    return Values(ConstVec4Ref(r.words).v[i], ConstVec4Ref(r.words).v[i + 1u]);
}
void weight_decode(Values w, WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    a = w.a;
    b = w.b;
}
vec4 weight_quad(WeightRow r, uint quad) { return ConstVec4Ref(r.words).v[2u * (r.unit + quad / 2u * WEIGHT_GROUP) + quad % 2u]; }

#elif defined(WEIGHT_F16)
#define SCALE_UNITS 4u
#define WEIGHT_QUADS
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), 0u, 0u, 0u); }
#ifdef STORAGE16
struct Values { vec4 a, b; }; // 16-bit storage has no values of its own
Values weight_values(WeightRow r, uint unit) {
    uint i = 2u * (r.unit + unit * WEIGHT_GROUP);
    return Values(vec4(Half4Ref(r.words).v[i]), vec4(Half4Ref(r.words).v[i + 1u]));
}
void weight_decode(Values w, WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    a = w.a;
    b = w.b;
}
vec4 weight_quad(WeightRow r, uint quad) { return vec4(Half4Ref(r.words).v[2u * (r.unit + quad / 2u * WEIGHT_GROUP) + quad % 2u]); }
#else
#define Values uvec4
Values weight_values(WeightRow r, uint unit) { return Word4Ref(r.words).v[r.unit + unit * WEIGHT_GROUP]; }
void weight_decode(Values w, WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    a = vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y));
    b = vec4(unpackHalf2x16(w.z), unpackHalf2x16(w.w));
}
vec4 weight_quad(WeightRow r, uint quad) {
    uvec2 w = Word2Ref(r.words).v[2u * (r.unit + quad / 2u * WEIGHT_GROUP) + quad % 2u];
    return vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y));
}
#endif

#elif defined(WEIGHT_BF16)
#define SCALE_UNITS 4u
#define WEIGHT_QUADS
#define Values uvec4
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), 0u, 0u, 0u); }
Values weight_values(WeightRow r, uint unit) { return Word4Ref(r.words).v[r.unit + unit * WEIGHT_GROUP]; }
vec4 bf16_to_vec4(uvec2 w) { return uintBitsToFloat(uvec4(w.x << 16, w.x & 0xffff0000u, w.y << 16, w.y & 0xffff0000u)); }
void weight_decode(Values w, WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    a = bf16_to_vec4(w.xy);
    b = bf16_to_vec4(w.zw);
}
vec4 weight_quad(WeightRow r, uint quad) { return bf16_to_vec4(Word2Ref(r.words).v[2u * (r.unit + quad / 2u * WEIGHT_GROUP) + quad % 2u]); }

#elif defined(WEIGHT_Q8)
#define SCALE_UNITS 4u
#define Values uvec2
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), weight_plane(rows, units * 2u), weight_place(row, units / 4u), 0u); }
uint weight_scale_index(WeightRow r, uint unit) { return r.scale + unit / 4u * WEIGHT_GROUP; } // of halves
uvec2 weight_scale_bits(WeightRow r, uint unit) { return uvec2(WordRef(r.words).v[r.plane + weight_scale_index(r, unit) / 2u], 0); }
vec2 weight_scale_of(uvec2 bits, WeightRow r, uint unit) { return vec2(half_of(bits.x, weight_scale_index(r, unit)), 0); }
Values weight_values(WeightRow r, uint unit) { return Word2Ref(r.words).v[r.unit + unit * WEIGHT_GROUP]; }
void weight_decode(Values w, WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    a = signed_bytes_to_vec4(w.x) * scale.x;
    b = signed_bytes_to_vec4(w.y) * scale.x;
}
uvec2 weight_integers(Values w, WeightRow r, uint unit) { return w; }

#elif defined(WEIGHT_Q4) || defined(WEIGHT_Q5)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), weight_plane(rows, units), weight_place(row, units / 4u), 0u); }
uvec2 weight_scale_bits(WeightRow r, uint unit) {
#ifdef WEIGHT_Q5
    uint scales = r.plane + r.plane / 4u;
#else
    uint scales = r.plane;
#endif
    return uvec2(WordRef(r.words).v[scales + r.scale + unit / 4u * WEIGHT_GROUP], 0);
}
vec2 weight_scale_of(uvec2 bits, WeightRow r, uint unit) { return unpackHalf2x16(bits.x); }

#elif defined(WEIGHT_Q4K) || defined(WEIGHT_Q5K)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) {
    return WeightRow(w, weight_place(row, units), weight_plane(rows, units), weight_place(row, units / 4u), weight_place(row, units / 32u));
}
uint weight_scale_index(WeightRow r, uint unit) { return r.scale + unit / 4u * WEIGHT_GROUP; } // of pairs of bytes
// Words per plane: nibbles 1 per unit, fifth bits 1/4 (Q5K), scales and minima 1/8, (d, dmin) 1/32.
uvec2 weight_scale_bits(WeightRow r, uint unit) {
#ifdef WEIGHT_Q5K
    uint scales = r.plane + r.plane / 4u;
#else
    uint scales = r.plane;
#endif
    uint pair = WordRef(r.words).v[scales + weight_scale_index(r, unit) / 2u];
    return uvec2(pair, WordRef(r.words).v[scales + r.plane / 8u + r.super + unit / 32u * WEIGHT_GROUP]);
}
// (d · scale, −dmin · minimum)
vec2 weight_scale_of(uvec2 bits, WeightRow r, uint unit) {
    uint pair = bits.x >> (16u * (weight_scale_index(r, unit) & 1u));
    vec2 d = unpackHalf2x16(bits.y);
    return vec2(d.x * float(pair & 255u), -d.y * float((pair >> 8) & 255u));
}
#endif

#if defined(WEIGHT_Q5) || defined(WEIGHT_Q5K)
#define Values uvec2 // nibbles; the word that holds the fifth bits
Values weight_values(WeightRow r, uint unit) {
    uint i = r.unit + unit * WEIGHT_GROUP;
    return uvec2(WordRef(r.words).v[i], WordRef(r.words).v[r.plane + i / 4u]);
}
// Four bits to bits 4 of the bytes of a word.
uint fifth_bits(uint bits) { return ((bits & 15u) * 0x00204081u & 0x01010101u) << 4; }
uvec2 weight_integers(Values w, WeightRow r, uint unit) {
    uint high = w.y >> (8u * ((r.unit + unit * WEIGHT_GROUP) & 3u));
    return nibbles(w.x) | uvec2(fifth_bits(high), fifth_bits(high >> 4));
}
#elif defined(WEIGHT_Q4) || defined(WEIGHT_Q4K)
#define Values uint
Values weight_values(WeightRow r, uint unit) { return WordRef(r.words).v[r.unit + unit * WEIGHT_GROUP]; }
uvec2 weight_integers(Values w, WeightRow r, uint unit) { return nibbles(w); }
#endif

#if defined(WEIGHT_Q4) || defined(WEIGHT_Q4K) || defined(WEIGHT_Q5) || defined(WEIGHT_Q5K)
void weight_decode(Values w, WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    uvec2 q = weight_integers(w, r, unit);
    a = bytes_to_vec4(q.x) * scale.x + scale.y;
    b = bytes_to_vec4(q.y) * scale.x + scale.y;
}
#endif

#if defined(WEIGHT_Q6)
#define SCALE_UNITS 2u
// Words per plane: low nibbles 1 per unit, high bits 1/2, scales 1/8 (a byte per 2 units), d 1/64 (a half per 32 units). The planes
// of high bits, scales and d have sizes that follow from the low plane's.
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) {
    return WeightRow(w, weight_place(row, units), weight_plane(rows, units), weight_place(row, units / 2u), weight_place(row, units / 32u));
}
uint weight_scale_index(WeightRow r, uint unit) { return r.scale + unit / 2u * WEIGHT_GROUP; }  // of bytes
uint weight_super_index(WeightRow r, uint unit) { return r.super + unit / 32u * WEIGHT_GROUP; } // of halves
uvec2 weight_scale_bits(WeightRow r, uint unit) {
    uint scales = r.plane + r.plane / 2u;
    return uvec2(WordRef(r.words).v[scales + weight_scale_index(r, unit) / 4u],
                 WordRef(r.words).v[scales + r.plane / 8u + weight_super_index(r, unit) / 2u]);
}
vec2 weight_scale_of(uvec2 bits, WeightRow r, uint unit) {
    int scale = int(bits.x << (24u - 8u * (weight_scale_index(r, unit) & 3u))) >> 24;
    return vec2(half_of(bits.y, weight_super_index(r, unit)) * float(scale), 0);
}
#define Values uvec2 // nibbles; the word that holds the high bits
Values weight_values(WeightRow r, uint unit) {
    uint i = r.unit + unit * WEIGHT_GROUP;
    return uvec2(WordRef(r.words).v[i], WordRef(r.words).v[r.plane + i / 2u]);
}
// Four pairs of bits to bits 4, 5 of the bytes of a word.
uint high_bits(uint bits) { return (bits & 3u) << 4 | (bits & 12u) << 10 | (bits & 48u) << 16 | (bits & 192u) << 22; }
uvec2 weight_integers(Values w, WeightRow r, uint unit) {
    uint high = w.y >> (16u * ((r.unit + unit * WEIGHT_GROUP) & 1u));
    return nibbles(w.x) | uvec2(high_bits(high), high_bits(high >> 8));
}
void weight_decode(Values w, WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    uvec2 q = weight_integers(w, r, unit);
    a = (bytes_to_vec4(q.x) - 32.0) * scale.x;
    b = (bytes_to_vec4(q.y) - 32.0) * scale.x;
}
#endif

#if defined(WEIGHT_F32) || defined(WEIGHT_F16) || defined(WEIGHT_BF16)
uvec2 weight_scale_bits(WeightRow r, uint unit) { return uvec2(0); }
vec2 weight_scale_of(uvec2 bits, WeightRow r, uint unit) { return vec2(1, 0); }
#endif

#ifdef WEIGHT_Q6
vec2 weight_integer_scale(vec2 scale) { return vec2(scale.x, -32.0 * scale.x); }
#else
vec2 weight_integer_scale(vec2 scale) { return scale; }
#endif

vec2 weight_scale(WeightRow r, uint unit) { return weight_scale_of(weight_scale_bits(r, unit), r, unit); }
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) { weight_decode(weight_values(r, unit), r, unit, scale, a, b); }

#ifndef WEIGHT_QUADS
vec4 weight_quad(WeightRow r, uint quad) {
    vec4 a, b;
    weight_load(r, quad / 2u, weight_scale(r, quad / 2u), a, b);
    return (quad & 1u) == 0u ? a : b;
}
#endif

// 32nds of a word that a unit takes in each plane; planes of less are left out.
#if defined(WEIGHT_F32)
#define WEIGHT_PLANES uvec4(256, 0, 0, 0)
#elif defined(WEIGHT_F16) || defined(WEIGHT_BF16)
#define WEIGHT_PLANES uvec4(128, 0, 0, 0)
#elif defined(WEIGHT_Q8)
#define WEIGHT_PLANES uvec4(64, 4, 0, 0)
#elif defined(WEIGHT_Q4)
#define WEIGHT_PLANES uvec4(32, 8, 0, 0)
#elif defined(WEIGHT_Q5)
#define WEIGHT_PLANES uvec4(32, 8, 8, 0)
#elif defined(WEIGHT_Q4K)
#define WEIGHT_PLANES uvec4(32, 4, 1, 0)
#elif defined(WEIGHT_Q5K)
#define WEIGHT_PLANES uvec4(32, 8, 4, 1)
#elif defined(WEIGHT_Q6)
#define WEIGHT_PLANES uvec4(32, 16, 4, 0)
#endif

// LONG (long.glsl), for types that define WEIGHT_TWO: of two rows beside each other, the first of them even, in a matrix of an even WEIGHT_GROUP
//   weight_two_scales(r, unit, nothing)           what a unit is scaled by: of the first row (x, y), of the second (z, w)
//   weight_two_at(r, unit)                        where it lies
//   weight_two(at, k, scales, nothing, a, b)      a[i], b[i]: unit + k of row i
//   weight_two_quad(r, quad, nothing, w)          w[i]: values 4 · quad + 0…3 of row i
// nothing: a zero that compilers don't know to be one. It keeps LLVM from making one shuffle of two, for which it takes an instruction a value.
#ifdef LONG
const WeightRow ANY_ROW = WeightRow(uvec2(0), 0u, 0u, 0u, 0u); // where it does not matter
#if defined(WEIGHT_F32) || defined(WEIGHT_F16) || defined(WEIGHT_BF16) || defined(WEIGHT_Q8) || defined(WEIGHT_Q4)
#define WEIGHT_TWO
LongRef weight_two_at(WeightRow r, uint unit) { return long_at(r.words, WEIGHT_PLANES.x / 32u * (r.unit + unit * WEIGHT_GROUP)); }
#endif
#if defined(WEIGHT_F32)
void weight_two(LongRef at, uint k, vec4 scales, uint nothing, out vec4 a[2], out vec4 b[2]) {
    [[unroll]] for (uint i = 0u; i < 2u; i++) {
        a[i] = long_floats(at, 4u * (k * WEIGHT_GROUP + i));
        b[i] = long_floats(at, 4u * (k * WEIGHT_GROUP + i) + 2u);
    }
}
void weight_two_quad(WeightRow r, uint quad, uint nothing, out vec4 w[2]) {
    LongRef at = long_at(r.words, 8u * (r.unit + quad / 2u * WEIGHT_GROUP) + quad % 2u * 4u);
    [[unroll]] for (uint i = 0u; i < 2u; i++) w[i] = long_floats(at, 4u * i);
}
#elif defined(WEIGHT_F16) || defined(WEIGHT_BF16)
void weight_two(LongRef at, uint k, vec4 scales, uint nothing, out vec4 a[2], out vec4 b[2]) {
    [[unroll]] for (uint i = 0u; i < 2u; i++) {
        uint from = 2u * (k * WEIGHT_GROUP + i);
        uvec4 words = uvec4(long_words(at, from), long_words(at, from + 1u)) ^ nothing;
        weight_decode(words, ANY_ROW, 0u, vec2(1, 0), a[i], b[i]);
    }
}
void weight_two_quad(WeightRow r, uint quad, uint nothing, out vec4 w[2]) {
    LongRef at = long_at(r.words, 4u * (r.unit + quad / 2u * WEIGHT_GROUP) + quad % 2u * 2u);
    vec4 unused;
    [[unroll]] for (uint i = 0u; i < 2u; i++)
        weight_decode(uvec4(long_words(at, 2u * i) ^ nothing, 0u, 0u), ANY_ROW, 0u, vec2(1, 0), w[i], unused);
}
#elif defined(WEIGHT_Q8)
void weight_two(LongRef at, uint k, vec4 scales, uint nothing, out vec4 a[2], out vec4 b[2]) {
    [[unroll]] for (uint i = 0u; i < 2u; i++)
        weight_decode(long_words(at, k * WEIGHT_GROUP + i), ANY_ROW, 0u, vec2(scales[2u * i], 0), a[i], b[i]);
}
vec4 weight_two_scales(WeightRow r, uint unit, uint nothing) {
    vec2 both = unpackHalf2x16(WordRef(r.words).v[r.plane + weight_scale_index(r, unit) / 2u]);
    return vec4(both.x, 0, both.y, 0);
}
void weight_two_quad(WeightRow r, uint quad, uint nothing, out vec4 w[2]) {
    LongRef at = long_at(r.words, 2u * (r.unit + quad / 2u * WEIGHT_GROUP));
    vec4 scales = weight_two_scales(r, quad / 2u, nothing);
    [[unroll]] for (uint i = 0u; i < 2u; i++) w[i] = signed_bytes_to_vec4(long_words(at, i)[quad % 2u]) * scales[2u * i];
}
#elif defined(WEIGHT_Q4)
void weight_two(LongRef at, uint k, vec4 scales, uint nothing, out vec4 a[2], out vec4 b[2]) {
    uvec2 both = long_words(at, k * WEIGHT_GROUP / 2u);
    [[unroll]] for (uint i = 0u; i < 2u; i++)
        weight_decode(both[i], ANY_ROW, 0u, vec2(scales[2u * i], scales[2u * i + 1u]), a[i], b[i]);
}
vec4 weight_two_scales(WeightRow r, uint unit, uint nothing) {
    uvec2 both = long_words(long_at(r.words, r.plane + r.scale + unit / 4u * WEIGHT_GROUP), 0u) ^ nothing;
    return vec4(unpackHalf2x16(both.x), unpackHalf2x16(both.y));
}
void weight_two_quad(WeightRow r, uint quad, uint nothing, out vec4 w[2]) {
    uvec2 both = long_words(long_at(r.words, r.unit + quad / 2u * WEIGHT_GROUP), 0u) >> quad % 2u * 4u & 0x0f0f0f0fu;
    vec4 scales = weight_two_scales(r, quad / 2u, nothing);
    [[unroll]] for (uint i = 0u; i < 2u; i++) w[i] = bytes_to_vec4(both[i]) * scales[2u * i] + scales[2u * i + 1u];
}
#endif
#if defined(WEIGHT_F32) || defined(WEIGHT_F16) || defined(WEIGHT_BF16)
vec4 weight_two_scales(WeightRow r, uint unit, uint nothing) { return vec4(1, 0, 1, 0); }
#endif
#endif

struct WeightBits {
    Values values;
    uvec2 scale;
};
WeightBits weight_fetch(WeightRow r, uint unit) { return WeightBits(weight_values(r, unit), weight_scale_bits(r, unit)); }
void weight_unpack(WeightBits bits, WeightRow r, uint unit, out vec4 a, out vec4 b) {
    weight_decode(bits.values, r, unit, weight_scale_of(bits.scale, r, unit), a, b);
}
