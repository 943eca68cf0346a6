/// A weight matrix on the device, in the layout that the kernels read.
///
/// W [out, in] with the inner dimension padded by zeros to a multiple of 32 (padded). Layouts by type, each plane following the one
/// before in one buffer range, by rows:
///   F32, F16, BF16: values.
///   Q8: int8 quants; then f16 d per 32.                    value = d · q
///   Q4: nibbles, eight consecutive values in a uint (value i of the first four in bits 8i, of the last four in 8i + 4);
///       then (f16 d, f16 m) per 32.                         value = d · q + m   (Q4_0 becomes m = −8 d, exactly)
///   Q5: nibbles as in Q4; then the fifth bits, a byte per eight values (value i in bit i); then (f16 d, f16 m) per 32.
///                                                           value = d · q + m   (Q5_0 becomes m = −16 d, exactly)
///   Q4K: nibbles; then (uint8 scale, uint8 minimum) per 32; then (f16 d, f16 dmin) per 256.
///                                                           value = d · scale · q − dmin · minimum
///   Q5K: the same with fifth bits behind the nibbles.
///   Q6: low nibbles as in Q4; then 2 high bits, eight values in 16 bits (value i in bits 2i); then int8 scale per 16; then
///       f16 d per 256.                                      value = d · scale · (q − 32)
/// A plane's elements are what one unit of eight values takes there, or one scale or d. With group = 1 rows follow one another. Else
/// the elements of `group` rows are interleaved (element 0 of each, element 1 of each, …), and the rows are padded to whole groups:
/// CPU drivers read group rows at once, and so it is one stream, which the processor prefetches, instead of many short ones.
///
/// A matrix that exceeds what a buffer may hold, or what the kernels' 32-bit indices reach, lies in parts: rows 0 … part_rows − 1,
/// part_rows … 2 · part_rows − 1, and so on, each laid out like a matrix of its own. Operations take parts one after another.
#ifndef OPS_MATRIX_H
#define OPS_MATRIX_H

#include "gpu/buffer.h"
#include "shaders/shared.h"

#include <stdbool.h>

typedef enum matrix_type {
    MATRIX_F32,
    MATRIX_F16,
    MATRIX_BF16,
    MATRIX_Q8,
    MATRIX_Q4,
    MATRIX_Q5,
    MATRIX_Q4K,
    MATRIX_Q5K,
    MATRIX_Q6,
    MATRIX_TYPES
} matrix_type;

enum { MATRIX_MAX_PARTS = 16 };
typedef struct matrix {
    matrix_type type;
    uint32_t out, in;
    uint32_t padded;                        // in, rounded up to 32 (Q4K, Q5K, Q6: 256 divides in)
    uint32_t group;                         // rows that are interleaved, a power of two
    uint32_t part_rows;                     // rows of every part but the last, which has what is left; 0: one part
    uint64_t address;                       // device address of the first plane, of the first part
    uint64_t further[MATRIX_MAX_PARTS - 1]; // … of the other parts
} matrix;

/// The matrix [out, in] of a type, without an address.
matrix matrix_of(matrix_type type, uint32_t out, uint32_t in, uint32_t group);
/// Divides a matrix into as few parts of at most `limit` bytes as there can be, of about equal size. false when they would be more
/// than MATRIX_MAX_PARTS or when a part of the least rows exceeds the limit; *needed is then the least limit that would do.
bool matrix_split(matrix *whole, uint64_t limit, uint64_t *needed);
uint32_t matrix_part_count(const matrix *whole);
/// Part `index` as a matrix of its own.
matrix matrix_part(const matrix *whole, uint32_t index);
void matrix_set_part_address(matrix *whole, uint32_t index, uint64_t address);
/// Bytes of the device layout, of all parts.
uint64_t matrix_bytes(const matrix *shape);
const char *matrix_type_name(matrix_type type);

enum { MATRIX_MAX_PLANES = 4 };
typedef struct matrix_planes {
    uint32_t count;
    uint64_t offset[MATRIX_MAX_PLANES];        // of the plane from the matrix's start, bytes
    uint64_t row_bytes[MATRIX_MAX_PLANES];     // of one row's share of the plane; whole groups of rows lie together
    uint32_t element_bytes[MATRIX_MAX_PLANES]; // what is interleaved
} matrix_planes;
/// Of a matrix in one part.
matrix_planes matrix_get_planes(const matrix *shape);

/// Rearranges `rows` rows of a GGUF tensor (row-major blocks, src_type a GGUF type number) into the device layout: row i of
/// src becomes row first_row + i of the matrix `shape`, in one part, whose bytes begin at dst. Only those rows' shares of the planes are
/// written. false when src_type does not map to the matrix's type.
bool matrix_pack_rows(const matrix *shape, uint32_t src_type, const void *src, uint32_t first_row, uint32_t rows, void *dst);
/// The device type that holds a GGUF type; MATRIX_TYPES when there is none.
matrix_type matrix_type_from_gguf(uint32_t type);

#endif
