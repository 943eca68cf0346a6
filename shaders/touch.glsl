// Lines of memory that are needed soon, read once for nothing but to have them near. CPU drivers make every load in a loop a gather; for
// gathers, processors neither fetch ahead nor wait for several lines at once. Loads of 16 bits, which no gather serves, they take as ordinary
// ones, invocation after invocation, and so each invocation brings a line.
#extension GL_EXT_shader_16bit_storage : require
layout(buffer_reference, std430, buffer_reference_align = 2) readonly buffer TouchRef { uint16_t v[]; };

const uint LINE_WORDS = 16u;

// Reads word i; what comes back has to be used.
uint touch(uvec2 address, uint i) { return uint(TouchRef(address).v[2u * i]); }
