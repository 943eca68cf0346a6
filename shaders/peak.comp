// What a device can do at most, for bench to hold kernels against; nothing is computed.
//   READ    bytes: in_ is read once, 16 bytes an invocation at a time, neighbours beside each other; workgroups begin push.apart elements
//           from each other and go on in steps of push.step; TOUCH: which are the workgroup's size
//   FMA     f32: eight chains of vec4 multiply-adds an invocation, 64 operations a round
//   MATRIX  matrix units: four chains of multiply-adds a subgroup, f16 into f32, 8 · M · N · K operations a round
//
// Grid: x = workgroups, as many as fill the device. Writes nothing, but for sums that never come about.
// Constants: 0 workgroup size · 1, 2, 3 M, N, K (MATRIX)
// Tiers: strict; TOUCH: storage; MATRIX: subgroup, half, matrix.
#version 450
#ifdef MATRIX
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#include "refs.glsl"
#ifdef TOUCH
#include "touch.glsl"
#endif

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WORKGROUP = 64;
layout(constant_id = 1) const uint M = 16;
layout(constant_id = 2) const uint N = 16;
layout(constant_id = 3) const uint K = 16;
layout(push_constant, std430) uniform Push { PushPeak push; };

#if defined(READ)
float work() {
    uvec4 all = uvec4(0);
    uint i = gl_WorkGroupID.x * push.apart + gl_LocalInvocationID.x, step = push.step;
    for (uint turn = 0u; turn < push.count; turn++, i += 4u * step) { // four on their way at a time
#ifdef TOUCH
        all.x |= touch(push.in_, 4u * (i - gl_LocalInvocationID.x) + LINE_WORDS * gl_LocalInvocationID.x);
#endif
        Word4Ref words = Word4Ref(push.in_);
        all |= (words.v[i] | words.v[i + step]) | (words.v[i + 2u * step] | words.v[i + 3u * step]);
    }
    return float((all.x | all.y) | (all.z | all.w)); // the buffer holds zeros
}
#elif defined(FMA)
float work() {
    vec4 chains[8];
    [[unroll]] for (uint c = 0u; c < 8u; c++) chains[c] = vec4(float(gl_LocalInvocationID.x + c));
    for (uint i = 0u; i < push.count; i++)
        [[unroll]] for (uint c = 0u; c < 8u; c++) chains[c] = chains[c] * push.factor + push.factor;
    vec4 sum = vec4(0);
    [[unroll]] for (uint c = 0u; c < 8u; c++) sum += chains[c];
    return sum.x + sum.y + sum.z + sum.w < -1.0 ? 1.0 : 0.0; // of positive numbers
}
#elif defined(MATRIX)
shared float corner[M * N];
float work() {
    coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a = coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>(push.factor);
    coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b = coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>(push.factor);
    coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> chains[4];
    [[unroll]] for (uint c = 0u; c < 4u; c++) chains[c] = coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(float(c));
    for (uint i = 0u; i < push.count; i++)
        [[unroll]] for (uint c = 0u; c < 4u; c++) chains[c] = coopMatMulAdd(a, b, chains[c]);
    [[unroll]] for (uint c = 1u; c < 4u; c++) chains[0] += chains[c];
    coopMatStore(chains[0], corner, 0u, N, gl_CooperativeMatrixLayoutRowMajor);
    barrier();
    return corner[gl_LocalInvocationID.x % (M * N)] < -1.0 ? 1.0 : 0.0;
}
#endif

void main() {
    float never = work();
    if (never != 0.0) push.out_.v[0] = never;
}
