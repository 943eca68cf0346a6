// Reading weights of every type, eight consecutive values of a row at a time (a unit). Layouts: runtime/ops/matrix.h.
//
//   WeightRow            where a row starts
//   weight_row(w, rows, units, row)        of a matrix [rows, 8 · units] at w
//   weight_scale(r, unit)                  what a unit is scaled by; constant over SCALE_UNITS consecutive units
//   weight_load(r, unit, scale, a, b)      values 8 · unit + 0…3 and 4…7
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

vec4 bytes_to_vec4(uint w) { return vec4(w & 255u, (w >> 8) & 255u, (w >> 16) & 255u, w >> 24); }

// Signed bytes: an arithmetic shift brings each one down.
vec4 signed_bytes_to_vec4(uint w) {
    int i = int(w);
    return vec4((i << 24) >> 24, (i << 16) >> 24, (i << 8) >> 24, i >> 24);
}

// The half at index i of a plane that starts at word `plane`.
float half_at(uvec2 w, uint plane, uint i) {
    vec2 pair = unpackHalf2x16(WordRef(w).v[plane + (i >> 1)]);
    return (i & 1u) == 0u ? pair.x : pair.y;
}

struct WeightRow {
    uvec2 words; // address
    uint unit;   // index of the row's first unit
    uint plane;  // words of the first plane (quantised types)
    uint scale;  // index of the row's first scale in the plane of scales
    uint super;  // index of the row's first d (K types)
};

#if defined(WEIGHT_F32)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), 0u, 0u, 0u); }
vec2 weight_scale(WeightRow r, uint unit) { return vec2(1, 0); }
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    a = ConstVec4Ref(r.words).v[2u * (r.unit + unit * WEIGHT_GROUP)];
    b = ConstVec4Ref(r.words).v[2u * (r.unit + unit * WEIGHT_GROUP) + 1u];
}

#elif defined(WEIGHT_F16)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), 0u, 0u, 0u); }
vec2 weight_scale(WeightRow r, uint unit) { return vec2(1, 0); }
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
#ifdef STORAGE16
    a = vec4(Half4Ref(r.words).v[2u * (r.unit + unit * WEIGHT_GROUP)]);
    b = vec4(Half4Ref(r.words).v[2u * (r.unit + unit * WEIGHT_GROUP) + 1u]);
#else
    uvec4 w = Word4Ref(r.words).v[r.unit + unit * WEIGHT_GROUP];
    a = vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y));
    b = vec4(unpackHalf2x16(w.z), unpackHalf2x16(w.w));
#endif
}

#elif defined(WEIGHT_BF16)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), 0u, 0u, 0u); }
vec2 weight_scale(WeightRow r, uint unit) { return vec2(1, 0); }
vec4 bf16_to_vec4(uvec2 w) { return uintBitsToFloat(uvec4(w.x << 16, w.x & 0xffff0000u, w.y << 16, w.y & 0xffff0000u)); }
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    uvec4 w = Word4Ref(r.words).v[r.unit + unit * WEIGHT_GROUP];
    a = bf16_to_vec4(w.xy);
    b = bf16_to_vec4(w.zw);
}

#elif defined(WEIGHT_Q8)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), weight_plane(rows, units * 2u), weight_place(row, units / 4u), 0u); }
vec2 weight_scale(WeightRow r, uint unit) { return vec2(half_at(r.words, r.plane, r.scale + unit / 4u * WEIGHT_GROUP), 0); }
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    uvec2 w = Word2Ref(r.words).v[r.unit + unit * WEIGHT_GROUP];
    a = signed_bytes_to_vec4(w.x) * scale.x;
    b = signed_bytes_to_vec4(w.y) * scale.x;
}

#elif defined(WEIGHT_Q4)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), weight_plane(rows, units), weight_place(row, units / 4u), 0u); }
vec2 weight_scale(WeightRow r, uint unit) { return unpackHalf2x16(WordRef(r.words).v[r.plane + r.scale + unit / 4u * WEIGHT_GROUP]); }

#elif defined(WEIGHT_Q5)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) { return WeightRow(w, weight_place(row, units), weight_plane(rows, units), weight_place(row, units / 4u), 0u); }
vec2 weight_scale(WeightRow r, uint unit) { return unpackHalf2x16(WordRef(r.words).v[r.plane + r.plane / 4u + r.scale + unit / 4u * WEIGHT_GROUP]); }

