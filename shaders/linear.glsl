// What the linear kernels share: push constants, finding a workgroup's matrix, and the epilogue.
#include "gate.glsl"

layout(push_constant, std430) uniform Push { PushLinear push; };

// Which matrix a workgroup works on, when each takes `tile` output rows and matrices follow one another: x is its index,
// y the first output row.
uvec2 linear_segment(uint group, uint tile, uint segments) {
    uint s = 0u;
    while (s + 1u < segments) {
        uint groups = (push.out_rows[s] + tile - 1u) / tile;
        if (group < groups) break;
        group -= groups;
        s++;
    }
    return uvec2(s, group * tile);
}

// Where shares of sums begin in the scratch of operands, in floats: behind what undoes their scaling, on 16 bytes.
uint matrix_shares(uint undo, uint rows) { return (undo + rows + 3u) / 4u * 4u; }

// What y[t, o] of segment s takes besides its sum; FLAGS as in shared.h.
struct LinearEnd {
    float factor;
    float add;
};
LinearEnd linear_end(uint s, uint t, uint o, uint flags) {
    LinearEnd end = LinearEnd(1.0, 0.0);
    if ((flags & LINEAR_SCALE) != 0u) {
        uint expert = RowRef(push.step.v.rows).v[t].expert;
        end.factor = FloatRef(push.step.v.scales).v[expert * push.step.v.scale_stride + push.scale_offset[s] + o];
    }
    if ((flags & LINEAR_BIAS) != 0u) end.add = FloatRef(push.norm).v[push.y_offset[s] + o];
    if ((flags & LINEAR_RESIDUAL) != 0u) end.add += push.y.v[t * push.y_stride + push.y_offset[s] + o];
    return end;
}
void linear_store_end(uint s, uint t, uint o, float value, LinearEnd end, uint flags) {
    if ((flags & LINEAR_SCALE) != 0u) value *= end.factor;
    if ((flags & (LINEAR_BIAS | LINEAR_RESIDUAL)) != 0u) value += end.add;
    push.y.v[t * push.y_stride + push.y_offset[s] + o] = value;
}
void linear_store(uint s, uint t, uint o, float value, uint flags) { linear_store_end(s, t, o, value, linear_end(s, t, o, flags), flags); }
