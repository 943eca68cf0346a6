// Memory 64 bits at a time. CPU drivers make every load in a loop a gather, and processors gather as many pairs of words in half the time that
// words take them, or less. Offsets that are constants are added to one address.
#define LONG
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer LongRef { uint64_t v[]; };

// Where word `word` lies, which is even.
LongRef long_at(uvec2 address, uint word) { return LongRef(packUint2x32(address) + 4ul * uint64_t(word)); }
uvec2 long_words(LongRef at, uint i) { return unpackUint2x32(at.v[i]); }
// The four floats from 2 · i on.
vec4 long_floats(LongRef at, uint i) { return uintBitsToFloat(uvec4(long_words(at, i), long_words(at, i + 1u))); }
