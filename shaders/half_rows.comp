// h[t, i] = f16(x[t, i] · norm[i] · 2^e), 2^e such that a row's largest magnitude comes to lie in [2^13, 2^14): operands of the matrix
// kernels. undo[t] = 2^−e, and times 1 / √(mean x[t, :]² + eps) where there is a norm; a row of zeros has 0.
//
// Grid: x = rows. A workgroup takes one row. Reads it twice, writes half of it.
// Constants: 0 workgroup size · 1 whether there is a norm · 2, 3 the norm's width and eps (bits)
// Tiers: none of its own; the matrix kernels are what it is for.
#version 450
#include "refs.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 128;
layout(constant_id = 1) const bool NORM = false;
layout(constant_id = 2) const uint NORM_WIDTH = 1;
layout(constant_id = 3) const uint NORM_EPS = 0;
layout(push_constant, std430) uniform Push { PushHalfRows push; };
#include "reduce.glsl"

// The i-th four values of this workgroup's row.
vec4 x_quad(uint i) {
    uvec4 at = 4u * i + uvec4(0u, 1u, 2u, 3u);
    return mix(vec4(0.0), push.x.v[gl_WorkGroupID.x * push.x_stride / 4u + i], lessThan(at, uvec4(push.end)));
}

void main() {
    uint id = gl_LocalInvocationID.x, quads = push.width / 4u;
    float largest = 0.0, squares = 0.0;
    for (uint i = id; i < quads; i += WORKGROUP) {
        vec4 x = x_quad(i);
        squares += dot(x, x);
        vec4 size = abs(NORM ? x * push.norm.v[i] : x);
        largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
    }
    uint unused = 0u;
    workgroup_argmax(largest, unused);
    int exponent;
    frexp(largest, exponent); // largest = f · 2^exponent, f in [0.5, 1)
    float up = ldexp(1.0, 14 - exponent), down = largest > 0.0 ? ldexp(1.0, exponent - 14) : 0.0;
    if (NORM) down *= inversesqrt(workgroup_sum(squares) / float(NORM_WIDTH) + uintBitsToFloat(NORM_EPS));
    if (id == 0u) push.undo.v[gl_WorkGroupID.x] = down;
    for (uint i = id; i < quads; i += WORKGROUP) {
        vec4 x = x_quad(i) * up;
        if (NORM) x *= push.norm.v[i];
        push.h.v[gl_WorkGroupID.x * quads + i] = uvec2(packHalf2x16(x.xy), packHalf2x16(x.zw));
    }
}
