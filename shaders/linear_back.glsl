// What the transposed linear kernels share: push constants, finding a workgroup's matrix, and storing.
layout(push_constant, std430) uniform Push { PushLinearBack push; };

// Which matrix a workgroup works on, when each takes `tile` units and matrices follow one another: x is its index, y the first unit.
uvec2 linear_back_segment(uint group, uint tile, uint segments) {
    uint s = 0u;
    while (s + 1u < segments) {
        uint groups = (push.in_units[s] + tile - 1u) / tile;
        if (group < groups) break;
        group -= groups;
        s++;
    }
    return uvec2(s, group * tile);
}

// y[t, 4 · quad …] of segment s; FLAGS as in shared.h.
void linear_back_store(uint s, uint t, uint quad, vec4 value, uint flags) {
    uint i = (t * push.y_stride + push.y_offset[s]) / 4u + quad;
    Vec4Ref y = Vec4Ref(push.y);
    if ((flags & LINEAR_RESIDUAL) != 0u) value += y.v[i];
    y.v[i] = value;
}
