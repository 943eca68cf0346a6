// x[t, :] = scale · embedding[rows[t].token, :], for the tokens that one part of the embedding has, and with COLUMNS ⊙ columns (rows of U
// ⊙ σ ⊙ z, when composing); with FEATURES, the first part also makes features[rows[t].token − vocab, :] of tokens outside the vocabulary.
//
// Grid: x = units (8 values) of a row / workgroup size, y = rows. An invocation dequantises one unit.
// Constants: 0 workgroup size · 1 WEIGHT_GROUP · 2 FEATURES · 3 COLUMNS
// Tiers: strict; STORAGE16.
#version 450
#include "refs.glsl"
#include "weights.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 2) const bool FEATURES = false;
layout(constant_id = 3) const bool COLUMNS = false;
layout(push_constant, std430) uniform Push { PushEmbed push; };

void main() {
    uint unit = gl_GlobalInvocationID.x, t = gl_WorkGroupID.y;
    if (unit * 8u >= push.width) return;
    uint token = RowRef(push.step.v.rows).v[t].token;
    uint to = t * push.stride + 8u * unit;
    if (FEATURES && token >= push.vocab && token - push.vocab < push.feature_rows) {
        uint from = (token - push.vocab) * push.stride + 8u * unit;
        for (uint c = 0u; push.first == 0u && c < 8u && 8u * unit + c < push.width; c++) push.x.v[to + c] = FloatRef(push.features).v[from + c];
        return;
    }
    token = min(token, push.vocab - 1u) - push.first; // below first: beyond all parts
    if (token >= push.part) return;
    WeightRow row = weight_row(push.embedding, push.part, push.in_units, token);
    vec4 a, b;
    weight_load(row, unit, weight_scale(row, unit), a, b);
    a *= push.scale;
    b *= push.scale;
    for (uint c = 0u; c < 8u && 8u * unit + c < push.width; c++) {
        float value = c < 4u ? a[c & 3u] : b[c & 3u];
        push.x.v[to + c] = COLUMNS ? value * FloatRef(push.columns).v[8u * unit + c] : value;
    }
}
