// Structs shared between C and GLSL. Pointers are 64-bit device addresses in C and buffer references in GLSL, always
// used as ref.v[i]. Push-constant structs are at most 128 bytes; std430 rules, so every 8-byte member is 8-aligned.
#ifndef SHADERS_SHARED_H
#define SHADERS_SHARED_H

#ifdef GL_core_profile // GLSL
#define REF(name) name
#define STRUCT(name) struct name
#define END(name) ;
#else
#include <assert.h>
#include <stdint.h>
#define REF(name) uint64_t
#define uint uint32_t
#define STRUCT(name) typedef struct name
#define END(name) name;
#endif

// probe.comp: the self-test of a device: out[i] = in[i] * factor + i over count elements.
STRUCT(PushProbe) {
    REF(FloatRef) in_;
    REF(FloatRef) out_;
    float factor;
    uint count;
} END(PushProbe)

#ifndef GL_core_profile
#undef uint
static_assert(sizeof(PushProbe) == 24, "matches GLSL");
#endif
#endif
