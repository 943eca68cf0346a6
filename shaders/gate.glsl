// Element by element, what the linear kernels do besides products.
float silu(float x) { return x / (1.0 + exp(-x)); }
// x/2 (1 + tanh u) = x / (1 + exp(−2u)), u = √(2/π) (x + 0.044715 x³)
float gelu(float x) { return x / (1.0 + exp(-1.5957691216 * (x + 0.044715 * x * x * x))); }
// What up is multiplied by; FLAGS as in shared.h.
float linear_gate(float x, uint flags) { return (flags & LINEAR_GELU) != 0u ? gelu(x) : silu(x); }

// 1 / √(mean x² + eps) from a row's Σ x²; `width` and the bits of eps are constants of the kernel.
float linear_rms(float squares, uint width, uint eps) { return inversesqrt(squares / float(width) + uintBitsToFloat(eps)); }
