// Buffer references and the structs shared with C. Included first by every kernel.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

layout(buffer_reference) buffer FloatRef;
layout(buffer_reference) buffer Vec2Ref;
layout(buffer_reference) buffer Vec4Ref;
layout(buffer_reference) readonly buffer ConstVec4Ref;
layout(buffer_reference) buffer UintRef;
layout(buffer_reference) buffer Uint2Ref;
layout(buffer_reference) readonly buffer WordRef;
layout(buffer_reference) readonly buffer Word4Ref;
layout(buffer_reference) buffer RowRef;
layout(buffer_reference) readonly buffer SpanRef;
layout(buffer_reference) readonly buffer PageTableRef;
layout(buffer_reference) readonly buffer StepRef;
layout(buffer_reference) readonly buffer SamplerRef;
layout(buffer_reference) writeonly buffer SampledRef;

#include "shared.h"

layout(buffer_reference, std430, buffer_reference_align = 4) buffer FloatRef { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Vec2Ref { vec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Vec4Ref { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer ConstVec4Ref { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer UintRef { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Uint2Ref { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer WordRef { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Word2Ref { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Word4Ref { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer RowRef { Row v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer SpanRef { Span v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer PageTableRef { uvec2 v[]; }; // UintRefs: an array of references would need RuntimeDescriptorArray
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer StepRef { Step v; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer SamplerRef { Sampler v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer SampledRef { Sampled v[]; };
