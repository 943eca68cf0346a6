// What the linear kernels share: push constants, finding a workgroup's matrix, and the epilogue.
layout(push_constant, std430) uniform Push { PushLinear push; };

float silu(float x) { return x / (1.0 + exp(-x)); }
// x/2 (1 + tanh u) = x / (1 + exp(−2u)), u = √(2/π) (x + 0.044715 x³)
float gelu(float x) { return x / (1.0 + exp(-1.5957691216 * (x + 0.044715 * x * x * x))); }
// What up is multiplied by; FLAGS as in shared.h.
float linear_gate(float x, uint flags) { return (flags & LINEAR_GELU) != 0u ? gelu(x) : silu(x); }

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

// 1 / √(mean x² + eps) from a row's Σ x²; `width` and the bits of eps are constants of the kernel.
float linear_rms(float squares, uint width, uint eps) { return inversesqrt(squares / float(width) + uintBitsToFloat(eps)); }

// Where shares of sums begin in the scratch of operands, in floats: behind what undoes their scaling, on 16 bytes.
uint matrix_shares(uint undo, uint rows) { return (undo + rows + 3u) / 4u * 4u; }

// y[t, o] of segment s from its sum; FLAGS as in shared.h.
void linear_store(uint s, uint t, uint o, float value, uint flags) {
    if ((flags & LINEAR_SCALE) != 0u) {
        uint expert = RowRef(push.step.v.rows).v[t].expert;
        value *= FloatRef(push.step.v.scales).v[expert * push.step.v.scale_stride + push.scale_offset[s] + o];
    }
    if ((flags & LINEAR_BIAS) != 0u) value += FloatRef(push.norm).v[push.y_offset[s] + o];
    uint i = t * push.y_stride + push.y_offset[s] + o;
    if ((flags & LINEAR_RESIDUAL) != 0u) value += push.y.v[i];
    push.y.v[i] = value;
}