#elif defined(WEIGHT_Q4K) || defined(WEIGHT_Q5K)
#define SCALE_UNITS 4u
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) {
    return WeightRow(w, weight_place(row, units), weight_plane(rows, units), weight_place(row, units / 4u), weight_place(row, units / 32u));
}
// (d · scale, −dmin · minimum). Words per plane: nibbles 1 per unit, fifth bits 1/4 (Q5K), scales and minima 1/8, (d, dmin) 1/32.
vec2 weight_scale(WeightRow r, uint unit) {
#ifdef WEIGHT_Q5K
    uint scales = r.plane + r.plane / 4u;
#else
    uint scales = r.plane;
#endif
    uint i = r.scale + unit / 4u * WEIGHT_GROUP;
    uint pair = WordRef(r.words).v[scales + i / 2u] >> (16u * (i & 1u));
    vec2 d = unpackHalf2x16(WordRef(r.words).v[scales + r.plane / 8u + r.super + unit / 32u * WEIGHT_GROUP]);
    return vec2(d.x * float(pair & 255u), -d.y * float((pair >> 8) & 255u));
}
#endif

#if defined(WEIGHT_Q5) || defined(WEIGHT_Q5K)
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    uint i = r.unit + unit * WEIGHT_GROUP, w = WordRef(r.words).v[i];
    uint high = WordRef(r.words).v[r.plane + i / 4u] >> (8u * (i & 3u));
    uvec4 ha = (uvec4(high) >> uvec4(0, 1, 2, 3)) & 1u, hb = (uvec4(high) >> uvec4(4, 5, 6, 7)) & 1u;
    a = (bytes_to_vec4(w & 0x0f0f0f0fu) + vec4(ha << 4)) * scale.x + scale.y;
    b = (bytes_to_vec4((w >> 4) & 0x0f0f0f0fu) + vec4(hb << 4)) * scale.x + scale.y;
}
#elif defined(WEIGHT_Q4) || defined(WEIGHT_Q4K)
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    uint w = WordRef(r.words).v[r.unit + unit * WEIGHT_GROUP];
    a = bytes_to_vec4(w & 0x0f0f0f0fu) * scale.x + scale.y;
    b = bytes_to_vec4((w >> 4) & 0x0f0f0f0fu) * scale.x + scale.y;
}
#endif

#if defined(WEIGHT_Q6)
#define SCALE_UNITS 2u
// Words per plane: low nibbles 1 per unit, high bits 1/2, scales 1/8 (a byte per 2 units), d 1/64 (a half per 32 units).
WeightRow weight_row(uvec2 w, uint rows, uint units, uint row) {
    return WeightRow(w, weight_place(row, units), weight_plane(rows, units), weight_place(row, units / 2u), weight_place(row, units / 32u));
}
// The planes of high bits, scales and d have sizes that follow from the low plane's.
vec2 weight_scale(WeightRow r, uint unit) {
    uint total = r.plane, byte_index = r.scale + unit / 2u * WEIGHT_GROUP;
    uint word = WordRef(r.words).v[total + total / 2u + byte_index / 4u];
    int scale = int(word << (24u - 8u * (byte_index & 3u))) >> 24;
    float d = half_at(r.words, total + total / 2u + total / 8u, r.super + unit / 32u * WEIGHT_GROUP);
    return vec2(d * float(scale), 0);
}
// Two bits of eight values: spread to bits 4, 5 of the bytes of two words.
void weight_load(WeightRow r, uint unit, vec2 scale, out vec4 a, out vec4 b) {
    uint total = r.plane, i = r.unit + unit * WEIGHT_GROUP;
    uint low = WordRef(r.words).v[i];
    uint high = WordRef(r.words).v[total + i / 2u] >> (16u * (i & 1u));
    uvec4 ha = (uvec4(high) >> uvec4(0, 2, 4, 6)) & 3u;
    uvec4 hb = (uvec4(high) >> uvec4(8, 10, 12, 14)) & 3u;
    a = (bytes_to_vec4(low & 0x0f0f0f0fu) + vec4(ha << 4) - 32.0) * scale.x;
    b = (bytes_to_vec4((low >> 4) & 0x0f0f0f0fu) + vec4(hb << 4) - 32.0) * scale.x;
}
#endif
