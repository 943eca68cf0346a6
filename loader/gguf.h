/// GGUF v3 files, read by mapping, and written. Everything read is bounds-checked; nothing is copied but names.
#ifndef LOADER_GGUF_H
#define LOADER_GGUF_H

#include "loader/file_map.h"
#include "loader/tensor_type.h"
#include "zsigma/zsigma.h"

typedef enum gguf_value_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
} gguf_value_type;

typedef struct gguf_string {
    const char *data; // into the map, not terminated
    size_t size;
} gguf_string;

typedef struct gguf_value {
    gguf_string key;
    gguf_value_type type;
    gguf_value_type element_type; // arrays
    uint64_t count;               // arrays: elements; else 1
    const uint8_t *data;          // into the map: the value (strings: at the length), unaligned
    size_t size;                  // bytes of it
} gguf_value;

/// A tensor's shape is row-major (GGUF's ne reversed): shape[dims - 1] is contiguous. rows · cols view: a matrix
/// W [out, in] has shape {out, in}.
typedef struct gguf_tensor {
    char name[65];
    uint32_t type; // tensor_type
    uint32_t dims;
    uint64_t shape[4];
    uint64_t elements;
    const void *data;   // into the map
    uint64_t size;      // bytes
    uint64_t offset;    // in the file, for messages
    const char *origin; // the name that its own file has for it; NULL: this one
    bool mapped;        // data lies in a mapped file (gguf_tensor_release)
} gguf_tensor;

typedef struct gguf_file {
    file_map map;
    gguf_value *values;
    size_t value_count;
    gguf_tensor *tensors;
    size_t tensor_count;
    uint32_t alignment;
    uint32_t *tensor_hash; // open addressing by name, private
    size_t hash_size;
    void *parts; // what tensors of other files point into (gguf_adopt_tensors), else NULL
    void (*close_parts)(void *parts);
    void *image; // the bytes themselves where they were put together in memory (gguf_writer_open), else NULL
} gguf_file;

/// Errors name the file, the tensor or key and the offset. Tensors of unknown types are ZS_ERROR_UNSUPPORTED with the
/// type's number and the tensor's name.
zs_status gguf_open(const char *path, gguf_file *file, zs_error *error);
/// The same over bytes in memory, which must outlive the object (fuzzing, tests).
zs_status gguf_open_memory(const void *data, size_t size, gguf_file *file, zs_error *error);
void gguf_close(gguf_file *file);

/// Gives a file without tensors those of other files: an array from malloc and what they point into, which gguf_close hands
/// to close_parts. Both belong to the file from then on, on failure too (a name that occurs twice).
zs_status gguf_adopt_tensors(gguf_file *file, gguf_tensor *tensors, size_t count, void *parts, void (*close_parts)(void *parts),
                             zs_error *error);
/// A large file need not stay in memory: what has been read of a mapped one is let go. Else nothing happens.
void gguf_tensor_release(const gguf_tensor *tensor);
/// The name to tell a person.
const char *gguf_tensor_origin(const gguf_tensor *tensor);

const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name);
const gguf_value *gguf_find_value(const gguf_file *file, const char *key);
/// Typed getters: false when absent or of another kind. Integers of any width that fit are accepted, F32/F64 for floats.
bool gguf_get_u64(const gguf_file *file, const char *key, uint64_t *value);
bool gguf_get_u32(const gguf_file *file, const char *key, uint32_t *value);
bool gguf_get_f32(const gguf_file *file, const char *key, float *value);
bool gguf_get_bool(const gguf_file *file, const char *key, bool *value);
bool gguf_get_string(const gguf_file *file, const char *key, gguf_string *value);
/// i-th element of an array.
bool gguf_array_u64(const gguf_value *array, uint64_t i, uint64_t *value);
bool gguf_array_f32(const gguf_value *array, uint64_t i, float *value);
/// Walks an array of strings: *cursor starts at 0; false at the end.
bool gguf_array_next_string(const gguf_value *array, size_t *cursor, gguf_string *value);

/// Writing: keys and tensor infos first, then the tensors' data in the order they were added.
typedef struct gguf_writer gguf_writer;
zs_status gguf_writer_create(const char *path, bool force, gguf_writer **writer, zs_error *error);
void gguf_writer_copy_value(gguf_writer *writer, const gguf_value *value);
void gguf_writer_add_string(gguf_writer *writer, const char *key, const char *value);
void gguf_writer_add_u32(gguf_writer *writer, const char *key, uint32_t value);
void gguf_writer_add_strings(gguf_writer *writer, const char *key, const char *const *values, size_t count);
/// shape row-major.
void gguf_writer_add_tensor(gguf_writer *writer, const char *name, uint32_t type, uint32_t dims, const uint64_t *shape);
/// Writes header and infos; no more keys or tensors after it. Also reports an earlier out-of-memory.
zs_status gguf_writer_start(gguf_writer *writer, zs_error *error);
/// Data of the next tensor, whole (size must equal its bytes); padding is added.
zs_status gguf_writer_write(gguf_writer *writer, const void *data, size_t size, zs_error *error);
/// Completes the file under its name and frees the writer.
zs_status gguf_writer_finish(gguf_writer **writer, zs_error *error);
void gguf_writer_discard(gguf_writer **writer);

/// The same for keys alone, in memory: what other files say, told as a GGUF file would.
zs_status gguf_writer_create_keys(gguf_writer **writer, zs_error *error);
void gguf_writer_add_bool(gguf_writer *writer, const char *key, bool value);
void gguf_writer_add_f32(gguf_writer *writer, const char *key, float value);
void gguf_writer_add_text(gguf_writer *writer, const char *key, gguf_string value);
void gguf_writer_add_texts(gguf_writer *writer, const char *key, const gguf_string *values, size_t count);
/// Elements of four bytes: GGUF_U32, GGUF_I32 or GGUF_F32.
void gguf_writer_add_words(gguf_writer *writer, const char *key, gguf_value_type type, const void *values, size_t count);
/// Opens what was written and frees the writer, on failure too. path: where it all comes from, for messages; copied.
zs_status gguf_writer_open(gguf_writer **writer, const char *path, gguf_file *file, zs_error *error);

#endif
